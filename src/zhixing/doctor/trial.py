"""Short instrumented training runs, with the same model, loop and settings as the real one.

Nothing is written anywhere, and the model that is handed in is the only thing that changes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..columns.augment import AUGMENTS
from ..columns.column import Ragged
from ..data.batches import Batch, Batches, ColumnBatch, Order
from ..errors import TrainingError
from ..model import Model
from ..training.loop import Hooks, Loop, Options
from ..training.optimizers import OPTIMIZERS
from ..training.precision import Precision
from ..training.rate_finder import Rising, steepest
from ..training.schedules import SCHEDULES
from ..training.surroundings import reproducible

if TYPE_CHECKING:
    from .case import Case

__all__ = ["Trial", "batch_for", "evaluated", "mean_loss", "run_trial"]

STEPS, ROWS, BATCH, SECONDS = 48, 4096, 64, 10.0  # of a trial: at most so many of each
TOKENS = 8192  # of a step, at most
EXACT = Precision("fp32", "short runs are computed in float32")


@dataclass
class Trial:
    """What a short run has shown.

    ``losses`` and ``rates`` are of each step, None where a loss was not finite. Where the run was watched,
    ``gradients`` and ``weights`` hold the norms of each parameter at each step by name, and ``updates`` the norm of
    its change. ``error`` is what stopped it, in torch's words.
    """

    model: Model
    losses: list[float | None] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    gradients: dict[str, list[float]] = field(default_factory=dict)
    weights: dict[str, list[float]] = field(default_factory=dict)
    updates: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    waited: float = 0.0
    augmenting: float = 0.0
    error: str = ""

    @property
    def finite(self) -> list[float]:
        return [loss for loss in self.losses if loss is not None]

    @property
    def skipped(self) -> int:
        """Steps whose loss or gradients were not finite."""
        return len(self.losses) - len(self.finite)

    def start(self, steps: int = 3) -> float:
        return float(np.mean(self.finite[:steps])) if self.finite else float("inf")

    def end(self, steps: int = 8) -> float:
        return float(np.mean(self.finite[-steps:])) if self.finite else float("inf")

    @property
    def steepest_rate(self) -> float:
        losses = np.array([np.inf if loss is None else loss for loss in self.losses])
        return steepest(np.array(self.rates), losses)


def batch_for(case: Case, rows: NDArray[np.int64]) -> int:
    """Rows of a step of a short run: the recipe's batch size up to 64, less where there are few rows, or where rows
    are so long that a step would take seconds."""
    longest = 1
    for name, stored in case.packed.columns.items():
        if isinstance(stored, Ragged):
            steps = case.columns[name].steps_of(stored.lengths_of(case.some(rows, 500)))
            longest = max(longest, int(np.median(steps)))
    most = min(BATCH, max(8, TOKENS // longest), max(len(rows) // 4, min(len(rows), 16)))
    return max(1, min(case.recipe.training.batch_size, most))


def run_trial(
    case: Case,
    model: Model,
    *,
    steps: int = STEPS,
    rows: NDArray[np.int64] | None = None,
    batch_size: int | None = None,
    rate: float | None = None,
    rising: bool = False,
    plain: bool = False,
    augment: bool = True,
    watch: bool = False,
    seconds: float = SECONDS,
) -> Trial:
    """Train ``model`` for a few steps on some training rows, as the recipe says.

    ``rate`` replaces the recipe's learning rate; ``rising`` lets it rise from almost nothing (a range test); ``plain``
    is AdamW at a constant rate without clipping, whatever the recipe says. After so many ``seconds`` it stops.
    """
    rows = case.learned("train", ROWS) if rows is None else rows
    training, batches = case.recipe.training, Batches(case.packed.columns, case.device)
    order = Order(rows, batch_size or batch_for(case, rows), seed=case.recipe.seed, lengths=batches.lengths(rows))
    trial, change = Trial(model), make_change(case) if augment else None
    started = time.perf_counter()
    watcher = Watcher(trial) if watch else None

    def before_step(batch: Batch, step: int) -> Batch:
        if watcher is not None:
            watcher.between_steps()
        since = time.perf_counter()
        batch = batch if change is None else change(batch, step)
        trial.augmenting += time.perf_counter() - since
        return batch

    def record(line: dict[str, Any]) -> int:
        trial.losses.append(line["loss"])
        trial.rates.append(line["lr"])
        return 0

    def enough() -> bool:
        if rising and trial.finite and trial.finite[-1] > 4 * min(trial.finite):
            return True
        return time.perf_counter() - started > seconds

    hooks = Hooks(augment=before_step, record=record, stop=enough)
    options = Options(
        steps, steps + 1, log_every=1, micro_batch=training.micro_batch, keep_best=False,
        clip=None if plain else training.clip, l1=0.0 if plain else training.l1, non_finite_limit=steps + 1,
    )  # fmt: skip
    with reproducible(training.threads):
        try:
            optimizers = make_optimizers(case, model, 1.0 if rising else rate, plain)
            schedule = SCHEDULES[training.schedule.name](**training.schedule.keywords())
            if rising or plain:
                schedule = Rising() if rising else SCHEDULES["constant"]()  # type: ignore[call-arg]
            Loop(model, optimizers, schedule, batches, order, options, EXACT, seed=case.recipe.seed, hooks=hooks).run()
        except (RuntimeError, ValueError, IndexError, TypeError, TrainingError) as error:  # a model that cannot run
            trial.error = " ".join(str(error).split())[:300] or type(error).__name__
    if watcher is not None:
        watcher.between_steps()
        watcher.close()
    trial.seconds, trial.waited = time.perf_counter() - started, batches.waited
    return trial


def make_optimizers(case: Case, model: Model, rate: float | None, plain: bool) -> list[torch.optim.Optimizer]:
    if plain:
        return OPTIMIZERS["adamw"](model, lr=rate or 3e-3)
    settings = case.recipe.training.optimizer
    keywords = settings.keywords()
    if rate is None and keywords["lr"] == "find":
        rate = case.found_rate.steepest_rate
    return OPTIMIZERS[settings.name](model, **(keywords if rate is None else {**keywords, "lr": rate}))


def make_change(case: Case) -> Any:
    """The recipe's augmentation of whole batches, or None. Blended rows are left to the real run."""
    changes = {}
    for name, settings in case.recipe.inputs.items():
        choice = getattr(settings, "augment", None)
        if choice is not None:
            change = AUGMENTS[settings.type][choice.name](**choice.keywords())
            if change.active and not change.mixes:
                changes[name] = change

    def apply(batch: Batch, step: int) -> Batch:
        for name, change in changes.items():
            values, mask = batch.columns[name]
            if mask is not None:
                batch.columns[name] = ColumnBatch(*change(values, mask, batch.rows, case.recipe.seed, step))
            else:
                batch.columns[name] = ColumnBatch(change(values, batch.rows, case.recipe.seed, step)[0])
        return batch

    return apply if changes else None


