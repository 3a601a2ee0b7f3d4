"""What is known before anything is built: the recipe made whole, the data prepared, how many steps there will be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ...columns import Column
from ...columns.column import Ragged
from ...console import Console
from ...data.batches import Order
from ...data.packing import pack
from ...data.prepare import Prepared, encode_all, prepare
from ...data.source import open_source
from ...data.split import split
from ...data.store import cache_folder
from ...data.table import Table
from ...pretrained import equip
from ...recipe import Recipe, reshaped
from ...run import RunFolder, make_columns
from ...training.optimizers import OPTIMIZERS, prime
from ..alignment import alignable
from ..assemble import Session
from ..complete import complete
from ..sources import stratify_by, tell_broken
from ..train import build, describe_source, resolved
from .machine import Times, clock, peak_bytes, process_age, resident_bytes
from .plan import Plan, longest, typical
from .rehearsal import Rehearsal, rehearse, scratch_folder

__all__ = ["Scene", "set_scene"]

LEAVING = 0.6  # seconds in which the interpreter ends, with all that is loaded


@dataclass
class Scene:
    """What training finds when it begins: data and plan; the seconds until then; bytes of the program by itself, with
    the data, and at most."""

    table: Table
    prepared: Prepared
    plan: Plan
    start: Times
    program_bytes: int
    held_bytes: int
    peak_bytes: int

    def rehearse(self) -> Rehearsal:
        """Build the model and try it out."""
        plan, began = self.plan, clock()
        recipe, columns = plan.recipe, dict(plan.columns)
        model = build(recipe, columns, plan.modules)
        usable = alignable(self.prepared, self.table, columns, model, recipe.data.on_error)
        self.start = self.start + clock() - began
        quiet = Console(quiet=True)
        with scratch_folder(recipe) as folder:
            return rehearse(Session(folder, recipe, self.table, columns, usable, plan.device, quiet, model, {}))


def set_scene(subject: Any, raw: Mapping[str, Any], encoder: Any, device: torch.device, console: Console) -> Scene:
    """Do what training does before it builds the model."""
    began, age, program = clock(), process_age(), resident_bytes()
    if isinstance(subject, str | Path) and (Path(subject) / "recipe.yaml").is_file():
        raw, subject = RunFolder(subject).recipe().plain(), None
    source = raw["data"]["source"] if subject is None else subject
    table = reshaped(open_source(source), raw)
    tell_broken(table.problems, console)
    done = complete(raw, table, encoder, source=describe_source(source, table))
    recipe = Recipe(done.raw)
    columns, prepared, saved = ready(recipe, table, console)
    recipe = resolved(recipe, columns, device)
    plan = plan_of(recipe, columns, pack(prepared, columns, seed=recipe.seed), device, done.modules)
    load_libraries(recipe)
    start = clock() - saved + LEAVING
    start[0] += (age or 0.0) - began[0]
    return Scene(table, prepared, plan, start, program, resident_bytes(), peak_bytes())


def ready(recipe: Recipe, table: Table, console: Console) -> tuple[dict[str, Column], Prepared, Times]:
    """Columns and data as training has them, and the seconds that are saved when it finds them in the cache."""
    parts = split(table, recipe.data.split, recipe.seed, target=stratify_by(recipe))
    columns = make_columns(recipe)
    equip(recipe, columns)
    marks: list[Times] = []

    def progress(name: str, done: int, rows: int) -> None:
        marks.append(clock())
        console.progress(f"preparing {name}", done, rows)

    with console:
        prepared = prepare(
            table, columns, parts, cache=cache_folder(), on_error=recipe.data.on_error, progress=progress
        )
    if len(marks) <= len(columns):  # a single word from each: they were found
        return columns, prepared, np.zeros(2)
    start = clock()
    encode_all(table, columns, cache=cache_folder())
    return columns, prepared, np.maximum(0.0, marks[-1] - marks[0] - (clock() - start))


def plan_of(
    recipe: Recipe, columns: Mapping[str, Column], prepared: Prepared, device: torch.device, modules: Mapping[str, Any]
) -> Plan:
    """How many steps of how many rows, as :func:`make_loop` has them."""
    training, rows = recipe.training, prepared.split["train"]
    order = Order(rows, len(rows) if training.optimizer.name == "gradient_descent" else training.batch_size)
    epochs = training.epochs
    if training.tokens is not None:
        total = sum(n * len(rows) for name, n in mean_lengths(prepared).items() if name in recipe.outputs)
        epochs = training.tokens / max(1.0, total)
    steps = max(1, round(epochs * order.steps_per_epoch))
    biggest = -(-len(rows) // order.steps_per_epoch)
    return Plan(recipe, columns, device, biggest, steps, longest(prepared), typical(prepared), modules)


def mean_lengths(prepared: Prepared) -> dict[str, float]:
    rows = prepared.split["train"]
    return {
        name: float(column.lengths_of(rows).mean())
        for name, column in prepared.columns.items()
        if isinstance(column, Ragged)
    }


def load_libraries(recipe: Recipe) -> None:
    """Take a step of the smallest model there is: the first step of all loads what the dry step would load later."""
    model = nn.Linear(1, 1)
    prime(OPTIMIZERS[recipe.training.optimizer.name](model, **recipe.training.optimizer.keywords()))
    model(torch.zeros(1, 1)).sum().backward()
