"""Rows of a log or of a long table by group and in the order of time: what tables are reshaped with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..columns.column import whole
from ..columns.date import Date
from ..columns.series import numbers_of
from .source_cells import SPLIT, SPLIT_ORDER
from .table import Problem, Table

__all__ = ["PACK", "Array", "Flags", "Lost", "Ordered", "Reshape", "Rows", "in_order", "lists_of", "with_split"]

Rows = NDArray[np.int64]
Flags = NDArray[np.bool_]
Array = NDArray[np.float64]
PACK = 1 << 24  # cells in one piece of a column
TOLD = 0.05  # where more rows than this are alike, they are told of in one line


class Reshape(ABC):
    """Base of the reshapes. The keyword-only parameters of ``__init__`` are the settings in a recipe."""

    @abstractmethod
    def apply(self, table: Table) -> Table:
        """The other table, whose rows say what is read and what is to be predicted."""

    @abstractmethod
    def ask(self, table: Table) -> Table:
        """What is read to predict what comes after the last row of each group, one row a group."""


def times_of(table: Table, column: str) -> tuple[Array, dict[int, str]]:
    """Numbers as they are, dates as seconds, NaN where there is neither; and by row, why."""
    values = whole(table[column])
    times, bad = numbers_of(values)
    told: dict[int, str] = {}
    if bad.any() or pa.types.is_temporal(values.type):
        dates, findings = Date().read(values)
        if np.isnan(dates).sum() <= np.isnan(times).sum():
            times, told = dates, {one.index: one.reason for one in findings}
    times = np.where(np.isinf(times), np.nan, times)
    rows = np.flatnonzero(np.isnan(times)).tolist()
    valid = values.is_valid().to_numpy(zero_copy_only=False)
    return times, {row: told.get(row, "not a number or a date" if valid[row] else "the cell is empty") for row in rows}


def codes_of(values: pa.ChunkedArray) -> NDArray[np.int64]:
    """A number for each distinct value in the order in which they appear; -1 where there is none."""
    encoded = whole(values)
    if not isinstance(encoded.type, pa.DictionaryType):
        encoded = encoded.dictionary_encode()
    return np.asarray(pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False), np.int64)


def lists_of(values: pa.Array, starts: Rows, lengths: Rows, pack: int = PACK) -> pa.ChunkedArray:
    """A list a row: ``values[start : start + length]``, put together in pieces that 32 bits can count."""
    pieces = []
    ends = np.cumsum(lengths)
    cuts = np.searchsorted(ends, np.arange(pack, int(ends[-1]) if len(ends) else 0, pack), side="right")
    for first, last in zip([0, *cuts], [*cuts, len(lengths)], strict=True):
        if last > first:
            sizes = lengths[first:last]
            offsets = np.concatenate([[0], np.cumsum(sizes)])
            places = np.repeat(starts[first:last] - offsets[:-1], sizes) + np.arange(offsets[-1])
            taken = values.take(pa.array(places))
            pieces.append(pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), taken))
    return pa.chunked_array(pieces, pa.list_(values.type))


def with_split(data: pa.Table, parts: Rows) -> tuple[pa.Table, str]:
    """The table with a column that says where each row belongs, and its name."""
    name = SPLIT if SPLIT not in data.column_names else f"{SPLIT} by time"
    words = pa.array(SPLIT_ORDER, pa.string()).take(pa.array(parts))
    return data.append_column(name, words), name


@dataclass
class Lost:
    """Rows of a table that cannot be used, and what is to be said of others."""

    table: Table
    problems: list[Problem] = field(default_factory=list)  # by rows of the old table

    def tell(self, rows: Sequence[int] | Rows, column: str, reason: Callable[[int], str], *, fatal: bool) -> None:
        """One problem for each row; one for all where they are many and nothing is lost."""
        rows = [int(row) for row in rows]
        many = not fatal and len(rows) > max(10, TOLD * self.table.rows)
        for row in rows[:1] if many else rows:
            more = f" (so in {len(rows)} rows; this is the first)" if many else ""
            self.problems.append(Problem(row, column, self.table.where(row), reason(row) + more, fatal))

    def carried(self, rows: Rows) -> list[Problem]:
        """All problems, those of the old table included, by the numbers of the new one, whose rows come from these.

        A row that is not in the new table has the number that it would have there; what is said of one that is in it
        as a part of others stands with the next.
        """
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        found: list[Problem] = []
        for one in [*self.table.problems, *self.problems]:
            at = int(np.searchsorted(ascending, one.row))
            new = at if one.fatal else int(order[min(at, len(rows) - 1)])
            found.append(Problem(new, one.column, one.place, one.reason, one.fatal))
        return found

    def note(self, count: int, reason: str) -> list[Problem]:
        """One line that is about no row."""
        return [Problem(0, "", self.table.name, f"{reason}: {count}", fatal=False)] if count else []


class Ordered(NamedTuple):
    """Usable rows of a table, group by group and in the order of time: their numbers, groups and times."""

    rows: Rows
    groups: Rows
    times: Array

    def take(self, chosen: Any) -> Ordered:
        return Ordered(self.rows[chosen], self.groups[chosen], self.times[chosen])

    @property
    def starts(self) -> Rows:
        """Where each group begins."""
        return np.flatnonzero(np.diff(self.groups, prepend=-1))

    @property
    def sizes(self) -> Rows:
        return np.diff(np.append(self.starts, len(self.groups)))


def in_order(lost: Lost, groups: Sequence[str], time: str | None) -> Ordered:
    """Rows by the first of ``groups`` (one group where there is none), then time, then number.

    Rows that lack a group or a time are told of and left out.
    """
    table = lost.table
    usable = np.ones(table.rows, bool)
    times = np.zeros(table.rows)
    for name in groups:
        empty = table[name].combine_chunks().is_null().to_numpy(zero_copy_only=False)
        lost.tell(np.flatnonzero(empty & usable), name, lambda row: "the cell is empty", fatal=True)
        usable &= ~empty
    if time is not None:
        times, reasons = times_of(table, time)
        rows = [row for row in reasons if usable[row]]
        lost.tell(rows, time, reasons.__getitem__, fatal=True)
        usable &= ~np.isnan(times)
    codes = codes_of(table[groups[0]]) if groups else np.zeros(table.rows, np.int64)
    order = np.lexsort((times, codes))
    order = order[usable[order]]
    return Ordered(order, codes[order], times[order])
