"""The smallest change of a row that changes its answer.

The model is a black box: candidates are cells, which go the way that any row goes to its prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from ..columns import Column
from ..columns.category import Category
from ..columns.date import Date
from ..columns.number import Number
from ..columns.tags import Tags
from ..data.table import Table
from ..errors import UsageError
from ..heads import CategoryHead
from ..model import Model
from ..recipe import Recipe
from ..verbs.predict import Wanted, predict_table

__all__ = ["Change", "flip", "moves_of"]

REACH = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)  # of a number or date, in standard deviations
HALVINGS = 12  # of the way to a flip
MOST_COLUMNS = 8  # that are changed together
MOST_SINGLES = 8  # places whose change alone is brought as near as it goes
MOST_CLASSES = 50  # of a category that are tried: the commonest
Cost = float


@dataclass(frozen=True)
class Move:
    """Another value of one place of what is stored of a column, and what it costs: for numbers and dates the distance
    in standard deviations of training rows, for classes and tags 1. ``flag`` is the place that says that the value is
    missing, which it then no longer is."""

    name: str
    place: int
    value: float
    cost: Cost
    flag: int | None = None


@singledispatch
def moves_of(column: Column, name: str, stored: Tensor) -> list[Move]:
    """What may be changed of a column's cell. Of other types than numbers, classes, tags and dates nothing is."""
    return []


@moves_of.register
def number_moves(column: Number, name: str, stored: Tensor) -> list[Move]:
    flag = [column.length + i if column.indicator else None for i in range(column.length)]
    ways = [sign * size for size in REACH for sign in (1.0, -1.0)]
    return [Move(name, i, float(stored[i]) + way, abs(way), flag[i]) for i in range(column.length) for way in ways]


@moves_of.register
def date_moves(column: Date, name: str, stored: Tensor) -> list[Move]:
    """Only the instant is moved; its places on the cycles follow from it when the cell is read again."""
    ways = [sign * size for size in REACH for sign in (1.0, -1.0)]
    return [Move(name, 0, float(stored[0]) + way, abs(way), len(stored) - 1) for way in ways]


@moves_of.register
def category_moves(column: Category, name: str, stored: Tensor) -> list[Move]:
    common = np.argsort(-np.asarray(column.counts), kind="stable")[:MOST_CLASSES]
    return [Move(name, 0, int(code), 1.0) for code in common if int(code) != int(stored)]


@moves_of.register
def tag_moves(column: Tags, name: str, stored: Tensor) -> list[Move]:
    return [Move(name, i, 1 - int(flag), 1.0) for i, flag in enumerate(stored.tolist())]


@dataclass(frozen=True)
class Change:
    """A changed row: what is stored of its changed columns, the costs by (column, place), its answer, and how likely
    it still finds the first answer."""

    stored: dict[str, Tensor]
    costs: dict[tuple[str, int], Cost]
    answer: Any = None
    chance: float = 1.0

    @property
    def cost(self) -> Cost:
        return sum(self.costs.values())

    def with_move(self, move: Move, before: Mapping[str, Tensor]) -> Change:
        """The same with one more place changed, or changed otherwise."""
        now = self.stored.get(move.name, before[move.name]).clone()
        now.view(-1)[move.place] = move.value
        if move.flag is not None:
            now[move.flag] = 0
        return Change({**self.stored, move.name: now}, {**self.costs, (move.name, move.place): move.cost})


