"""Training a smaller model with the run's own data, recipe and loop."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .. import recipe as recipes
from ..columns import Column
from ..console import Console
from ..data.batches import Batch, Batches
from ..data.prepare import Prepared
from ..data.source import open_source
from ..data.table import Table
from ..errors import RunError, UsageError
from ..model import Model
from ..recipe import Recipe
from ..run import RunFolder, write_whole
from ..verbs.alignment import alignable
from ..verbs.assemble import Session
from ..verbs.estimate.foretell import begin
from ..verbs.sources import own_source
from ..verbs.train import Stopped, make_data, work
from .distil import Student

__all__ = ["Material", "open_material", "recovery", "retrain"]


@dataclass
class Material:
    """A run's data, as they were when it was trained."""

    recipe: Recipe
    columns: Mapping[str, Column]
    table: Table
    prepared: Prepared
    device: torch.device

    @property
    def batches(self) -> Batches:
        return Batches(self.prepared.columns, torch.device("cpu"))

    def some(self, part: str, count: int) -> NDArray[np.int64]:
        """So many rows of a split, evenly spread over it."""
        rows = self.prepared.split[part]
        count = min(count, len(rows))
        return rows[np.arange(count) * len(rows) // max(1, count)]

    def training_batches(self, count: int, size: int) -> list[Batch]:
        rows = self.some("train", count * size)
        return [self.batches.gather(part) for part in np.array_split(rows, max(1, len(rows) // size))]


def open_material(
    recipe: Recipe, columns: Mapping[str, Column], model: Model, source: Any, *,
    fingerprint: str | None, device: torch.device, console: Console,
) -> Material:  # fmt: skip
    """The rows that a run was trained on, in its own splits.

    Raises:
        UsageError: they were only in memory, or there are no validation rows to choose by.
        RunError: they are no longer the same.
    """
    source = own_source(recipe) if source is None else source
    table = recipes.reshaped(open_source(source), recipe.plain())
    _, prepared = make_data(recipe, table, console)
    prepared = alignable(prepared, table, columns, model, recipe.data.on_error)
    if fingerprint not in (None, prepared.fingerprint):
        raise RunError(
            "the data have changed since training: rows that were learned from might be measured on",
            place=recipe.data.source,
            mend="Restore them, or train a new run.",
        )
    if not len(prepared.split["validation"]):
        raise UsageError(
            "the run has no validation rows, by which a form could be chosen",
            mend="Train with a validation split: --set data.split.validation=0.1",
        )
    return Material(recipe, columns, table, prepared, device)


def recovery(recipe: Recipe, *, epochs: float) -> Recipe:
    """The recipe of a smaller model's training.

    The learning rate is the run's own: with a third of it, a network that was cut in half comes back less far.
    """
    plain = recipe.plain()
    training = plain["training"] | {"epochs": epochs, "tokens": None, "early_stopping": None, "fine_tuning": None}
    for settings in plain["inputs"].values():
        settings["pretrained"] = None
    for settings in plain["outputs"].values():
        if "sampled" in settings:  # a teacher speaks of all classes
            settings["sampled"] = None
    return Recipe(plain | {"training": training})


def retrain(material: Material, recipe: Recipe, model: Model, teacher: Model, folder: Path, console: Console) -> Path:
    """Train a model in place by the ordinary loop, with the run's own rows, beside the teacher's answers.

    Gives its folder, an ordinary run of its own. Test rows are kept out of sight.
    """
    folder.mkdir(parents=True)
    write_whole(folder / "recipe.yaml", recipes.dump(recipe.plain()).encode())
    run = RunFolder(folder)
    run.write_columns(material.columns)
    begin(run, time.time())
    unseen = {**material.prepared.split, "test": material.prepared.split["test"][:0]}
    prepared = replace(material.prepared, split=unseen)
    teacher.to(material.device)
    student = Student(model, teacher)
    columns = dict(material.columns)
    try:
        work(Session(run, recipe, material.table, columns, prepared, material.device, console, student, {}))
    except Stopped as stopped:  # its folder is about to go, so that there is nothing to resume
        raise KeyboardInterrupt from stopped
    finally:
        teacher.cpu()
    model.cpu().eval()
    return folder
