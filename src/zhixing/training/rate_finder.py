"""A range test for the learning rate (Smith, "Cyclical learning rates", 2017)."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from ..data.batches import Batches, Order
from ..model import Model
from .loop import Hooks, Loop, Options
from .optimizers import OPTIMIZERS
from .precision import Precision
from .schedules import Schedule

__all__ = ["find_rate"]

STEPS, LOWEST, HIGHEST = 120, 1e-6, 3.0


class Rising(Schedule):
    """From the lowest rate to the highest by equal factors."""

    def __init__(self) -> None:
        super().__init__(0.0)

    def after(self, progress: float) -> float:
        return float(LOWEST * (HIGHEST / LOWEST) ** progress)


def find_rate(
    model: Model,
    settings: Any,
    batches: Batches,
    order: Order,
    precision: Precision,
    *,
    seed: int,
    augment: Any,
    micro_batch: int | None = None,
) -> float:
    """The rate at which the loss falls fastest, on a copy of the model, as the rate rises.

    The loss is smoothed; the test ends where it is four times its least. The answer is a function of the seed.
    """
    trial = copy.deepcopy(model)
    optimizers = OPTIMIZERS[settings.name](trial, **{**settings.keywords(), "lr": 1.0})
    rates, losses = [], []

    def record(line: dict[str, Any]) -> int:
        rates.append(line["lr"])
        losses.append(line["loss"] if line["loss"] is not None else float("inf"))
        return 0

    def diverged() -> bool:
        return bool(losses) and losses[-1] > 4 * min(losses)

    hooks = Hooks(augment=augment, record=record, stop=diverged)
    options = Options(
        STEPS, STEPS + 1, log_every=1, micro_batch=micro_batch, keep_best=False, non_finite_limit=STEPS + 1
    )
    Loop(trial, optimizers, Rising(), batches, order, options, precision, seed=seed, hooks=hooks).run()
    return steepest(np.array(rates), np.array(losses))


def steepest(rates: np.ndarray[Any, Any], losses: np.ndarray[Any, Any], smooth: float = 0.9) -> float:
    """Where the smoothed loss falls fastest over the logarithm of the rate, before its least value."""
    finite = np.isfinite(losses)
    rates, losses = rates[finite], losses[finite]
    if len(losses) < 10:
        return 1e-3
    mean, curve = 0.0, []
    for count, loss in enumerate(losses, 1):
        mean = smooth * mean + (1 - smooth) * loss
        curve.append(mean / (1 - smooth**count))
    least = int(np.argmin(curve))
    slope = np.gradient(np.array(curve), np.log(rates))[: max(2, least)]
    return float(rates[int(np.argmin(slope))])