class Search:
    """The search for one row."""

    def __init__(self, ask: Callable[[list[Change]], list[Change]], before: dict[str, Tensor], first: Change) -> None:
        self.ask, self.before, self.first = ask, before, first

    def flips(self, change: Change) -> bool:
        return bool(change.answer != self.first.answer)

    def run(self, moves: list[Move]) -> Change | None:
        """The best of: one place changed; places changed one after another, each time that which helps most for its
        cost. What was found is then brought back as near to the row as it stays flipped."""
        if not moves:
            return None
        singles = self.ask([self.first.with_move(move, self.before) for move in moves])
        grown = self.grown(moves, singles)
        nearest: dict[tuple[str, int], Change] = {}
        for change in sorted(filter(self.flips, singles), key=lambda one: one.cost):
            nearest.setdefault(next(iter(change.costs)), change)
        best = list(nearest.values())[:MOST_SINGLES] + ([grown] if grown is not None else [])
        if not best:
            return None
        return min((self.shrunk(change) for change in best), key=lambda one: one.cost)

    def grown(self, moves: list[Move], tried: list[Change]) -> Change | None:
        now = self.first
        for _ in range(MOST_COLUMNS):
            # Of what is gained in doubt about the first answer, that which is dearest bought is worth least.
            gains = [(now.chance - one.chance) / (one.cost - now.cost) for one in tried]
            best = tried[int(np.argmax(gains))]
            if max(gains) <= 0:
                return None
            if self.flips(best):
                return best
            now = best
            left = [move for move in moves if (move.name, move.place) not in now.costs]
            if not left:
                return None
            tried = self.ask([now.with_move(move, self.before) for move in left])
        return None

    def shrunk(self, change: Change) -> Change:
        """Take back whole places, then parts of the way of numbers, as long as the answer stays flipped."""
        for key in sorted(change.costs, key=lambda one: -change.costs[one]):
            if len(change.costs) > 1:
                (less,) = self.ask([self.without(change, key, 0.0)])
                change = less if self.flips(less) else change
        for key in sorted(change.costs, key=lambda one: -change.costs[one]):
            if change.stored[key[0]].is_floating_point():
                change = self.nearer(change, key)
        return change

    def nearer(self, change: Change, key: tuple[str, int]) -> Change:
        low, high, best = 0.0, 1.0, change
        for _ in range(HALVINGS):
            share = (low + high) / 2
            (tried,) = self.ask([self.without(change, key, share)])
            if self.flips(tried):
                high, best = share, tried
            else:
                low = share
        return best

    def without(self, change: Change, key: tuple[str, int], share: float) -> Change:
        """The same with only a share of the way of one place; of 0, that place is as it was."""
        name, place = key
        stored, costs = dict(change.stored), dict(change.costs)
        now, was = stored[name].clone(), self.before[name].view(-1)[place]
        flat = now.view(-1)
        flat[place] = was + share * (flat[place] - was)
        stored[name] = now
        costs[key] *= share
        if share == 0:
            del costs[key]
            if not any(other == name for other, _ in costs):
                del stored[name]
        return Change(stored, costs)


def flip(
    recipe: Recipe,
    columns: Mapping[str, Column],
    model: Model,
    table: Table,
    row: int,
    before: Mapping[str, Tensor],
    output: str,
    device: torch.device,
) -> dict[str, Any] | None:
    """The smallest change that was found of one row of a table that changes the class it is given; None for none.

    ``before`` is what is stored of its inputs. The search goes from coordinate to coordinate, so that what it finds is
    a flip, but there may be a smaller one. The answer is that of a prediction of the changed cells.

    Raises:
        UsageError: the output is no class.
    """
    if not isinstance(model.head(output), CategoryHead):
        raise UsageError(
            f"{output!r} is no class that could flip",
            mend="The smallest change is sought for outputs of type category.",
        )

    def ask(changes: list[Change]) -> list[Change]:
        changed = cells_of(table, row, changes, columns, before)
        answers, _ = predict_table(recipe, columns, model, changed, device=device, wanted=Wanted(probabilities=True))
        said = answers[output].to_pylist()
        first = f"{output}_probability_{said[0] if start is None else start.answer}"
        chances = answers[first].to_pylist()
        return [
            replace(change, answer=answer, chance=chance)
            for change, answer, chance in zip(changes, said, chances, strict=True)
        ]

    start: Change | None = None
    (start,) = ask([Change({}, {})])
    moves = [move for name in model.inputs for move in moves_of(columns[name], name, before[name])]
    found = Search(ask, dict(before), start).run(moves)
    if found is None:
        return None
    (verified,) = ask([found])
    assert verified.answer != start.answer
    changes = []
    for name in dict.fromkeys(name for name, _ in found.costs):
        was, becomes = (columns[name].restore(one[name][None])[0] for one in (before, found.stored))
        cost = sum(cost for (own, _), cost in found.costs.items() if own == name)
        changes.append({"column": name, "was": was, "becomes": becomes, "cost": cost})
    chance = 1 - verified.chance
    return {"from": start.answer, "to": verified.answer, "off": chance, "cost": found.cost, "changes": changes}


def cells_of(
    table: Table, row: int, changes: list[Change], columns: Mapping[str, Column], before: Mapping[str, Tensor]
) -> Table:
    """A table of one row many times, each with one change. Columns that no change is of stay as they are written."""
    data = table.data.take(pa.array([row] * len(changes), pa.int64()))
    for name in dict.fromkeys(name for change in changes for name in change.stored):
        cells = [columns[name].restore(change.stored.get(name, before[name])[None])[0] for change in changes]
        data = data.set_column(data.column_names.index(name), name, pa.array(cells))
    return replace(table, data=data, place=lambda number: table.where(row), problems=[])
