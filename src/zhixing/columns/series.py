"""``series``: numbers in the order of time, one or several at each step, of any length.

Shape legend: N rows, S steps of all rows behind each other, T steps of a row, F features, G of them with gaps,
H steps of a forecast.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field
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
    is_list,
    is_number,
    is_text,
    sample,
    shorten,
    text_of,
    whole,
)
from .number import FARTHEST, centre_and_spread
from .wire import FAR, quantity

__all__ = ["Series", "numbers_of"]

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
Flags = NDArray[np.bool_]
LONGEST = 4096  # steps, where a recipe does not say otherwise
VALUES = 1 << 20  # of a chunk: a few megabytes
MISSING = pa.array(["", "?", "nan", "null", "none", "na", "n/a"])
NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?(?i:inf|infinity)$"


def numbers_of(cells: pa.Array) -> tuple[Array, Flags]:
    """Cells that hold one number each as float64, NaN where they are missing, and which of them hold no number.

    >>> numbers_of(pa.array(["1.5", "?", "x"]))
    (array([1.5, nan, nan]), array([False, False,  True]))
    """
    kind = cells.type
    bad = np.zeros(len(cells), bool)
    if is_number(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
        found = pc.cast(cells, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return np.array(found, np.float64), bad
    if not is_text(kind):
        return np.full(len(cells), np.nan), cells.is_valid().to_numpy(zero_copy_only=False)
    words = pc.utf8_trim_whitespace(pc.cast(cells, pa.string()))
    read = pc.match_substring_regex(words, NUMBER)
    found = pc.cast(pc.replace_substring_regex(pc.if_else(read, words, None), r"^\+", ""), pa.float64())
    missing = pc.is_in(pc.utf8_lower(words), MISSING)
    bad = pc.fill_null(pc.invert(pc.or_(read, missing)), False).to_numpy(zero_copy_only=False)
    return np.array(found.to_numpy(zero_copy_only=False), np.float64), bad


class Parts(NamedTuple):
    """Cells taken apart: ``lengths`` [N] are the steps of each, ``widths`` [S] the numbers of each step, -1 for a
    missing one, ``flat`` all numbers as they are written; ``odd`` [N] are cells that hold no list."""

    flat: pa.Array
    widths: Counts
    lengths: Counts
    odd: Flags


def sizes_of(lists: pa.Array, missing: int) -> Counts:
    sizes = pc.fill_null(pc.list_value_length(lists), missing).to_numpy(zero_copy_only=False)
    return np.asarray(sizes, np.int64)


def as_list(values: pa.Array) -> pa.Array:
    """Lists of a fixed length as lists of any."""
    return values.cast(pa.list_(values.type.value_type)) if pa.types.is_fixed_size_list(values.type) else values


def split_text(cells: pa.Array) -> pa.Array:
    """``1 2 3``, ``1,2;3,4`` and ``[[1, 2], [3, 4]]`` as lists of steps of words."""
    bare = pc.utf8_trim(pc.cast(cells, pa.string()), " \t\r\n")
    nested = pc.match_substring_regex(bare, r"[;\n]|\[\s*\[")
    inner = pc.utf8_trim(bare, " \t\r\n[]")
    by_step = pc.replace_substring_regex(inner, r"\]\s*,?\s*\[|\n", ";")
    by_number = pc.replace_substring_regex(inner, r"\s*,\s*|\s+", ";")
    text = pc.replace_substring(pc.if_else(nested, by_step, by_number), '"', "")
    steps = pc.split_pattern(pc.if_else(pc.equal(inner, ""), None, text), ";")
    words = pc.split_pattern_regex(pc.utf8_trim_whitespace(pc.list_flatten(steps)), r"\s*,\s*|\s+")
    sizes = sizes_of(steps, 0)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), words)


def take_apart(values: pa.Array) -> Parts:
    none = np.zeros(len(values), bool)
    if isinstance(values.type, pa.FixedShapeTensorType) and len(values.type.shape) <= 2:
        steps, width = (*values.type.shape, 1)[:2]
        lengths = np.where(values.is_valid().to_numpy(zero_copy_only=False), steps, 0).astype(np.int64)
        return Parts(pc.list_flatten(as_list(values.storage)), np.full(lengths.sum(), width), lengths, none)
    if is_text(values.type):
        values = split_text(values)
    if not is_list(values.type):
        odd = values.is_valid().to_numpy(zero_copy_only=False)
        return Parts(pa.array([], pa.float64()), np.zeros(0, np.int64), np.zeros(len(values), np.int64), odd)
    values = as_list(values)
    lengths, steps = sizes_of(values, 0), pc.list_flatten(values)
    if not is_list(steps.type):
        return Parts(steps, np.ones(len(steps), np.int64), lengths, none)
    steps = as_list(steps)
    return Parts(pc.list_flatten(steps), sizes_of(steps, -1), lengths, none)


class Steps(NamedTuple):
    """Readable cells as steps behind each other: ``values`` [S, F], NaN where missing, and ``lengths`` [N]."""

    values: Array
    lengths: Counts
    findings: list[Finding]

    @property
    def owners(self) -> Counts:
        """The row that each step belongs to."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    def without(self, rows: Flags, findings: list[Finding]) -> Steps:
        """The same with these rows empty, and what is wrong with them."""
        kept = ~rows[self.owners]
        told = sorted([*self.findings, *findings], key=lambda one: one.index)
        return Steps(self.values[kept], np.where(rows, 0, self.lengths), told)

    def cut(self, most: int | None) -> Steps:
        """The first ``most`` steps of each row."""
        if most is None or not (self.lengths > most).any():
            return self
        places = np.arange(len(self.values)) - np.repeat(np.cumsum(self.lengths) - self.lengths, self.lengths)
        findings = [
            Finding(int(row), f"{self.lengths[row]} steps, of which the first {most} are kept", "suspect")
            for row in np.flatnonzero(self.lengths > most)
        ]
        told = sorted([*self.findings, *findings], key=lambda one: one.index)
        return Steps(self.values[places < most], np.minimum(self.lengths, most), told)


