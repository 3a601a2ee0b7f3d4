"""``zhixing estimate``: what a training will take, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ...columns import Column
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
from .dry import DryStep
from .machine import (
    Times,
    clock,
    device_free,
    host_free,
    peak_bytes,
    power_of,
    process_age,
    resident_bytes,
    unread_bytes,
)
from .plan import (
    EFFICIENCY,
    PROGRAM_LATER,
    Plan,
    activations_of,
    changes,
    energy,
    largest_batch,
    layers_told,
    longest,
    memory_parts,
    rates,
    time_from_operations,
    typical,
)  # fmt: skip
from .rehearsal import Rehearsal, rehearse, scratch_folder

__all__ = ["estimate"]

SMALL = 0.4  # of free memory: a model that takes more is not tried out
LEAVING = 0.6  # seconds in which the interpreter ends, with all that is loaded
TRIED = 8.0  # seconds of a step: one that takes longer by its operations is not tried out


def estimate(
    subject: Any,
    raw: Mapping[str, Any],
    *,
    encoder: Any = None,
    device: torch.device,
    trial: bool = True,
    watts: float | None = None,
    price: float | None = None,
    carbon: float | None = None,
    console: Console,
) -> dict[str, Any]:
    """What training on a source by a recipe takes, as JSON; nothing is trained and nothing is written but the cache.

    The data are prepared as training prepares them (and are found in the cache afterwards). Parameters, operations and
    memory come from a dry step (:mod:`.dry`), in which no weight is allocated. Where the model is small beside the
    memory that is free, a rehearsal (:mod:`.rehearsal`) tells the time and the memory of all around it; of a larger
    one, or without ``trial``, the time is told from its operations and the machine's rate of matrix products.

    Args:
        subject: a source, the folder of a run, whose recipe is then taken, or None: the source that the recipe names.
        watts: drawn while training, in place of the stated model.
        price: of an hour of this machine; ``carbon``: grams for a kilowatt-hour.

    Raises:
        RecipeError, UsageError, DataError: as training would.
    """
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
    data = {"rows": table.rows, "splits": {name: len(rows) for name, rows in prepared.split.items()}}
    blocks = pack(prepared, columns, seed=recipe.seed)
    plan = plan_of(recipe, columns, blocks, device, done.modules)
    load_libraries(recipe)
    start = clock() - saved
    start += LEAVING
    start[0] += (age or 0.0) - began[0]
    prepared_peak, held = peak_bytes(), resident_bytes()
    thinking = clock()
    dry = plan.dry()
    start += clock() - thinking  # a run does the same, for its report
    rate = rates(device)
    room = device_free(device)
    seen: Rehearsal | None = None
    if trial and fits_a_trial(dry, room, rate(dry.precision.name)):
        building = clock()
        model = build(recipe, columns, done.modules)
        usable = alignable(prepared, table, columns, model, recipe.data.on_error)
        start += clock() - building
        quiet = Console(quiet=True)
        with scratch_folder(recipe) as folder:
            seen = rehearse(Session(folder, recipe, table, columns, usable, device, quiet, model, {}))
    times = timed_parts(seen, plan, dry, start, rate(dry.precision.name))
    memory = memory_told(seen, dry, recipe, device, program, prepared_peak, held)
    peak = memory["peak_bytes"] if device.type == "cpu" else memory["device_peak_bytes"]
    free = (room or 0) + (held if device.type == "cpu" else 0)
    activations = activations_of(dry, plan.dry(max(1, dry.rows // 2)) if dry.rows > 1 else dry)
    largest = largest_batch(dry, activations, free, max(0, peak - dry.bytes)) if room is not None else None
    threads = recipe.training.threads or 1
    return {
        "data": {"source": recipe.data.source, **data},
        "parameters": dry.parameters,
        "layers": layers_told(dry),
        "forward_flops_per_row": dry.forward_flops // dry.rows,
        "step_flops": dry.step_flops,
        "batch_rows": dry.rows,
        "steps": plan.steps,
        "precision": f"{dry.precision.name}: {dry.precision.reason}",
        "memory": memory | {"free_bytes": room, "fits": None if room is None else peak <= free},
        "time": times,
        "energy": energy(times["seconds"], power_of(device, threads, watts), price, carbon),
        "largest_batch": largest,
        "changes": changes(plan, dry, activations, peak, times["training"], rate),
        "notes": notes(recipe, dry, seen),
    }


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
    from ...columns.column import Ragged

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


def fits_a_trial(dry: DryStep, room: int | None, rate: float) -> bool:
    """Whether the real model may be built and a few steps be taken."""
    small = room is None or dry.bytes < SMALL * room
    host = host_free()
    small &= host is None or dry.weights < SMALL * host
    return small and dry.step_flops / rate < TRIED


# Assembling -----------------------------------------------------------------------------------------------------------


def timed_parts(seen: Rehearsal | None, plan: Plan, dry: DryStep, start: Times, rate: float) -> dict[str, Any]:
    """Seconds in all and of each part; of the processor too, where steps were timed."""
    if seen is None:
        usual = dry if plan.typical == plan.longest else plan.dry(steps=plan.typical)
        least, likely = time_from_operations(plan, usual, rate)
        return {
            "seconds": round(start[0] + likely, 3),
            "from": f"the operations of training at {EFFICIENCY:.0%} of {rate / 1e9:,.0f} GFLOP/s, the rate of large "
            "matrix products here; validation and the rest are left out",
            "at_least": round(start[0] + least, 3),
            "start": round(start[0], 3),
            "training": round(likely, 3),
            "step": round(likely / plan.steps, 6),
        }
    parts = {
        "start": start + seen.once,
        "training": seen.training,
        "step": seen.step,
        "validation": seen.validation * seen.validations,
        "checkpoints": seen.checkpoint * seen.checkpoints,
        "final": seen.final,
    }
    total = start + seen.seconds
    return {
        "seconds": round(total[0], 3),
        "from": f"{seen.timed_steps} timed steps",
        **{name: round(part[0], 6) for name, part in parts.items()},
        "processor_seconds": round(total[1], 3),
    }


def memory_told(
    seen: Rehearsal | None, dry: DryStep, recipe: Recipe, device: torch.device,
    program: int, prepared_peak: int, held: int,
) -> dict[str, Any]:  # fmt: skip
    """Peak memory of the process, and on a GPU of the device, by part."""
    parts = memory_parts(dry, recipe)
    unread = unread_bytes(cache_folder())
    on_host = parts if device.type == "cpu" else {"checkpoint being written": parts["checkpoint being written"]}
    data = max(0, held - program) + unread
    from_parts = program + data + sum(on_host.values()) + PROGRAM_LATER
    training = seen.peak_bytes + unread + seen.more_bytes if seen is not None else from_parts
    peak = max(training, prepared_peak)
    told: dict[str, Any] = {
        "peak_bytes": peak,
        "when": "training" if training >= prepared_peak else "preparing the data",
        "from": "a rehearsal" if seen is not None else "the sum of the parts",
        "parts_bytes": {"program": program, "data": data, **on_host, "everything else": 0},
        "sum_of_parts_bytes": max(from_parts, prepared_peak),
    }
    told["parts_bytes"]["everything else"] = max(0, peak - sum(told["parts_bytes"].values()))
    if device.type != "cpu":
        tensors = {name: size for name, size in parts.items() if name != "checkpoint being written"}
        measured = seen.device_bytes if seen is not None and seen.device_bytes is not None else 0
        told["device_parts_bytes"] = tensors
        told["device_peak_bytes"] = max(measured, sum(tensors.values()))
    return told


def notes(recipe: Recipe, dry: DryStep, seen: Rehearsal | None) -> list[str]:
    out = []
    if recipe.training.early_stopping is not None:
        out.append("training may stop early, and then takes less")
    if not dry.whole:
        out.append("the loss cannot be followed without computing it: its own memory and operations are left out")
    if seen is None:
        out.append("no step was tried out")
    return out
