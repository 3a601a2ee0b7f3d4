"""From a recipe and prepared data to what training them takes: memory by part, time, energy, and what changes it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...columns import Column
from ...columns.column import Ragged
from ...data.prepare import Prepared
from ...recipe import Recipe
from .dry import DryStep, dry_step
from .machine import Power, product_rate

__all__ = ["Plan", "changes", "largest_batch", "layers_told", "longest", "memory_parts", "typical"]

EFFICIENCY = 0.5  # of the rate of large matrix products that training reaches; see time_from_operations
PROGRAM_LATER = 220 << 20  # bytes of libraries that are loaded or first used once training has begun
Steps = dict[str, int]


@dataclass(frozen=True)
class Plan:
    """What is to be trained: how many rows in a step, how many steps, how long their rows are.

    ``longest`` are the steps of the longest row of each column of unequal length, ``typical`` those to which a batch
    is padded on average.
    """

    recipe: Recipe
    columns: Mapping[str, Column]
    device: torch.device
    rows: int
    steps: int
    longest: Steps
    typical: Steps
    modules: Mapping[str, torch.nn.Module]

    def dry(self, rows: int | None = None, *, steps: Steps | None = None, **training: Any) -> DryStep:
        """A dry step of so many rows, of the longest ones unless ``steps`` say otherwise, with settings of training."""
        recipe = self.recipe
        if training:
            plain = recipe.plain()
            plain["training"] |= training
            recipe = Recipe(plain)
        return dry_step(
            recipe, self.columns, rows or self.rows, self.device, steps=steps or self.longest, modules=self.modules
        )

    def recomputed(self) -> Plan | None:
        """The same with no activations kept inside of blocks, where the model can do so and does not yet."""
        plain = copy.deepcopy(self.recipe.plain())
        found = [place for place in settings_with("recompute", plain) if not place["recompute"]]
        if not found:
            return None
        for place in found:
            place["recompute"] = True
        return Plan(**{**vars(self), "recipe": Recipe(plain)})


def settings_with(name: str, plain: Any) -> list[dict[str, Any]]:
    """All mappings in a recipe's plain data that have this setting."""
    if isinstance(plain, dict):
        own = [plain] if name in plain else []
        return own + [place for value in plain.values() for place in settings_with(name, value)]
    return []


def longest(prepared: Prepared) -> Steps:
    """The steps of the longest training row of each column of unequal length."""
    return lengths(prepared, lambda own: int(own.max(initial=1)))


def typical(prepared: Prepared) -> Steps:
    """Their mean: rows of one batch are of about the same length."""
    return lengths(prepared, lambda own: int(np.ceil(own.mean())))


def lengths(prepared: Prepared, of: Callable[[Any], int]) -> Steps:
    rows = prepared.split["train"]
    return {
        name: max(1, of(column.lengths_of(rows)))
        for name, column in prepared.columns.items()
        if isinstance(column, Ragged)
    }


# Memory ---------------------------------------------------------------------------------------------------------------


def memory_parts(dry: DryStep, recipe: Recipe) -> dict[str, int]:
    """Bytes of tensors by part, at the moment of a step when most of them live."""
    kept = dry.weights if recipe.training.keep == "best" else 0
    averaged = dry.weights if recipe.training.average else 0
    return {
        "weights": dry.weights,
        "gradients": dry.gradients,
        "optimizer": dry.optimizer,
        "activations": dry.activations,
        "copies to undo a step and to average": dry.copies,
        "best weights": kept,
        "checkpoint being written": dry.weights + dry.optimizer + kept + averaged,
    }


def largest_batch(plan: Plan, dry: DryStep, room: int, others: int) -> int:
    """The most rows in a step whose tensors fit into ``room`` bytes beside ``others``.

    Activations grow in proportion to rows: a second dry step of half as many rows tells how much a row takes.
    """
    if dry.rows > 1:
        half = plan.dry(max(1, dry.rows // 2))
        a_row = (dry.activations - half.activations) / (dry.rows - half.rows)
    else:
        a_row = float(dry.activations)
    if a_row <= 0:
        return dry.rows
    fixed = others + dry.bytes - dry.activations
    base = dry.activations - a_row * dry.rows
    return max(0, int((room - fixed - base) / a_row))


# What changes it ------------------------------------------------------------------------------------------------------


def changes(plan: Plan, dry: DryStep, peak: int, seconds: float, rate: Callable[[str], float]) -> list[dict[str, Any]]:
    """The same with one thing changed: peak memory, and the time of training's steps by operations and their rate.

    ``peak`` and ``seconds`` are those of the recipe as it is; ``rate`` gives operations a second by precision.
    """
    rows, kind = dry.rows, dry.precision.name
    other = "fp32" if kind != "fp32" else "bf16"
    variants: list[tuple[str, Callable[[], DryStep | None]]] = [
        (f"precision {other}", lambda: plan.dry(precision=other)),
        ("recompute activations", lambda: None if (again := plan.recomputed()) is None else again.dry()),
        ("accumulate over 2 parts", lambda: plan.dry(micro_batch=-(-rows // 2)) if rows >= 2 else None),
        ("accumulate over 4 parts", lambda: plan.dry(micro_batch=-(-rows // 4)) if rows >= 4 else None),
        (f"batch of {rows // 2} rows", lambda: plan.dry(rows // 2) if rows >= 2 else None),
        (f"batch of {2 * rows} rows", lambda: plan.dry(2 * rows)),
    ]
    out = []
    cost = dry.step_flops / dry.rows / rate(kind)
    for name, make in variants:
        changed = make()
        if changed is None:
            continue
        now = changed.step_flops / changed.rows / rate(changed.precision.name)
        out.append(
            {
                "change": name,
                "peak_bytes": max(0, peak + changed.bytes - dry.bytes),
                "training_seconds": round(seconds * now / cost, 3) if cost else None,
            }
        )
    return out


def time_from_operations(plan: Plan, rate: float) -> tuple[float, float]:
    """Seconds of all steps: the least that the operations take at this rate, and at the efficiency that is stated."""
    dry = plan.dry(steps=plan.typical)
    least = plan.steps * dry.step_flops / rate
    return least, least / EFFICIENCY


def rates(device: torch.device) -> Callable[[str], float]:
    """Operations a second by precision, each measured when it is first asked for."""
    known: dict[str, float] = {}
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

    def rate(precision: str) -> float:
        if precision not in known:
            known[precision] = product_rate(device, kinds[precision])
        return known[precision]

    return rate


# Words ----------------------------------------------------------------------------------------------------------------


def layers_told(dry: DryStep) -> list[dict[str, Any]]:
    """Each layer: its name, kind, parameters, and operations of a row's way forward."""
    return [
        {
            "name": layer.name,
            "kind": layer.kind,
            "parameters": layer.parameters,
            "forward_flops_per_row": layer.forward_flops // dry.rows,
        }
        for layer in dry.layers
    ]


def energy(seconds: float, power: Power, price: float | None, carbon: float | None) -> dict[str, Any]:
    """Kilowatt-hours, and what they cost: ``price`` is an hour of the machine's, ``carbon`` grams a kilowatt-hour."""
    hours = seconds / 3600
    told: dict[str, Any] = {"watts": round(power.watts, 1), "model": power.reason}
    told["kilowatt_hours"] = round(hours * power.watts / 1000, 9)
    if price is not None:
        told["cost"] = round(hours * price, 6)
    if carbon is not None:
        told["carbon_grams"] = round(told["kilowatt_hours"] * carbon, 6)
    return told
