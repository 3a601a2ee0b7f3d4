"""A log of events turned into histories, parted so that nothing that is to be predicted is seen in training."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from ..columns.column import whole
from ..errors import DataError
from .ordered import Lost, Reshape, in_order, lists_of, with_split
from .table import Table

__all__ = ["History"]


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

    def ask(self, table: Table) -> Table:
        """Each user with the newest items, in the order in which users first appear."""
        lost = Lost(table)
        events = in_order(lost, [self.user, self.item], self.time)
        items = pc.cast(whole(table[self.item]), pa.string()).take(pa.array(events.rows))
        lengths = np.minimum(events.sizes, self.length)
        last = events.starts + events.sizes - 1
        rows = events.rows[last]
        users = table[self.user].take(pa.array(rows))
        data = pa.table({self.user: users, "history": lists_of(items, last + 1 - lengths, lengths)})
        place, problems = (lambda row: table.where(int(rows[row]))), lost.carried(rows)
        return Table(data, name=table.name, base=table.base, place=place, problems=problems)
