"""``zhixing estimate``: what a training will take, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ...console import Console
from ...data.store import cache_folder
from ...recipe import Recipe
from .dry import StepCost
from .machine import Times, clock, device_free, host_free, power_of, unread_bytes
from .plan import (
    EFFICIENCY,
    PROGRAM_LATER,
    Plan,
    activations_of,
    changes,
    energy,
    largest_batch,
    layers_told,
    memory_parts,
    rates,
    time_from_operations,
)
from .rehearsal import Rehearsal
from .scene import Scene, set_scene

__all__ = ["estimate"]

SMALL = 0.4  # of free memory: a model that takes more is not tried out
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
    scene = set_scene(subject, raw, encoder, device, console)
    plan, recipe, began = scene.plan, scene.plan.recipe, clock()
    dry = plan.dry()
    scene.start = scene.start + clock() - began  # a run does the same, for its report
    rate, room = rates(device), device_free(device)
    seen = scene.rehearse() if trial and fits_a_trial(dry, room, rate(dry.precision.name)) else None
    times = timed_parts(seen, plan, dry, scene.start, rate(dry.precision.name))
    memory = memory_told(seen, dry, scene)
    peak = memory["peak_bytes"] if device.type == "cpu" else memory["device_peak_bytes"]
    free = (room or 0) + (scene.held_bytes if device.type == "cpu" else 0)
    activations = activations_of(dry, plan.dry(max(1, dry.rows // 2)) if dry.rows > 1 else dry)
    return {
        "data": {
            "source": recipe.data.source,
            "rows": scene.table.rows,
            "splits": {name: len(rows) for name, rows in scene.prepared.split.items()},
        },
        "parameters": dry.parameters,
        "layers": layers_told(dry),
        "forward_flops_per_row": dry.forward_flops // dry.rows,
        "step_flops": dry.step_flops,
        "batch_rows": dry.rows,
        "steps": plan.steps,
        "precision": f"{dry.precision.name}: {dry.precision.reason}",
        "memory": memory | {"free_bytes": room, "fits": None if room is None else peak <= free},
        "time": times,
        "energy": energy(times["seconds"], power_of(device, recipe.training.threads or 1, watts), price, carbon),
        "largest_batch": None if room is None else largest_batch(dry, activations, free, max(0, peak - dry.bytes)),
        "changes": changes(plan, dry, activations, peak, times["training"], rate),
        "notes": notes(recipe, dry, seen),
    }


def fits_a_trial(dry: StepCost, room: int | None, rate: float) -> bool:
    """Whether the real model may be built and a few steps be taken."""
    small = room is None or dry.bytes < SMALL * room
    host = host_free()
    small &= host is None or dry.weights < SMALL * host
    return small and dry.step_flops / rate < TRIED


# Assembling -----------------------------------------------------------------------------------------------------------


def timed_parts(seen: Rehearsal | None, plan: Plan, dry: StepCost, start: Times, rate: float) -> dict[str, Any]:
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


def memory_told(seen: Rehearsal | None, dry: StepCost, scene: Scene) -> dict[str, Any]:
    """Peak memory of the process, and on a GPU of the device, by part."""
    device, program, prepared_peak = scene.plan.device, scene.program_bytes, scene.peak_bytes
    parts = memory_parts(dry, scene.plan.recipe)
    unread = unread_bytes(cache_folder())
    on_host = parts if device.type == "cpu" else {"checkpoint being written": parts["checkpoint being written"]}
    data = max(0, scene.held_bytes - program) + unread
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


def notes(recipe: Recipe, dry: StepCost, seen: Rehearsal | None) -> list[str]:
    out = []
    if recipe.training.early_stopping is not None:
        out.append("training may stop early, and then takes less")
    if not dry.whole:
        out.append("the loss cannot be followed without computing it: its own memory and operations are left out")
    if seen is None:
        out.append("no step was tried out")
    return out