class Watcher:
    """Norms of every parameter, its gradient and its change in each step, by name, into a :class:`Trial`."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.parameters = {name: p for name, p in trial.model.named_parameters() if p.requires_grad}
        self.before: dict[str, Tensor] = {}
        self.squares: dict[str, Tensor] = {}  # of the gradient of the step at hand
        self.handles = [
            p.register_post_accumulate_grad_hook(partial(self.see, name))  # type: ignore[no-untyped-call]
            for name, p in self.parameters.items()
        ]
        for table in (trial.gradients, trial.weights, trial.updates):
            table.update({name: [] for name in self.parameters})

    def see(self, name: str, parameter: Tensor) -> None:
        # Parts of a batch add up in the gradient, so that the last one seen is the whole.
        assert parameter.grad is not None
        self.squares[name] = parameter.grad.detach().norm()

    def between_steps(self) -> None:
        """Once before the first step and once after each."""
        if self.before:
            for name, parameter in self.parameters.items():
                self.trial.gradients[name].append(float(self.squares.get(name, torch.zeros(()))))
                self.trial.weights[name].append(float(self.before[name].norm()))
                self.trial.updates[name].append(float((parameter.detach() - self.before[name]).norm()))
        self.squares = {}
        self.before = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()


def evaluated(case: Case, model: Model, rows: NDArray[np.int64]) -> Iterator[tuple[Batch, dict[str, Tensor]]]:
    """Batches of rows and the model's predictions of them, in evaluation mode."""
    was = [module.training for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(rows), 64):
                batch = case.batches.gather(rows[start : start + 64])
                yield batch, model(batch)
    finally:
        for module, training in zip(model.modules(), was, strict=True):
            module.training = training


def mean_loss(case: Case, model: Model, rows: NDArray[np.int64]) -> float:
    """The loss of rows that have a target, in evaluation mode, every row counting the same."""
    total, count = 0.0, 0
    for batch, predictions in evaluated(case, model, rows):
        for name in model.outputs:
            losses = model.head(name).loss(predictions[name].float(), batch.columns[name].values)
            mask = batch.columns[name].mask
            real = torch.ones(len(batch), dtype=torch.bool, device=losses.device) if mask is None else mask
            real = real.any(1) if real.ndim > 1 else real
            total += model.importance[name] * float(losses[real].sum())
        count += len(batch)
    return total / max(1, count)


def leaves(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules():
        if name and not any(True for _ in module.children()):
            yield name, module
