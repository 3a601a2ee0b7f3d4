"""From a recipe and prepared data to what training them takes: memory by part, time, energy, and what changes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ...columns import Column
from ...columns.column import Ragged
from ...data.prepare import Prepared
from ...recipe import Recipe
from .dry import Dry, StepCost
from .machine import Power, product_rate

__all__ = ["Plan", "activations_of", "changes", "largest_batch", "layers_told", "longest", "memory_parts", "typical"]

EFFICIENCY = 0.5  # of the rate of large matrix products that training reaches; see time_from_operations
PROGRAM_MEASURING = 150 << 20  # bytes of libraries that are loaded when metrics are first computed
PROGRAM_LATER = PROGRAM_MEASURING + (70 << 20)  # and of those that the first step of all loads
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

    @cached_property
    def model(self) -> Dry:
        return Dry(self.recipe, self.columns, self.device, self.modules)

    def dry(self, rows: int | None = None, *, steps: Steps | None = None, **changed: Any) -> StepCost:
        """A dry step of so many rows, of the longest ones unless ``steps`` say otherwise, perhaps with a change."""
        return self.model.step(rows or self.rows, steps or self.longest, **changed)


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


def memory_parts(dry: StepCost, recipe: Recipe) -> dict[str, int]:
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


def activations_of(dry: StepCost, half: StepCost) -> Callable[[int], int]:
    """Activations by rows in a step: they grow in proportion, as two dry steps tell."""
    a_row = (dry.activations - half.activations) / max(1, dry.rows - half.rows)
    return lambda rows: max(0, round(dry.activations + a_row * (rows - dry.rows)))


def largest_batch(dry: StepCost, activations: Callable[[int], int], room: int, others: int) -> int:
    """The most rows in a step whose tensors fit into ``room`` bytes beside ``others``."""
    room -= others + dry.bytes - dry.activations
    a_row = activations(2 * dry.rows) - activations(dry.rows)
    if a_row <= 0:
        return dry.rows
    return max(0, int(dry.rows + (room - dry.activations) * dry.rows / a_row))


# What changes it ------------------------------------------------------------------------------------------------------


def changes(
    plan: Plan,
    dry: StepCost,
    activations: Callable[[int], int],
    peak: int,
    seconds: float,
    rate: Callable[[str], float],
) -> list[dict[str, Any]]:
    """The same with one thing changed: peak memory, and the time of training's steps by operations and their rate.

    ``peak`` and ``seconds`` are those of the recipe as it is; ``rate`` gives operations a second by precision.
    """
    rows, kind = dry.rows, dry.precision.name
    other = "fp32" if kind != "fp32" else "bf16"
    changed = {f"precision {other}": plan.dry(precision=other)}
    if plan.model.can_recompute:
        changed["recompute activations"] = plan.dry(recompute=True)
    cost = dry.step_flops / rate(kind)
    out = [
        (
            name,
            one.bytes - dry.bytes,
            seconds * one.step_flops / rate(one.precision.name) / cost if cost else seconds,
        )
        for name, one in changed.items()
    ]
    # Operations are the same whatever the batch is cut into, and in an epoch whatever its size.
    part = plan.recipe.training.micro_batch or rows
    out += [
        # Of the second part what is saved lives beside all gradients of the first.
        (f"accumulate over {count} parts", dry.saved * -(-part // count) // part - dry.activations, seconds)
        for count in (2, 4)
        if part >= count
    ]
    out += [
        (f"batch of {size} rows", activations(size) - dry.activations, seconds)
        for size in (rows // 2, 2 * rows)
        if size and plan.recipe.training.optimizer.name != "gradient_descent"
    ]
    return [
        {"change": name, "peak_bytes": max(0, peak + more), "training_seconds": round(time, 3)}
        for name, more, time in out
    ]


def time_from_operations(plan: Plan, dry: StepCost, rate: float) -> tuple[float, float]:
    """Seconds of all steps: the least that the operations take at this rate, and at the efficiency that is stated."""
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


def layers_told(dry: StepCost) -> list[dict[str, Any]]:
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