def commonest(counts: Counts) -> int:
    """The count that occurs most often, the smallest of several such; 0 where there is none above 0."""
    counts = counts[counts > 0]
    if not len(counts):
        return 0
    found, times = np.unique(counts, return_counts=True)
    return int(found[np.argmax(times)])


def read_steps(values: pa.Array | pa.ChunkedArray, features: int | None) -> Steps:
    """Cells to steps of ``features`` numbers (open: as many as most steps have); a broken cell has no steps."""
    values, undecoded = whole(values), list[Finding]()
    if is_bytes(values.type):
        values, undecoded = text_of(values)
    parts = take_apart(values)
    features = features or commonest(parts.widths) or 1
    numbers, bad = numbers_of(parts.flat)
    starts = np.cumsum(np.maximum(parts.widths, 0)) - np.maximum(parts.widths, 0)
    full = parts.widths == features
    steps = np.full((len(parts.widths), features), np.nan)
    steps[full] = numbers[starts[full][:, None] + np.arange(features)]
    owner_of_step = np.repeat(np.arange(len(parts.lengths)), parts.lengths)
    owner = np.repeat(owner_of_step, np.maximum(parts.widths, 0))

    reasons: dict[int, str] = {}  # one a cell: the first of the worst kind
    for row in np.flatnonzero(parts.odd).tolist():
        reasons[row] = f"not a list of numbers: {shorten(values[row].as_py())}"
    place_of = np.cumsum(parts.lengths) - parts.lengths
    for step in first_of_each(owner_of_step, ~full & (parts.widths >= 0)):
        row = int(owner_of_step[step])
        reasons[row] = f"step {step - place_of[row]}: {features} features expected, {parts.widths[step]} found"
    for index in first_of_each(owner, bad | np.isinf(numbers)):
        row, what = int(owner[index]), "not a number" if bad[index] else "not finite"
        place = int(np.searchsorted(starts, index, side="right")) - 1 - place_of[row]
        reasons.setdefault(row, f"step {place}: {what}: {shorten(parts.flat[int(index)].as_py())}")
    broken = np.zeros(len(values), bool)
    broken[list(reasons)] = True
    findings = [Finding(row, reason) for row, reason in reasons.items()]
    return Steps(steps, parts.lengths, undecoded).without(broken, findings)


