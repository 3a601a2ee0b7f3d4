"""A long table of series turned into windows, parted by time so that no future is seen in training."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field

from ..columns.column import whole
from ..columns.series import numbers_of
from ..errors import DataError, RecipeError
from .ordered import PACK, Array, Flags, Lost, Ordered, Reshape, Rows, in_order, lists_of, with_split
from .source_cells import SPLIT_ORDER
from .table import Table

__all__ = ["Windows"]

UNEVEN = 0.1  # of a step; months and quarters pass


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
        steps = self.steps(lost)
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

    def ask(self, table: Table) -> Table:
        """The last steps of each series, up to its last row; fewer where there are no more."""
        lost = Lost(table)
        steps = self.steps(lost)
        grid = self.grid(lost, steps)
        first = np.flatnonzero(np.diff(grid.groups, prepend=-1))
        ends = np.append(first[1:], len(grid.groups))
        lengths = np.minimum(ends - first, self.past)
        rows = grid.rows[ends - 1]
        short = rows[lengths < self.past]
        lost.tell(short, self.time, lambda row: f"its series has fewer than {self.past} steps", fatal=False)
        columns = {} if self.by is None else {self.by: table[self.by].take(pa.array(rows))}
        columns["past"] = lists_of(self.steps_of(grid.values), ends - lengths, lengths, PACK // grid.values.shape[1])
        place, problems = (lambda row: table.where(int(rows[row]))), lost.carried(rows)
        return Table(pa.table(columns), name=table.name, base=table.base, place=place, problems=problems)

    def steps(self, lost: Lost) -> Ordered:
        """Usable rows in order, one a time in each series."""
        steps = in_order(lost, [self.by] if self.by else [], self.time)
        same = (np.diff(steps.times, prepend=np.nan) == 0) & (np.diff(steps.groups, prepend=-1) == 0)
        lost.tell(steps.rows[same], self.time, lambda row: "the time of a row before it in its series", fatal=True)
        return steps.take(~same)

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
        return lists_of(self.steps_of(values), starts, np.full(len(starts), length), PACK // values.shape[1])

    @staticmethod
    def steps_of(values: Array) -> pa.ListArray:
        """Each step as a list of its numbers."""
        offsets = pa.array((np.arange(len(values) + 1) * values.shape[1]).astype(np.int32))
        return pa.ListArray.from_arrays(offsets, pa.array(values.reshape(-1), from_pandas=True))

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
