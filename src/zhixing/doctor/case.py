"""What is examined: a table with its recipe and encoded columns, the model, and what a run has logged."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .. import recipe as recipes
from ..columns import Column
from ..columns.category import Category
from ..columns.column import Ragged
from ..console import Console
from ..data.batches import Batches, ColumnBatch, stored_row
from ..data.packing import pack
from ..data.prepare import Prepared
from ..data.source import open_source
from ..data.table import Table
from ..errors import DataError
from ..model import Model
from ..randomness import permutation
from ..recipe import Recipe
from ..report.files import read_run
from ..run import RunFolder
from ..training.surroundings import torch_device
from ..verbs.alignment import alignable
from ..verbs.complete import complete
from ..verbs.sources import own_source
from ..verbs.train import build, describe_source, make_data
from .finding import Row
from .trial import Trial, run_trial
from .views import view

__all__ = ["Case", "case_of_data", "case_of_run"]

Rows = NDArray[np.int64]
SHOWN = 20  # rows of evidence


@dataclass
class Case:
    """One thing to examine. Checks read it and change nothing; what several of them need is made once."""

    recipe: Recipe
    table: Table
    columns: dict[str, Column]
    prepared: Prepared
    device: torch.device
    pristine: Model
    log: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)  # of a run: training, validation, …

    # Data -------------------------------------------------------------------------------------------------------------

    @property
    def inputs(self) -> dict[str, Column]:
        return {name: column for name, column in self.columns.items() if column.role == "input"}

    @property
    def outputs(self) -> dict[str, Column]:
        return {name: column for name, column in self.columns.items() if column.role == "output"}

    def stored(self, name: str) -> ColumnBatch | Ragged:
        return self.prepared.columns[name]

    def split(self, part: str) -> Rows:
        return self.prepared.split[part]

    @property
    def held_out(self) -> Rows:
        """Usable rows that are not trained on."""
        return np.concatenate([self.split("validation"), self.split("test")])

    @property
    def usable(self) -> Rows:
        return np.sort(np.concatenate(list(self.prepared.split.values())))

    def some(self, rows: Rows, most: int) -> Rows:
        """At most so many of the rows, drawn at random, in order."""
        return rows if len(rows) <= most else np.sort(rows[permutation(len(rows), "doctor")[:most]])

    def view(self, name: str, rows: Rows) -> NDArray[np.float32]:
        """A column's rows as a plain matrix [N, F]."""
        return view(self.columns[name], self.stored(name), rows)

    def classes(self) -> dict[str, tuple[Category, NDArray[np.int64]]]:
        """Outputs of one class a row: the column, and the code of every row of the table."""
        found = {}
        for name, column in self.outputs.items():
            stored = self.stored(name)
            if isinstance(column, Category) and isinstance(stored, ColumnBatch):
                found[name] = (column, stored.values.numpy().astype(np.int64))
        return found

    def row(self, row: int, remark: str, *, show: str | None = None) -> Row:
        """A row as evidence; ``show`` names a column whose cell is to be seen."""
        seen = self.columns[show].show(stored_row(self.stored(show), row)) if show else {}
        text = seen.get("text", "")
        remark = f"{remark}: {text[:80]}{'…' if len(text) > 80 else ''}" if text else remark
        place = None
        for name, column in self.inputs.items():
            place = place or column.place(self.table[name][int(row)].as_py(), self.table.locate)
        return Row(int(row), place or self.table.where(int(row)), remark, seen.get("picture", ""))

    # Learning ---------------------------------------------------------------------------------------------------------

    @cached_property
    def packed(self) -> Prepared:
        """The rows as a model learns them: those of the table, or blocks of texts."""
        return pack(self.prepared, self.columns, seed=self.recipe.seed)

    @cached_property
    def batches(self) -> Batches:
        return Batches(self.packed.columns, self.device)

    def learned(self, part: str, most: int) -> Rows:
        """Some of the rows that the model learns from, or of those held out from it."""
        return self.some(self.packed.split[part], most)

    def seen_in_evaluation(self, most: int) -> Rows:
        """Rows to measure on: held out ones where there are such."""
        part = next(part for part in ("validation", "test", "train") if len(self.packed.split[part]))
        return self.learned(part, most)

    def fresh(self) -> Model:
        """The model as training starts with it."""
        return copy.deepcopy(self.pristine)

    @cached_property
    def trial(self) -> Trial:
        """A short instrumented training run as the recipe has it, which several checks look at."""
        return run_trial(self, self.fresh(), watch=True)

    @cached_property
    def found_rate(self) -> Trial:
        """A range test: the learning rate rises from almost nothing until the loss does."""
        return run_trial(self, self.fresh(), rising=True, steps=60, augment=False)


def case_of_data(
    source: Any,
    raw: Mapping[str, Any],
    *,
    encoder: str | Mapping[str, Any] | nn.Module | None = None,
    device: str = "auto",
    console: Console | None = None,
) -> Case:
    """Data with a recipe's plain data; what they leave open is inferred, as in training.

    Rows that cannot be used are left out, however many they are: to tell of them is what a doctor is for.

    Raises:
        RecipeError, UsageError, DataError: nothing can be examined, for instance since no row is left.
    """
    console = console or Console(quiet=True)
    table = recipes.reshaped(open_source(source), raw)
    done = complete(raw, table, encoder, source=describe_source(source, table))
    return assembled(Recipe(done.raw), table, done.modules, device, console)


def assembled(
    recipe: Recipe,
    table: Table,
    modules: Mapping[str, nn.Module],
    device: str,
    console: Console,
    log: Mapping[str, Any] | None = None,
) -> Case:
    plain = recipe.plain()
    lenient = Recipe({**plain, "data": {**plain["data"], "on_error": "skip"}})
    try:
        columns, prepared = make_data(lenient, table, console)
    except DataError as error:
        raise DataError(f"there is nothing to examine: {error.what}", place=error.place, mend=error.mend) from error
    model = build(recipe, columns, modules)
    prepared = alignable(prepared, table, columns, model, "skip")
    where = torch_device(device)
    return Case(recipe, table, columns, prepared, where, model.to(where).channels_last(), log or {})


def case_of_run(
    path: Path,
    *,
    source: Any = None,
    encoder: nn.Module | Mapping[str, nn.Module] | None = None,
    device: str = "auto",
    console: Console | None = None,
) -> Case:
    """A run folder: its recipe, its data and what it has logged. Nothing is written in it."""
    recipe = RunFolder(path).recipe()
    table = recipes.reshaped(open_source(own_source(recipe) if source is None else source), recipe.plain())
    files = read_run(path)
    log = {"training": files.training, "validation": files.validation, "timings": files.timings}
    if isinstance(encoder, nn.Module):  # for the one input whose encoder came from Python
        own = [name for name, settings in recipe.inputs.items() if settings.encoder.name == "custom"]
        encoder = {own[0]: encoder} if own else {}
    return assembled(recipe, table, encoder or {}, device, console or Console(quiet=True), log)