def first_of_each(owner: Counts, wrong: Flags) -> Counts:
    """The first wrong place of each owner."""
    places = np.flatnonzero(wrong)
    return places[np.unique(owner[places], return_index=True)[1]]


class Series(Column):
    """Numbers in the order of time: a list of numbers in each cell, or a list of steps of several numbers each.

    As an input, rows may differ in length. A missing value is the last known one before it in its row (the mean where
    there is none), and each feature that lacks values in training rows has a second one that is 1 where it is missing.
    As an output (a forecast) all rows have the same number of steps, and a missing step is NaN, which losses and
    metrics leave out.

    **Shape:** input [S, F + G] float32, rows behind each other; output [N, H, F] float32.
    """

    type = "series"
    kind = "sequence"

    def __init__(
        self,
        *,
        scale: Annotated[
            Literal["standardise", "row", "none"],
            Field(description="row: by the mean and deviation of each row, so that only its form counts"),
        ] = "standardise",
        length: Annotated[
            int | None, Field(ge=1, description="most steps of a row; open: the longest training row, up to 4096")
        ] = None,
    ) -> None:
        self.scale = scale
        self.length = length
        self.steps = length or 0  # of the longest row, or of each forecast
        self.mean: Array = np.zeros(1)
        self.std: Array = np.ones(1)
        self.gaps: Flags = np.zeros(1, bool)
        self.naive_error: float | None = None  # of saying that the next step will be as the last, in training rows

    @property
    def features(self) -> int:
        """Numbers of a step."""
        return len(self.mean)

    @property
    def horizon(self) -> int:
        """Steps of a forecast."""
        return self.steps

    @property
    def chunk(self) -> int:
        return min(65536, max(1, VALUES // max(1, self.steps * self.features)))

    @classmethod
    def claims(cls, values: pa.ChunkedArray, name: str) -> Claim | None:
        kind = values.type
        if isinstance(kind, pa.FixedShapeTensorType):
            floating = pa.types.is_floating(kind.value_type) and len(kind.shape) == 2
            return Claim(0.75, f"{kind.shape[0]} steps of {kind.shape[1]} numbers in each cell") if floating else None
        if not is_list(kind):
            return None
        if is_list(kind.value_type):
            steps = is_number(kind.value_type.value_type)
            return Claim(0.75, "a list of steps, each a list of numbers, in each cell") if steps else None
        lengths = {len(cell) for cell in sample(values, 200)}
        if is_number(kind.value_type) and len(lengths) > 1:
            return Claim(0.72, f"a list of {min(lengths)} to {max(lengths)} numbers in each cell")
        return None

    def fit(self, values: pa.ChunkedArray, locate: Locate) -> None:
        place = f"an {self.role} of type series"
        if self.role == "output" and self.scale == "row":
            raise DataError(
                "a forecast that is scaled by itself cannot be brought back to its units",
                place=place,
                mend="Give the output scale: standardise, or none.",
            )
        found = read_steps(values, None).cut(self.length or (LONGEST if self.role == "input" else None))
        if np.isnan(found.values).all():
            raise DataError("no training row holds a series of numbers", place=place)
        if self.role == "output":
            self.steps = commonest(found.lengths)
        elif self.length is None:
            self.steps = int(found.lengths.max())
        missing = np.isnan(found.values)
        known = ~np.logical_and.reduceat(missing.all(axis=1), starts_of(found.lengths))
        shown = np.repeat(known, found.lengths[found.lengths > 0])  # steps of rows that hold anything
        self.gaps = missing[shown].any(axis=0) if self.role == "input" else np.zeros(missing.shape[1], bool)
        self.mean, self.std = np.zeros(missing.shape[1]), np.ones(missing.shape[1])
        if self.scale == "standardise":
            moments = np.array([centre_and_spread(feature) for feature in found.values.T])
            self.mean, self.std = moments[:, 0], moments[:, 1]
        change = np.abs(np.diff(found.values, axis=0))[np.diff(found.owners) == 0]
        self.naive_error = float(np.nanmean(change)) if np.isfinite(change).any() else None

    def read(self, values: pa.Array) -> Steps:
        """Cells to scaled steps that float32 can hold; empty and broken rows have none."""
        most = self.steps if self.role == "input" else self.length
        found = read_steps(values, self.features).cut(most)
        missing = np.isnan(found.values)
        count, lengths = np.bincount(found.owners[missing.any(axis=1)], minlength=len(found.lengths)), found.lengths
        empty = np.bincount(found.owners[~missing.all(axis=1)], minlength=len(lengths)) == 0
        verb = "lack a value" if self.features > 1 else "are missing"
        gaps = [
            Finding(int(row), f"{count[row]} of {lengths[row]} steps {verb}", "suspect")
            for row in np.flatnonzero((count > 0) & ~empty)
        ]
        found = found.without(empty, gaps)
        with np.errstate(over="ignore"):
            scaled = by_row(found) if self.scale == "row" else (found.values - self.mean) / self.std
        far = np.abs(scaled) > FARTHEST
        rows = np.zeros(len(lengths), bool)
        findings = []
        for step in first_of_each(found.owners, np.asarray(far.any(axis=1))):
            row, number = int(found.owners[step]), found.values[step][far[step]][0]
            findings.append(Finding(row, f"too far from the training rows' numbers: {number:g}"))
            rows[row] = True
        return Steps(scaled, found.lengths, found.findings).without(rows, findings)

    def tensorize(self, values: pa.Array, locate: Locate) -> Tensorized:
        found = self.read(values)
        if self.role == "output":
            return self.forecast(found)
        missing = np.isnan(found.values)
        filled = carried(found.values, found.lengths)
        out = np.concatenate([filled, missing[:, self.gaps]], axis=1).astype(np.float32)
        return Tensorized(out, found.lengths > 0, found.findings, lengths=found.lengths)

    def forecast(self, found: Steps) -> Tensorized:
        other = (found.lengths > 0) & (found.lengths != self.steps)
        wrong = [
            Finding(int(row), f"{self.steps} steps expected, {found.lengths[row]} found")
            for row in np.flatnonzero(other)
        ]
        found = found.without(other, wrong)
        present = found.lengths > 0
        out = np.zeros((len(present), self.steps, self.features), np.float32)
        out[present] = found.values.reshape(-1, self.steps, self.features)
        return Tensorized(out, present, found.findings)

    def spec(self) -> Spec:
        if self.role == "output":
            return Spec("vector", (self.steps, self.features))
        return Spec("sequence", (self.steps, self.features + int(self.gaps.sum())))

    def unscale(self, values: Tensor) -> Array:
        """Standardised values [..., F] back to the column's own units, float64; NaN stays NaN."""
        return np.asarray(values[..., : self.features].detach().cpu().double().numpy() * self.std + self.mean)

    def restore(self, values: Tensor) -> list[Any]:
        """Lists of numbers, or of steps; None where a value was missing. Rows scaled by themselves stay so."""
        raw = self.unscale(values)
        if self.gaps.any():
            flags = values[..., self.features :].detach().cpu().numpy() > 0.5
            raw[..., self.gaps] = np.where(flags, np.nan, raw[..., self.gaps])
        cells = [[[None if math.isnan(x) else x for x in step] for step in row] for row in raw.tolist()]
        return [[step[0] for step in row] for row in cells] if self.features == 1 else cells

    def show(self, value: Tensor) -> dict[str, str]:
        """The first and last numbers of each feature."""
        raw = self.unscale(value)
        texts = []
        for feature in raw.T:
            words = ["missing" if math.isnan(x) else f"{x:.4g}" for x in feature]
            texts.append(", ".join(words if len(words) <= 8 else [*words[:4], "…", *words[-3:]]))
        return {"text": f"{len(raw)} steps: " + "; ".join(texts[:6]) + ("; …" if len(texts) > 6 else "")}

    def settings(self) -> dict[str, Any]:
        # a forecast's length stays open: stated, it would cut longer rows where they are broken
        return {"scale": self.scale, "length": (self.steps or None) if self.role == "input" else self.length}

    def state(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            "gaps": self.gaps.tolist(),
            "naive_error": self.naive_error,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.steps = int(state["steps"])
        self.mean, self.std = np.array(state["mean"], np.float64), np.array(state["std"], np.float64)
        self.gaps = np.array(state["gaps"], bool)
        self.naive_error = None if state["naive_error"] is None else float(state["naive_error"])

    def wire(self) -> Wire:
        low, high = -FARTHEST, FARTHEST
        if self.scale == "standardise":
            low, high = float((self.mean - FAR * self.std).min()), float((self.mean + FAR * self.std).max())
        number = quantity(low, high)
        mean = [float(f"{x:.6g}") for x in self.mean]
        facts: dict[str, Any] = {"length": self.steps, "features": self.features}
        if self.scale == "standardise":
            facts |= {"low": (self.mean - 2 * self.std).tolist(), "high": (self.mean + 2 * self.std).tolist()}
        if self.features == 1:
            return Wire(list[number] | None, mean * 3, facts)  # type: ignore[valid-type]
        step = Annotated[list[number], Field(min_length=self.features, max_length=self.features)]  # type: ignore[valid-type]
        return Wire(list[step] | None, [mean] * 3, facts)

    def summary(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"features": self.features}
        facts["steps to forecast" if self.role == "output" else "most steps"] = self.steps
        if self.scale == "standardise":
            facts["mean"] = [float(f"{x:.6g}") for x in self.mean]
            facts["standard deviation"] = [float(f"{x:.6g}") for x in self.std]
        return facts | ({"features with gaps": int(self.gaps.sum())} if self.role == "input" else {})


def starts_of(lengths: Counts) -> Counts:
    """Where each row that has steps begins among the steps of all."""
    lengths = lengths[lengths > 0]
    return np.asarray(np.cumsum(lengths) - lengths)


def carried(values: Array, lengths: Counts) -> Array:
    """Missing values [S, F] as the last known ones before them in their row; zero where there is none."""
    steps = np.arange(len(values))[:, None]
    known = np.maximum.accumulate(np.where(np.isnan(values), -1, steps), axis=0)
    first = np.repeat(np.cumsum(lengths) - lengths, lengths)[:, None]
    return np.where(known >= first, np.take_along_axis(values, np.maximum(known, 0), axis=0), 0.0)


def by_row(found: Steps) -> Array:
    """Steps standardised by the mean and standard deviation of their own row; those of a constant row are zero."""
    values, lengths = found.values, found.lengths[found.lengths > 0]
    if not len(values):
        return values
    starts = starts_of(lengths)

    def of_rows(steps: Array) -> Array:
        return np.repeat(np.add.reduceat(np.nan_to_num(steps), starts), lengths, axis=0)

    low, high = np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)
    size = np.maximum(np.abs(low), np.abs(high))  # squares of very large or small numbers do not fit float64
    size = np.repeat(np.where(size > 0, size, 1.0), lengths, axis=0)
    count = np.maximum(np.add.reduceat((~np.isnan(values)).astype(np.int64), starts), 1)
    count = np.repeat(count, lengths, axis=0)
    centred = values / size
    centred = centred - of_rows(centred) / count
    std = np.sqrt(of_rows(centred**2) / count)
    constant = np.repeat(low == high, lengths, axis=0)
    scaled = np.divide(centred, std, out=np.zeros_like(centred), where=std > 0)
    return np.where(np.isnan(values), np.nan, np.where(constant, 0.0, scaled))
