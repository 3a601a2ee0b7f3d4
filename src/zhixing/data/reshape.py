"""Tables turned into others before the split: a log of events into histories, a long table into windows.

Both part the rows by time themselves, so that nothing of what is to be predicted is seen in training.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from ..columns.column import whole
from ..columns.date import Date
from ..columns.series import numbers_of
from ..errors import DataError, RecipeError
from .source_cells import SPLIT, SPLIT_ORDER
from .table import Problem, Table

__all__ = ["RESHAPES", "History", "Reshape", "Windows"]

Rows = NDArray[np.int64]
Flags = NDArray[np.bool_]
Array = NDArray[np.float64]
PACK = 1 << 24  # cells in one piece of a column
UNEVEN = 0.1  # of a step; months and quarters pass
TOLD = 0.05  # where more rows than this are alike, they are told of in one line


class Reshape(ABC):
    """Base of the reshapes. The keyword-only parameters of ``__init__`` are the settings in a recipe."""

    @abstractmethod
    def apply(self, table: Table) -> Table:
        """The other table."""


# --- what both need


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


# --- histories


class History(Reshape):
    """A log of who met what and when, to rows "these so far, this one next".

    The table that comes out has, for each event with at least ``least`` before it, the user, ``history`` (the items
    before it, the newest last), the item, the other columns of the log as they were at that event, and a split
    column: each user's last event is for testing, the one before it for validation, all others for training; users
    with fewer than three events are for training alone. Rows stand in the order of time, those of the same time in
    the order of the log. The split of the log itself, where it has one, is not kept.

    Wang-Cheng Kang and Julian McAuley, "Self-Attentive Sequential Recommendation", 2018, part their data so.

    Example:
        >>> log = Table(pa.table({"who": list("aaab"), "what": list("xyzx"), "day": [1, 3, 2, 1]}))
        >>> rows = History(user="who", item="what", time="day").apply(log)
        >>> rows["history"].to_pylist(), rows["what"].to_pylist(), rows["split"].to_pylist()
        ([['x'], ['x', 'z']], ['z', 'y'], ['validation', 'test'])
    """

    def __init__(
        self,
        *,
        user: Annotated[str, Field(description="the column that says who")],
        item: Annotated[str, Field(description="the column that says what")],
        time: Annotated[str | None, Field(description="the column that says when; open: rows are in order")] = None,
        length: Annotated[int, Field(ge=1, description="most items of a history: the newest")] = 50,
        least: Annotated[int, Field(ge=1, description="fewest events before one that is a row")] = 1,
        split: Annotated[
            Literal["leave_one_out", "none"],
            Field(description="leave_one_out: each user's last event for test, the one before for validation"),
        ] = "leave_one_out",
    ) -> None:
        self.user, self.item, self.time = user, item, time
        self.length, self.least, self.split = length, least, split

    def apply(self, table: Table) -> Table:
        if "history" in table.columns:
            raise DataError("a column is called 'history' already", place=table.name, mend="Rename it.")
        lost = Lost(table)
        events = in_order(lost, [self.user, self.item], self.time)
        sizes = np.repeat(events.sizes, events.sizes)
        before = np.arange(len(sizes)) - np.repeat(events.starts, events.sizes)
        chosen = np.flatnonzero(before >= self.least)
        if not len(chosen):
            raise DataError(f"no {self.user!r} has more than {self.least} events", place=table.name)
        chosen = chosen[np.lexsort((events.rows[chosen], events.times[chosen]))]
        before, after, sizes = before[chosen], (sizes - 1 - before)[chosen], sizes[chosen]
        rows = events.rows[chosen]

        items = pc.cast(whole(table[self.item]), pa.string())
        lengths = np.minimum(before, self.length)
        history = lists_of(items.take(pa.array(events.rows)), chosen - lengths, lengths)
        taken = table.data.take(pa.array(rows))
        columns = {self.user: taken[self.user], "history": history, self.item: items.take(pa.array(rows))}
        columns |= {name: taken[name] for name in table.columns if name not in columns}
        data, split_column = pa.table(columns), None
        if self.split == "leave_one_out":
            data, split_column = with_split(data, np.where(sizes < 3, 0, np.maximum(2 - after, 0)))
        return Table(
            data,
            name=table.name,
            base=table.base,
            split_column=split_column,
            place=lambda row: table.where(int(rows[row])),
            problems=lost.carried(rows),
            target=self.item,
        )


# --- windows


class Grid(NamedTuple):
    """Series on even steps, behind each other; a step that no row tells of is there, and is missing.

    ``times`` and ``groups`` [S] are those of each step, ``values`` [S, F] NaN where missing, ``rows`` [S] the row of
    the long table that it comes from, or that comes next.
    """

    times: Array
    groups: Rows
    values: Array
    rows: Rows


class Windows(Reshape):
    """A long table, one row a time step, to rows "so far" and "from here on".

    The table that comes out has ``past``, a list of steps [past][values and exogenous], ``future``, a list of steps
    [future][values], and ``by`` where there are several series. Rows of the long table are put in the order of time.
    All series have one step, the commonest distance between two rows; where rows are farther apart, the steps between
    are missing; where they are at no whole number of steps, or at the same time, it is told.

    The split is by time. ``cuts`` are where validation and testing begin: a window is for training where its future
    lies before the first cut, for validation where it lies between them, for testing where it lies after both. Its
    past may reach back over a cut, as it does in use. Windows whose future lies on both sides of a cut are left out,
    and so are those without any value in their past or future; ``problems`` says how many.

    Example:
        >>> table = Table(pa.table({"day": range(6), "sales": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}))
        >>> windows = Windows(time="day", values=("sales",), past=2, future=1, split=(0.7, 0.0, 0.3))
        >>> windows.apply(table).data.select(["past", "split"]).to_pylist()[-1]
        {'past': [[4.0], [5.0]], 'split': 'test'}
    """

    def __init__(
        self,
        *,
        time: Annotated[str, Field(description="the column that says when: numbers or dates")],
        values: Annotated[tuple[str, ...], Field(min_length=1, description="columns to forecast")],
        by: Annotated[str | None, Field(description="the column that tells several series apart")] = None,
        past: Annotated[int, Field(ge=1, description="steps that are seen")] = 48,
        future: Annotated[int, Field(ge=1, description="steps that are forecast")] = 12,
        stride: Annotated[int, Field(ge=1, description="steps from one window to the next")] = 1,
        split: Annotated[
            tuple[float, float, float], Field(description="shares of the time: train, validation, test")
        ] = (0.8, 0.1, 0.1),
        exogenous: Annotated[tuple[str, ...], Field(description="columns that are seen and not forecast")] = (),
    ) -> None:
        if min(split) < 0 or split[0] == 0 or abs(sum(split) - 1) > 1e-6:
            raise RecipeError(
                [f"data.reshape.split: shares of train, validation and test that add up to 1, not {split}"]
            )
        if twice := sorted({name for name in (*values, *exogenous) if [*values, *exogenous].count(name) > 1}):
            raise RecipeError([f"data.reshape: {', '.join(map(repr, twice))} is named more than once"])
        self.time, self.values, self.by, self.exogenous = time, tuple(values), by, tuple(exogenous)
        self.past, self.future, self.stride, self.shares = past, future, stride, split

    def cuts(self, times: Array) -> tuple[float, float]:
        """The times at which validation and testing begin: shares of the distinct times that there are."""
        distinct = np.append(np.unique(times), np.inf)
        places = np.rint(np.cumsum(self.shares)[:2] * (len(distinct) - 1)).astype(int)
        return float(distinct[places[0]]), float(distinct[places[1]])

    def apply(self, table: Table) -> Table:
        if self.by in ("past", "future"):
            raise DataError(f"the column that tells series apart is called {self.by!r}", place=table.name)
        lost = Lost(table)
        steps = in_order(lost, [self.by] if self.by else [], self.time)
        same = (np.diff(steps.times, prepend=np.nan) == 0) & (np.diff(steps.groups, prepend=-1) == 0)
        lost.tell(steps.rows[same], self.time, lambda row: "the time of a row before it in its series", fatal=True)
        steps = steps.take(~same)
        grid = self.grid(lost, steps)
        starts = self.starts(grid.groups)
        parts = self.parts(grid, starts, self.cuts(steps.times))
        seen, told = self.known(grid, starts)
        usable = (parts >= 0) & seen & told
        notes = lost.note(
            int((parts < 0).sum()), "windows left out because a cut of the split lies within their future"
        )
        notes += lost.note(
            int((~(seen & told) & (parts >= 0)).sum()), "windows left out because their past or future holds no value"
        )
        starts, parts = starts[usable], parts[usable]
        self.check_filled(table, parts)
        rows = grid.rows[starts + self.past]
        columns = {} if self.by is None else {self.by: table[self.by].take(pa.array(rows))}
        columns["past"] = self.windows(grid.values, starts, self.past)
        columns["future"] = self.windows(grid.values[:, : len(self.values)], starts + self.past, self.future)
        data, split_column = with_split(pa.table(columns), parts)
        return Table(
            data,
            name=table.name,
            base=table.base,
            split_column=split_column,
            place=lambda row: table.where(int(rows[row])),
            problems=[*lost.carried(rows), *notes],
            target="future",
        )

    def grid(self, lost: Lost, steps: Ordered) -> Grid:
        """Rows on even steps. A gap that no window can span is only so long that none does."""
        if not len(steps.rows):
            raise DataError("no row has a time", place=lost.table.name)
        inner = np.diff(steps.groups, prepend=-1) == 0
        distances = np.diff(steps.times, prepend=0.0)
        step = commonest(distances[inner])
        count = np.where(inner, distances / step, 1.0)
        whole_count = np.maximum(np.rint(count), 1.0)
        uneven = np.abs(count - whole_count) > UNEVEN
        apart = dict(zip(steps.rows[uneven].tolist(), distances[uneven].tolist(), strict=True))
        lost.tell(
            steps.rows[uneven],
            self.time,
            lambda row: f"{apart[row]:g} after the row before it, where steps are of {step:g}",
            fatal=False,
        )
        spanned = 2 * (self.past + self.future) + 1
        places = np.cumsum(np.minimum(whole_count, spanned).astype(np.int64)) - 1
        values = np.full((places[-1] + 1, len(self.values) + len(self.exogenous)), np.nan)
        values[places] = self.read(lost, steps.rows)
        here = np.arange(len(values))
        right = np.searchsorted(places, here)
        left = np.maximum(right - (places[right] != here), 0)
        since, until = here - places[left], places[right] - here
        times = np.where(since <= until, steps.times[left] + since * step, steps.times[right] - until * step)
        return Grid(times, steps.groups[left], values, steps.rows[right])

    def read(self, lost: Lost, rows: Rows) -> Array:
        """The numbers of these rows [N, F]."""
        columns = []
        for name in (*self.values, *self.exogenous):
            numbers, bad = numbers_of(whole(lost.table[name]))
            bad = bad | np.isinf(numbers)
            lost.tell(np.flatnonzero(bad), name, lambda row: "not a finite number, taken as missing", fatal=False)
            columns.append(np.where(bad, np.nan, numbers)[rows])
        return np.stack(columns, axis=1)

    def starts(self, groups: Rows) -> Rows:
        """Where each window begins on the grid: none reaches over the end of its series."""
        first = np.flatnonzero(np.diff(groups, prepend=-1))
        sizes = np.diff(np.append(first, len(groups)))
        counts = np.maximum((sizes - self.past - self.future) // self.stride + 1, 0)
        ordinal = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.asarray(np.repeat(first, counts) + ordinal * self.stride, np.int64)

    def parts(self, grid: Grid, starts: Rows, cuts: tuple[float, float]) -> Rows:
        """0, 1, 2 for training, validation, testing; -1 where the future lies on both sides of a cut."""
        first, last = grid.times[starts + self.past], grid.times[starts + self.past + self.future - 1]
        begins, ends = (np.searchsorted(cuts, times, side="right") for times in (first, last))
        return np.where(begins == ends, begins, -1)

    def known(self, grid: Grid, starts: Rows) -> tuple[Flags, Flags]:
        """Whether a window's past and future hold any value."""
        there = ~np.isnan(grid.values)
        past = np.concatenate([[0], np.cumsum(there.any(axis=1))])
        future = np.concatenate([[0], np.cumsum(there[:, : len(self.values)].any(axis=1))])
        middle, end = starts + self.past, starts + self.past + self.future
        return past[middle] > past[starts], future[end] > future[middle]

    def windows(self, values: Array, starts: Rows, length: int) -> pa.ChunkedArray:
        width = values.shape[1]
        offsets = pa.array((np.arange(len(values) + 1) * width).astype(np.int32))
        steps = pa.ListArray.from_arrays(offsets, pa.array(values.reshape(-1), from_pandas=True))
        return lists_of(steps, starts, np.full(len(starts), length), PACK // width)

    def check_filled(self, table: Table, parts: Rows) -> None:
        for index, (name, share) in enumerate(zip(SPLIT_ORDER, self.shares, strict=True)):
            if share and not (parts == index).any():
                raise DataError(
                    f"no window of {self.past} + {self.future} steps is left for {name}",
                    place=table.name,
                    mend="Take shorter windows or other shares (data.reshape.split).",
                )


def commonest(distances: Array) -> float:
    """The distance that occurs most often, up to rounding; 1 where there is none."""
    if not len(distances):
        return 1.0
    rounded = np.round(distances / distances.max(), 9)
    _, inverse, counts = np.unique(rounded, return_inverse=True, return_counts=True)
    return float(np.median(distances[inverse == np.argmax(counts)]))


RESHAPES: dict[str, type[Reshape]] = {"history": History, "windows": Windows}
