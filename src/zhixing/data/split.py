"""Rows into training, validation and test, before anything is fitted.

Which row goes where depends on the seed and the row's number (or its group's rank), not on a library's generator, so
that the same table and seed give the same split on any machine.
"""

from __future__ import annotations

import contextlib
from typing import Annotated, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ..columns.column import whole
from ..columns.date import Date
from ..errors import DataError, did_you_mean
from ..randomness import bits, uniform
from ..settings import Settings
from .table import Table

__all__ = ["SPLITS", "Split", "SplitSettings", "split"]

SPLITS = ("train", "validation", "test")
SPELLINGS = {
    "train": 0, "training": 0, "validation": 1, "valid": 1, "val": 1, "dev": 1, "test": 2, "testing": 2,
}  # fmt: skip
Rows = NDArray[np.int64]
Split = dict[str, Rows]


class SplitSettings(Settings):
    """How rows are divided. The shares must add up to one."""

    train: Annotated[float, Field(gt=0, le=1, description="share of the rows to learn from")] = 0.8
    validation: Annotated[float, Field(ge=0, lt=1, description="share that settings are chosen on")] = 0.1
    test: Annotated[float, Field(ge=0, lt=1, description="share that is read once, at the end")] = 0.1
    by: Annotated[
        Literal["auto", "random", "stratified", "group", "time", "column"],
        Field(description="auto: the source's own split, else stratified by a category output, else random"),
    ] = "auto"
    column: Annotated[str | None, Field(description="the column for group, time, column or stratified")] = None

    @model_validator(mode="after")
    def shares_add_up(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train, validation and test must add up to 1, not {total:g}")
        if self.by in ("group", "time", "column") and self.column is None:
            raise ValueError(f"a split by {self.by} needs the name of a column, as in column: name")
        return self

    @property
    def cuts(self) -> NDArray[np.float64]:
        return np.array([self.train, self.train + self.validation])


def split(table: Table, settings: SplitSettings, seed: int, *, target: str | None = None) -> Split:
    """The row numbers of each split, ascending.

    ``target`` is the category column whose classes a stratified split keeps in proportion.

    >>> parts = split(Table(pa.table({"x": range(10)})), SplitSettings(), seed=0)
    >>> {name: len(rows) for name, rows in parts.items()}
    {'train': 8, 'validation': 1, 'test': 1}
    """
    if not table.rows:
        raise DataError("the split leaves none of 0 rows to learn from", place=table.name)
    by, column = settings.by, settings.column
    if by == "auto":
        by = "column" if table.split_column else "stratified" if (column or target) else "random"
        column = table.split_column if by == "column" else column
    column = column or (table.split_column if by == "column" else target)
    if by == "random":
        part = by_rank(np.argsort(bits(table.rows, seed, "split"), kind="stable"), settings)
    elif column is None:
        raise DataError(f"a split by {by} needs a column", place="data.split", mend="Name one: data.split.column=NAME")
    else:
        part = {"stratified": by_class, "group": by_group, "time": by_time, "column": by_column}[by](
            table, column, settings, seed
        )
    parts = {name: np.flatnonzero(part == index).astype(np.int64) for index, name in enumerate(SPLITS)}
    if by in ("group", "time"):
        check_filled(table, parts, settings, by)
    if not len(parts["train"]):
        raise DataError(f"the split leaves none of {table.rows} rows to learn from", place=table.name)
    return parts


def check_filled(table: Table, parts: Split, settings: SplitSettings, by: str) -> None:
    """Every share that was asked for must have a row: of no rows, nothing can be measured."""
    for name in SPLITS[1:]:
        if getattr(settings, name) and not len(parts[name]) and table.rows >= 3:
            raise DataError(
                f"a split by {by} leaves none of {table.rows} rows for {name}",
                place=table.name,
                mend=f"Ask for no such rows (data.split.{name}=0), or split in another way.",
            )


def whole_cuts(count: int, settings: SplitSettings) -> NDArray[np.int64]:
    """Where validation and test begin in so many rows; every share that is asked for gets a row."""
    cuts = np.rint(settings.cuts * count).astype(np.int64)
    validation = int(settings.validation > 0)
    if count >= 3:
        cuts = np.clip(cuts, [1, 1 + validation], count - int(settings.test > 0))
        cuts[0] = min(cuts[0], cuts[1] - validation)
    elif count:
        cuts = np.maximum(cuts, 1)
    return cuts


def by_rank(order: NDArray[np.int64], settings: SplitSettings) -> NDArray[np.int64]:
    """The first rows of ``order`` are for training, the last for testing."""
    part = np.empty(len(order), np.int64)
    part[order] = np.searchsorted(whole_cuts(len(order), settings), np.arange(len(order)), side="right")
    return part


def codes_of(values: pa.ChunkedArray) -> tuple[NDArray[np.int64], int]:
    """Each value's rank among the distinct ones; missing is a value of its own."""
    try:
        text = pc.fill_null(pc.cast(values, pa.string()), "\0missing")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise DataError(f"cells stored as {values.type} cannot be told apart in a split", place="data.split") from None
    encoded = whole(text).dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    rank = np.argsort(np.argsort(np.array(encoded.dictionary.to_pylist(), dtype=object), kind="stable"), kind="stable")
    return rank[codes].astype(np.int64), len(rank)


def by_class(table: Table, column: str, settings: SplitSettings, seed: int) -> NDArray[np.int64]:
    """Each class in proportion. A class of one row is learned from; small classes are dealt out by chance."""
    codes, classes = codes_of(table[column])
    order = np.lexsort((bits(table.rows, seed, "split"), codes))
    sizes = np.bincount(codes, minlength=classes)
    rank = np.arange(table.rows) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    jitter = np.where(sizes > 1, uniform(classes, seed, "split classes"), 0.0)
    place = (rank + np.repeat(jitter, sizes)) / np.repeat(sizes, sizes)
    part = np.empty(table.rows, np.int64)
    part[order] = np.searchsorted(settings.cuts, place, side="right")
    for index, share in ((1, settings.validation), (2, settings.test)):
        # Many small classes may all have been dealt away from a small share: a row of the largest class goes there.
        largest = np.flatnonzero((part == 0) & (codes == np.argmax(sizes)))
        if share and table.rows >= 3 and not (part == index).any() and len(largest) > 1:
            part[largest[-1]] = index
    return part


def by_group(table: Table, column: str, settings: SplitSettings, seed: int) -> NDArray[np.int64]:
    """No group stands in two splits: whole groups are dealt out by chance until each share is full."""
    codes, groups = codes_of(table[column])
    if groups < 2:
        raise DataError(f"a split by group needs two groups or more, {column!r} has {groups}", place=table.name)
    order = np.argsort(bits(groups, seed, "split groups"), kind="stable")
    sizes = np.bincount(codes, minlength=groups)[order]
    middle = (np.cumsum(sizes) - sizes / 2) / table.rows
    part = np.empty(groups, np.int64)
    part[order] = np.searchsorted(settings.cuts, middle, side="right")
    wanted = {0} | ({1} if settings.validation else set()) | ({2} if settings.test else set())
    if not wanted <= set(part.tolist()):  # few or very unequal groups: count groups instead of rows
        part = by_rank(order, settings)
    return part[codes]


def by_time(table: Table, column: str, settings: SplitSettings, seed: int) -> NDArray[np.int64]:
    """Train on the past, test on the future; rows of the same instant stay together."""
    values = table[column]
    if values.null_count:
        row = int(np.flatnonzero(values.is_null().to_numpy())[0])
        raise DataError(f"a split by time needs a time in each row, {column!r} is empty", place=table.where(row))
    times = times_of(table, column)
    _, rank = np.unique(times, return_inverse=True)
    before = np.searchsorted(np.sort(rank), rank, side="left")  # rows strictly earlier
    return np.searchsorted(whole_cuts(table.rows, settings), before, side="right").astype(np.int64)


def times_of(table: Table, column: str) -> NDArray[np.float64]:
    """Numbers as they are, everything else as dates."""
    values = whole(table[column])
    if not pa.types.is_temporal(values.type):
        with contextlib.suppress(pa.ArrowInvalid, pa.ArrowNotImplementedError):
            numbers: NDArray[np.float64] = pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
            for row in np.flatnonzero(~np.isfinite(numbers)):
                what = f"a split by time needs a finite number in each row of {column!r}, not {numbers[row]}"
                raise DataError(what, place=table.where(int(row)))
            return numbers
    times, findings = Date().read(values)
    for row in np.flatnonzero(np.isnan(times)):
        reason = next((one.reason for one in findings if one.index == row), "the cell is empty")
        raise DataError(
            f"a split by time needs a number or a date in each row of {column!r}: {reason}", place=table.where(int(row))
        )
    return times


def by_column(table: Table, column: str, settings: SplitSettings, seed: int) -> NDArray[np.int64]:
    """The split that the table itself gives. Where it names no validation rows, they are taken from training."""
    words = pc.cast(table[column], pa.string()).to_pylist()
    codes = {word: SPELLINGS.get((word or "").strip().lower(), -1) for word in set(words)}
    part = np.array([codes[word] for word in words], np.int64)
    if (part < 0).any():
        row = int(np.flatnonzero(part < 0)[0])
        raise DataError(
            f"{column!r} must say train, validation or test, not {words[row]!r}",
            place=table.where(row),
            mend=did_you_mean(str(words[row]), SPELLINGS),
        )
    train = np.flatnonzero(part == 0)
    if settings.validation and not (part == 1).any() and len(train) > 1:
        share = settings.validation / (settings.train + settings.validation)
        count = min(max(1, round(share * len(train))), len(train) - 1)
        chosen = np.argsort(bits(table.rows, seed, "split")[train], kind="stable")[:count]
        part[train[chosen]] = 1
    return part
