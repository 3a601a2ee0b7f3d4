"""``number``: a quantity, or several in a list of fixed length."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from ..errors import DataError
from .category import is_code
from .column import (
    Claim,
    Column,
    Finding,
    Locate,
    Spec,
    Tensorized,
    Wire,
    is_bytes,
    is_list,
    is_number,
    is_text,
    sample,
    shorten,
    text_of,
    whole,
)
from .wire import FAR, quantity

__all__ = ["Number"]

Array = NDArray[np.float64]
KNOTS = 257
FARTHEST = 1e30  # standard deviations that float32 still holds, with room to compute


def parse(cell: Any) -> float | None:
    """A cell as a number; None where it is empty. Raises ValueError with the reason where it is neither."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    if isinstance(cell, bytes):
        raise ValueError("not valid text")
    try:
        if isinstance(cell, str) and "_" in cell:  # Python reads 1_000; no table means that
            raise ValueError
        number = float(cell)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"not a number: {shorten(cell)}") from None
    if math.isinf(number):
        raise ValueError(f"not finite: {shorten(cell)}")
    return number


class Number(Column):
    """A quantity. A list of numbers of one length in each cell is several quantities side by side.

    Empty cells of an input become the mean, with a second value that says so where training rows have any.
    Computation is in float64 until the value is standardised, so that large offsets (years, identifiers, money) keep
    their differences in float32.
    """

    type = "number"
    kind = "vector"

    def __init__(
        self,
        *,
        scale: Annotated[
            Literal["standardise", "log", "quantile", "none"],
            Field(description="log: log(1 + |x|) with its sign; quantile: rank to a normal distribution"),
        ] = "standardise",
    ) -> None:
        self.scale = scale
        self.length = 1
        self.mean: Array = np.zeros(1)
        self.std: Array = np.ones(1)
        self.knots: Array | None = None
        self.indicator = False

    @classmethod
    def claims(cls, values: pa.ChunkedArray, name: str) -> Claim | None:
        kind = values.type
        if is_number(kind):
            return Claim(0.6, f"stored as {kind}")
        if isinstance(kind, pa.FixedShapeTensorType) and len(kind.shape) == 1:
            return Claim(0.8, f"{kind.shape[0]} numbers in each cell")
        if is_list(kind):
            lengths = {len(cell) for cell in sample(values, 200)}
            if is_number(kind.value_type) and len(lengths) == 1:
                return Claim(0.7, f"a list of {lengths.pop()} numbers in each cell")
        if not is_text(kind):
            return None
        cells = sample(values)
        if is_code(cells):
            return None
        good = 0
        for cell in cells:
            try:
                good += parse(cell) is not None
            except ValueError:
                continue
        if cells and good >= 0.9 * len(cells):
            return Claim(0.6, f"{good} of {len(cells)} sampled cells read as numbers")
        return None

    def read(self, values: pa.Array | pa.ChunkedArray, length: int) -> tuple[Array, list[Finding]]:
        """Cells to float64 [N, length], NaN where empty or broken."""
        values = whole(values)
        if isinstance(values.type, pa.FixedShapeTensorType):
            values = values.storage
        if is_list(values.type):
            return self.read_lists(values, length)
        if is_bytes(values.type):
            values, findings = text_of(values)
            out, more = self.read(values, length)
            return out, findings + more
        kind = values.type
        filled = pc.if_else(pc.equal(pc.utf8_trim_whitespace(values), ""), None, values) if is_text(kind) else values
        if is_text(kind) or is_number(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
            try:
                out = pc.cast(filled, pa.float64(), safe=is_text(kind)).to_numpy(zero_copy_only=False)
            except pa.ArrowInvalid:
                return self.read_cells(values.to_pylist())
            # Infinities, and NaN in a cell that is not empty, are told of cell by cell.
            if not np.isinf(out).any() and np.isnan(out).sum() == filled.null_count:
                return out.astype(np.float64)[:, None], []
        return self.read_cells(values.to_pylist())

    @staticmethod
    def read_cells(cells: list[Any]) -> tuple[Array, list[Finding]]:
        out, findings = np.full((len(cells), 1), np.nan), []
        for index, cell in enumerate(cells):
            try:
                number = parse(cell)
            except ValueError as error:
                findings.append(Finding(index, str(error)))
                continue
            if number is not None:
                out[index] = number
                if math.isnan(number):
                    findings.append(Finding(index, "not a number (NaN), taken as empty", "suspect"))
        return out, findings

    def read_lists(self, values: pa.Array, length: int) -> tuple[Array, list[Finding]]:
        sizes = pc.fill_null(pc.list_value_length(values), length).to_numpy(zero_copy_only=False)
        empty = values.is_null().to_numpy(zero_copy_only=False)
        fits = (sizes == length) & ~empty
        out = np.full((len(values), length), np.nan)
        findings = [
            Finding(int(i), f"{length} numbers expected, {sizes[i]} found") for i in np.flatnonzero(~fits & ~empty)
        ]
        rows = np.flatnonzero(fits)
        flat, bad = self.read(pc.list_flatten(values.filter(pa.array(fits))), 1)
        out[rows] = flat.reshape(-1, length)
        first: dict[int, Finding] = {}  # one finding a cell is enough
        for one in sorted(bad, key=lambda one: one.kind != "broken"):
            row, place = int(rows[one.index // length]), one.index % length
            first.setdefault(row, Finding(row, f"number {place}: {one.reason}", one.kind))
        return out, sorted([*findings, *first.values()], key=lambda one: one.index)

    @staticmethod
    def length_of(values: pa.Array) -> int:
        """How many numbers most cells hold."""
        if isinstance(values.type, pa.FixedShapeTensorType):
            return math.prod(values.type.shape)
        if not is_list(values.type):
            return 1
        sizes = pc.mode(pc.list_value_length(values))
        return max(1, int(sizes[0]["mode"].as_py())) if len(sizes) else 1

    def fit(self, values: pa.ChunkedArray, locate: Locate) -> None:
        values = whole(values)
        raw, _ = self.read(values, self.length_of(values))
        if np.isnan(raw).all():
            raise DataError("no training row holds a number", place=f"an {self.role} of type number")
        self.length = raw.shape[1]
        self.indicator = self.role == "input" and bool(np.isnan(raw).any())
        if self.scale == "quantile":
            self.knots = np.stack([quantiles(column) for column in raw.T], axis=1)
        if self.scale == "none":
            self.mean, self.std = np.zeros(self.length), np.ones(self.length)
        else:
            moments = np.array([centre_and_spread(column) for column in self.shape(raw).T])
            self.mean, self.std = moments[:, 0], moments[:, 1]

    def shape(self, raw: Array) -> Array:
        """The bend before standardising."""
        if self.scale == "log":
            return np.sign(raw) * np.log1p(np.abs(raw))
        if self.scale == "quantile":
            assert self.knots is not None
            rank = np.stack([rank_in(raw[:, k], self.knots[:, k]) for k in range(raw.shape[1])], axis=1)
            return normal_quantile(rank)
        return raw

    def unshape(self, shaped: Array) -> Array:
        if self.scale == "log":
            return np.sign(shaped) * np.expm1(np.abs(shaped))
        if self.scale == "quantile":
            assert self.knots is not None
            grid = np.linspace(0, 1, KNOTS)
            rank = normal_rank(shaped)
            return np.stack([np.interp(rank[:, k], grid, self.knots[:, k]) for k in range(shaped.shape[1])], axis=1)
        return shaped

    def tensorize(self, values: pa.Array, locate: Locate) -> Tensorized:
        raw, findings = self.read(values, self.length)
        if raw.shape[1] != self.length:
            findings = [Finding(i, f"{self.length} numbers expected, {raw.shape[1]} found") for i in range(len(raw))]
            raw = np.full((len(raw), self.length), np.nan)
        with np.errstate(over="ignore"):
            scaled = (self.shape(raw) - self.mean) / self.std
        far = np.abs(scaled) > FARTHEST
        findings += [
            Finding(int(i), f"too far from the training rows' numbers: {raw[i][far[i]][0]:g}")
            for i in np.flatnonzero(far.any(axis=1))
        ]
        missing = np.isnan(scaled) | far
        present: NDArray[np.bool_] = np.logical_not(missing.any(axis=1))
        out = np.where(missing, 0.0, scaled)
        if self.indicator:
            out = np.concatenate([out, missing], axis=1)
        return Tensorized(out.astype(np.float32), present, findings)

    def spec(self) -> Spec:
        return Spec("vector", (self.length * (2 if self.indicator else 1),))

    def unscale(self, values: Tensor) -> Array:
        """Standardised values [N, length] back to the column's own units, float64."""
        scaled = values[:, : self.length].detach().cpu().double().numpy()
        return self.unshape(scaled * self.std + self.mean)

    def restore(self, values: Tensor) -> list[Any]:
        raw = self.unscale(values)
        if self.indicator:
            raw = np.where(values[:, self.length :].cpu().numpy() > 0.5, np.nan, raw)
        rows = [[None if math.isnan(x) else x for x in row] for row in raw.tolist()]
        return [row[0] for row in rows] if self.length == 1 else rows

    def show(self, value: Tensor) -> dict[str, str]:
        cell = self.restore(value[None])[0]
        cells = cell if isinstance(cell, list) else [cell]
        return {"text": ", ".join("empty" if x is None else f"{x:g}" for x in cells)}

    def settings(self) -> dict[str, Any]:
        return {"scale": self.scale}

    def state(self) -> dict[str, Any]:
        return {
            "length": self.length,
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            "knots": None if self.knots is None else self.knots.tolist(),
            "indicator": self.indicator,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.length, self.indicator = int(state["length"]), bool(state["indicator"])
        self.mean, self.std = np.array(state["mean"], np.float64), np.array(state["std"], np.float64)
        self.knots = None if state["knots"] is None else np.array(state["knots"], np.float64)

    def wire(self) -> Wire:
        """Numbers within a million standard deviations; of ranks, and of what is not scaled, all that can be held."""

        def away(deviations: float) -> list[float]:
            with np.errstate(over="ignore"):
                found = self.unshape((self.mean + deviations * self.std)[None])[0]
            return [float(x) for x in np.nan_to_num(found)]

        low, high = (min(away(-FAR)), max(away(FAR))) if self.scale in ("standardise", "log") else (-FARTHEST, FARTHEST)
        number, example = quantity(low, high), [float(f"{x:.6g}") for x in away(0)]
        facts: dict[str, Any] = {} if self.scale == "none" else {"low": away(-2), "high": away(2)}
        if self.length == 1:
            return Wire(number, example[0], {name: value[0] for name, value in facts.items()})
        cell = Annotated[list[number], Field(min_length=self.length, max_length=self.length)]  # type: ignore[valid-type]
        return Wire(cell | None, example, facts | {"length": self.length})

    def summary(self) -> dict[str, Any]:
        mean = self.unshape(self.mean[None])[0]
        centre = "mean" if self.scale in ("standardise", "none") else "centre"
        facts: dict[str, Any] = {centre: [float(f"{x:.6g}") for x in mean]}
        if self.scale == "standardise":
            facts["standard deviation"] = [float(f"{x:.6g}") for x in self.std]
        if self.length == 1:
            facts = {key: value[0] for key, value in facts.items()}
        return facts | {"empty cells in training rows": "yes" if self.indicator else "no"}


def centre_and_spread(values: Array) -> tuple[float, float]:
    """Mean and standard deviation of what is not NaN; the spread of a constant, or of nothing, is one."""
    values = values[~np.isnan(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    if low == high:  # computed, the deviation would be the rounding of the mean, and blown up to one
        return low, 1.0
    size = max(abs(low), abs(high))  # squares of very large or small numbers do not fit float64
    mean, std = float((values / size).mean()) * size, float((values / size).std()) * size
    return mean, std or 1.0


def quantiles(values: Array) -> Array:
    values = values[~np.isnan(values)]
    return np.quantile(values, np.linspace(0, 1, KNOTS)) if len(values) else np.zeros(KNOTS)


def rank_in(values: Array, knots: Array) -> Array:
    """The rank in [0, 1] of each value among the knots; ties take the middle of their range."""
    grid = np.linspace(0, 1, len(knots))
    low = np.interp(values, knots, grid)
    high = 1 - np.interp(-values, -knots[::-1], grid)
    return np.where(np.isnan(values), np.nan, (low + high) / 2)


def normal_quantile(rank: Array) -> Array:
    """The standard normal value of a rank, kept within about 3.7 deviations."""
    clipped = torch.from_numpy(np.clip(rank, 1e-4, 1 - 1e-4))
    return np.asarray(torch.special.ndtri(clipped).numpy())


def normal_rank(values: Array) -> Array:
    return np.asarray(torch.special.ndtr(torch.from_numpy(values)).numpy())
