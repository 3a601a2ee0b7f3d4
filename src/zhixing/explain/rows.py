"""Rows that are explained, encoded: those that somebody gives, or a split of the run's own data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..columns import Column
from ..columns.column import Ragged
from ..console import Console
from ..data.batches import Batch, Batches, ColumnBatch
from ..data.prepare import encode_all
from ..data.split import SPLITS, split
from ..data.store import cache_folder
from ..data.table import Table
from ..errors import DataError, UsageError
from ..model import Model
from ..recipe import Recipe, reshaped
from ..verbs.predict import asked_table
from ..verbs.sources import as_table, own_source, stratify_by, tell_broken

__all__ = ["Rows", "given_rows", "read_by", "split_rows"]

BATCH = 32


@dataclass
class Rows:
    """A table, what is stored of its input columns, and which of its rows can be read."""

    table: Table
    tensors: dict[str, ColumnBatch | Ragged]
    rows: NDArray[np.int64]

    def take(self, most: int | None) -> Rows:
        """As many of the rows, from all over."""
        if most is None or len(self.rows) <= most:
            return self
        places = np.arange(most) * len(self.rows) // most
        return Rows(self.table, self.tensors, self.rows[places])

    def batches(self, device: torch.device) -> Iterator[tuple[Batch, NDArray[np.int64]]]:
        """Batches of rows of about the same length, longest first, and the place of each row among ``rows``."""
        source = Batches(self.tensors, device)
        lengths = source.lengths(self.rows)
        order = np.arange(len(self.rows)) if lengths is None else np.argsort(-lengths, kind="stable")
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            yield source.gather(self.rows[places]), places

    def cell(self, name: str, row: int) -> Any:
        """What stands in the table, None where there is no such column."""
        return self.table[name][row].as_py() if name in self.table.columns else None


def read_by(model: Model) -> list[str]:
    """The columns that a model reads; a language model goes on from its own."""
    return list(model.inputs or model.outputs)


def complete(model: Model, table: Table) -> Table:
    """The table, if it has all columns that the model reads.

    Raises:
        DataError: it lacks some.
    """
    missing = [name for name in read_by(model) if name not in table.columns]
    if missing:
        raise DataError(
            f"the model reads {', '.join(map(repr, missing))}, which this table lacks",
            place=table.name,
            mend=f"It has: {', '.join(table.columns)}.",
        )
    return table


def encoded(columns: Mapping[str, Column], model: Model, table: Table, console: Console, *, own: bool) -> Rows:
    """The rows of a table that can be read; the others are told of."""
    inputs = {name: columns[name] for name in read_by(model)}
    found, problems = encode_all(table, inputs, cache=cache_folder() if own else None)
    tell_broken([*table.problems, *problems], console)
    good = np.ones(table.rows, bool)
    good[[problem.row for problem in problems if problem.fatal]] = False
    return Rows(table, {name: one.batch for name, one in found.items()}, np.flatnonzero(good).astype(np.int64))


def given_rows(recipe: Recipe, columns: Mapping[str, Column], model: Model, source: Any, console: Console) -> Rows:
    """All rows of a source, or of a table that is open already.

    Raises:
        DataError: a column is missing, or no row can be read.
    """
    table = source if isinstance(source, Table) else asked_table(recipe, source)
    rows = encoded(columns, model, complete(model, table), console, own=False)
    if not len(rows.rows):
        raise DataError("no row can be read", place=table.name)
    return rows


def split_rows(
    recipe: Recipe, columns: Mapping[str, Column], model: Model, part: str, console: Console, source: Any = None
) -> Rows:
    """The rows of a split of the data that the run was trained on. ``source`` has them where they are in memory.

    Raises:
        UsageError: there is no such split.
        DataError: the source is gone, or no row of the split can be read.
    """
    if part not in SPLITS:
        raise UsageError(f"{part!r} is not a split", mend=f"Known: {', '.join(SPLITS)}.")
    table = as_table(recipe, own_source(recipe) if source is None else source)
    if any(name not in table.columns for name in columns):
        table = reshaped(table, recipe.plain())
    rows = encoded(columns, model, complete(model, table), console, own=True)
    parts = split(table, recipe.data.split, recipe.seed, target=stratify_by(recipe))
    chosen = parts[part]
    rows.rows = chosen[np.isin(chosen, rows.rows)]
    if not len(rows.rows):
        raise DataError(f"no row of this split ({part}) can be read", place=table.name)
    return rows
