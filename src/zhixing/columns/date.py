"""``date``: a day or an instant, as a trend and as places on the cycles of year, month, week and day."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import AfterValidator, WithJsonSchema
from torch import Tensor

from ..errors import DataError
from .column import (
    Claim,
    Column,
    Finding,
    Locate,
    Spec,
    Tensorized,
    Wire,
    is_bytes,
    is_text,
    sample,
    shorten,
    text_of,
    whole,
)

__all__ = ["Date"]

DAY = 86_400.0
DAYS = (
    "%Y/%m/%d",
    "%Y-%m-%d",
    "%Y.%m.%d",
    "%Y年%m月%d日",
    "%d.%m.%Y",
    "%d %b %Y",
    "%d %B %Y",
    "%b %d, %Y",
    "%B %d, %Y",
)
FORMATS = tuple(day + time for day in DAYS for time in ("", " %H:%M", " %H:%M:%S"))
FIRST, LAST = -62_135_596_800.0, 253_402_300_800.0  # seconds from 1970 to the years 1 and 10000


def seconds(cell: Any) -> float | None:
    """A cell as seconds since 1970 UTC; None where it is empty. A time without a zone is taken as UTC.

    Only forms that cannot be read in two ways are taken: 03/04/2026 is a different day in London and Boston.
    """
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    if isinstance(cell, str):
        cell = parse(" ".join(cell.split()))
    if isinstance(cell, date) and not isinstance(cell, datetime):
        cell = datetime(cell.year, cell.month, cell.day)
    if not isinstance(cell, datetime):
        raise ValueError(f"not a date: {shorten(cell)}")
    return (cell if cell.tzinfo else cell.replace(tzinfo=UTC)).timestamp()


def readable(text: str) -> str:
    """The text, if it is a date. Raises ValueError; none at all is null in JSON, not an empty text."""
    if not text.strip():
        raise ValueError("an empty text is no date; give null where there is none")
    seconds(text)
    return text


def compact(text: str) -> bool:
    """Whether eight digits may be a day, as 20260131 is."""
    return len(text) == 8 and text.isdigit() and 1900 <= int(text[:4]) <= 2100


def parse(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    for form in FORMATS:
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    raise ValueError(f"not a date like 2026-01-31 or 2026-01-31 12:00: {shorten(text)}")


class Date(Column):
    """A day or an instant: the standardised time, then sine and cosine of the place in the year, month, week and,
    where training rows hold times of day, the day. An empty cell is all zeros, with a last value of one."""

    type = "date"
    kind = "vector"

    def __init__(self) -> None:
        self.mean, self.std, self.has_time = 0.0, 1.0, False

    @classmethod
    def claims(cls, values: pa.ChunkedArray, name: str) -> Claim | None:
        kind = values.type
        if pa.types.is_temporal(kind) and not pa.types.is_duration(kind) and not pa.types.is_time(kind):
            return Claim(0.95, f"stored as {kind}")
        if not is_text(kind):
            return None
        cells = sample(values, 200)
        good = 0
        for cell in cells:
            try:
                good += (compact(cell.strip()) or not cell.strip().isdigit()) and seconds(cell) is not None
            except ValueError:
                continue
        if cells and good >= 0.9 * len(cells):
            return Claim(0.9, f"{good} of {len(cells)} sampled cells read as dates")
        return None

    def read(self, values: pa.Array | pa.ChunkedArray) -> tuple[NDArray[np.float64], list[Finding]]:
        values = whole(values)
        if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
            return read_stamps(values)
        if is_bytes(values.type):
            values, broken = text_of(values)
            out, findings = self.read(values)
            return out, broken + findings
        cells = values.to_pylist()
        out, findings = np.full(len(cells), np.nan), []
        for index, cell in enumerate(cells):
            try:
                read = seconds(cell)
            except (ValueError, OverflowError) as error:
                findings.append(Finding(index, str(error)))
                continue
            if read is not None:
                out[index] = read
        return out, findings

    def fit(self, values: pa.ChunkedArray, locate: Locate) -> None:
        times, _ = self.read(values)
        times = times[~np.isnan(times)]
        if not len(times):
            raise DataError("no training row holds a date", place=f"an {self.role} of type date")
        # A single instant has no spread; what rounding leaves of it must not be blown up into one.
        self.mean, self.std = float(times.mean()), float(times.std()) if np.ptp(times) > 0 else 1.0
        self.has_time = bool((times % DAY != 0).any())

    def tensorize(self, values: pa.Array, locate: Locate) -> Tensorized:
        times, findings = self.read(values)
        empty = np.isnan(times)
        filled = np.where(empty, self.mean, times)
        days = np.floor(filled / DAY).astype("datetime64[D]")
        year, month = days.astype("datetime64[Y]"), days.astype("datetime64[M]")
        day_number = days.astype(np.int64)

        def within(start: NDArray[Any], unit: Literal["Y", "M"]) -> NDArray[np.float64]:
            first = start.astype("datetime64[D]").astype(np.int64)
            after = (start + np.timedelta64(1, unit)).astype("datetime64[D]").astype(np.int64)
            return np.asarray((day_number - first) / (after - first), np.float64)

        cycles = [within(year, "Y"), within(month, "M"), (day_number + 3) % 7 / 7]  # 1970-01-01 was a Thursday
        if self.has_time:
            cycles.append(filled % DAY / DAY)
        features = [(filled - self.mean) / self.std]
        for turn in cycles:
            features += [np.sin(2 * np.pi * turn), np.cos(2 * np.pi * turn)]
        out = np.stack(features, axis=1)
        out[empty] = 0.0
        out = np.concatenate([out, empty[:, None]], axis=1)
        return Tensorized(out.astype(np.float32), ~empty, findings)

    def spec(self) -> Spec:
        return Spec("vector", (10 if self.has_time else 8,))

    def restore(self, values: Tensor) -> list[Any]:
        """Dates to within the precision of float32: about 1e-7 of the spread of training rows."""
        times = values[:, 0].double() * self.std + self.mean
        cells: list[Any] = []
        for when, empty in zip(times.tolist(), (values[:, -1] > 0.5).tolist(), strict=True):
            when = min(max(when, FIRST), LAST - DAY)
            stamp = datetime.fromtimestamp(when if self.has_time else round(when / DAY) * DAY, UTC)
            text = stamp.isoformat(sep=" ", timespec="seconds")[:19] if self.has_time else stamp.date().isoformat()
            cells.append(None if empty else text)
        return cells

    def settings(self) -> dict[str, Any]:
        return {}

    def state(self) -> dict[str, Any]:
        return {"mean": self.mean, "std": self.std, "has_time": self.has_time}

    def load_state(self, state: dict[str, Any]) -> None:
        self.mean, self.std, self.has_time = float(state["mean"]), float(state["std"]), bool(state["has_time"])

    def wire(self) -> Wire:
        """As ISO 8601 has it; the other forms that cannot be read in two ways are taken as well."""
        middle = datetime.fromtimestamp(min(max(self.mean, FIRST), LAST - DAY), UTC)
        example = middle.isoformat(sep=" ", timespec="seconds")[:19] if self.has_time else middle.date().isoformat()
        schema = WithJsonSchema({"type": "string", "format": "date"})
        return Wire(Annotated[str, AfterValidator(readable), schema] | None, example, {})

    def summary(self) -> dict[str, Any]:
        middle = datetime.fromtimestamp(self.mean, UTC).date().isoformat()
        return {"mean": middle, "standard deviation in days": round(self.std / DAY, 2), "times of day": self.has_time}


def read_stamps(values: pa.Array) -> tuple[NDArray[np.float64], list[Finding]]:
    """Arrow's dates and timestamps as seconds, NaN where empty; years beyond 1 … 9999 are broken."""
    kind = values.type
    unit = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[kind.unit] if pa.types.is_timestamp(kind) else None
    per_second = unit or (1e3 if pa.types.is_date64(kind) else 1 / DAY)
    counts = values.cast(pa.int32()).cast(pa.int64()) if pa.types.is_date32(kind) else values.cast(pa.int64())
    out = np.array(pc.cast(counts, pa.float64(), safe=False).to_numpy(zero_copy_only=False)) / per_second
    outside = (out < FIRST) | (out >= LAST)
    findings = [Finding(int(i), "the year is outside 1 … 9999") for i in np.flatnonzero(outside)]
    out[outside] = np.nan
    return out, findings
