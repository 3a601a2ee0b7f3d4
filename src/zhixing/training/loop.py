"""The training loop: the only one. It knows nothing of columns or tasks.

``Loop.run`` reads in the order in which things happen: batch, forward, backward, clip, step, schedule, measure,
evaluate, save. Nothing in a step asks the device for a value; losses and flags are collected on it and read every
``log_every`` steps. All randomness of a step is a function of (seed, step), so that a run goes on from a checkpoint to
the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..data.batches import Batch, Batches, Order
from ..errors import CheckpointError, TrainingError
from ..model import Model
from ..randomness import reseed
from .checkpoint import Checkpoint, Writer, snapshot
from .compiled import Compiled, typical_steps
from .guard import Guard, name_culprit
from .optimizers import load_state_tensors, prime, state_tensors
from .precision import Precision
from .replay import Replay
from .schedules import Schedule

__all__ = ["Loop", "Options", "Progress", "Validation"]

CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True)
class Options:
    """What the loop does beside the step itself. Steps count batches, not parts of them."""

    total_steps: int
    validate_every: int
    log_every: int = 50
    checkpoint_every: int | None = None
    micro_batch: int | None = None
    clip: float | None = None
    l1: float = 0.0
    average: float | None = None
    patience: int | None = None
    min_delta: float = 0.0
    keep_best: bool = True
    compile: bool = False
    replay: bool = False  # where it pays; nobody is to hook modules of the model meanwhile
    non_finite_limit: int = 5
    constant: frozenset[str] = frozenset()  # names of tensors that never change and that a resumed run brings along


@dataclass(frozen=True)
class Validation:
    """A look at rows that are not trained on. ``score`` is what a model is chosen by: more is better."""

    loss: float
    score: float
    metrics: dict[str, dict[str, float]]


@dataclass
class Progress:
    """Where a run stands; with the tensors, all that a checkpoint holds."""

    step: int = 0
    skipped: int = 0
    streak: int = 0
    micro_batch: int | None = None
    best_score: float | None = None
    best_step: int = 0
    stale: int = 0
    stopped_early: bool = False
    schedule: dict[str, float] = field(default_factory=dict)
    log_bytes: int = 0


@dataclass
class Hooks:
    """Where the loop tells of what it does. Each is called at the point that its name says."""

    augment: Callable[[Batch, int], Batch] = lambda batch, step: batch
    validate: Callable[[], Validation | None] = lambda: None
    record: Callable[[dict[str, Any]], int] = lambda line: 0  # returns the bytes of the log so far
    timing: Callable[[dict[str, Any]], None] = lambda line: None
    message: Callable[[str], None] = lambda text: None
    stop: Callable[[], bool] = lambda: False


class Loop:
    """A model, what changes it, and where it stands.

    Example::

        loop = Loop(model, optimizers, schedule, batches, order, Options(1000, 100), precision, seed=0)
        loop.run()
    """

    def __init__(
        self,
        model: Model,
        optimizers: list[Optimizer],
        schedule: Schedule,
        batches: Batches,
        order: Order,
        options: Options,
        precision: Precision,
        *,
        seed: int = 0,
        hooks: Hooks | None = None,
        writer: Writer | None = None,
    ) -> None:
        self.model, self.optimizers, self.schedule = model, optimizers, schedule
        self.batches, self.order, self.options, self.precision = batches, order, options, precision
        self.seed, self.hooks, self.writer = seed, hooks or Hooks(), writer
        self.device = batches.device
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.base_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
        self.progress = Progress(micro_batch=options.micro_batch)
        # Aliases of all that is averaged: weights and running statistics.
        self.live = {name: t for name, t in self.changing().items() if t.is_floating_point()}
        self.average = {name: t.clone() for name, t in self.live.items()} if options.average else {}
        self.best: dict[str, Tensor] = {}
        prime(optimizers)
        self.guard = Guard(model, optimizers, list(self.average.values()))
        self.losses = torch.zeros(options.log_every, device=self.device)
        self.flags = torch.zeros(options.log_every, device=self.device)
        self.scale = torch.tensor(2.0**12, device=self.device) if precision.name == "fp16" else None
        self.growth = torch.zeros((), dtype=torch.int32, device=self.device)
        self.loss_of: Callable[[Batch], Tensor] = (
            Compiled(model, self.typical, ragged=batches.ragged) if options.compile else model.loss
        )
        self.replay: Callable[[Batch], Tensor] | None = None
        if options.replay and self.device.type == "cpu" and self.scale is None and Replay.takes(model):
            self.replay = Replay(model, self.parameters, precision, self.forward_backward)
        self.last_log = self.last_save = self.began = time.perf_counter()
        self.last_waited, self.last_step = 0.0, 0

    # The loop -------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train from where the run stands to its last step, to an early stop, or until asked to stop."""
        options, progress = self.options, self.progress
        self.began = self.last_log = self.last_save = time.perf_counter()
        self.last_step = progress.step
        if progress.stopped_early:  # killed after its early stop, before its last files were written
            return
        self.model.train()
        for batch in self.batches.stream(self.order, progress.step, options.total_steps):
            # batch
            batch = self.model.weigh(self.hooks.augment(batch, progress.step))

            # forward and backward
            self.guard.before()
            loss = self.gradients(batch)
            gradients = [grad for p in self.parameters if (grad := p.grad) is not None]
            self.guard.check(loss, gradients, None if self.scale is None else self.scale.reciprocal())
            if options.l1:
                self.add_l1(options.l1)

            # clip
            if options.clip:
                torch.nn.utils.clip_grad_norm_(self.parameters, options.clip, foreach=True)

            # schedule and step
            rate = self.set_rate(progress.step)
            for optimizer in self.optimizers:
                optimizer.step()
            if options.average:
                self.update_average(options.average)
            self.guard.after()
            if self.scale is not None:
                torch._amp_update_scale_(self.scale, self.growth, self.guard.found, 2.0, 0.5, 2000)

            # measure
            slot = progress.step % options.log_every
            self.losses[slot].copy_(loss)
            self.flags[slot].copy_(self.guard.found)
            progress.step += 1
            last = progress.step == options.total_steps
            if slot + 1 == options.log_every or last:
                self.log(slot + 1, rate)

            # evaluate
            if progress.step % options.validate_every == 0 or last:
                self.validate()

            # save
            stop = self.hooks.stop() or progress.stopped_early
            if last or stop or self.save_is_due():
                self.save(wait=last or stop)
            if stop:
                break

    # Its parts, in the order of their use ---------------------------------------------------------------------------

    def gradients(self, batch: Batch) -> Tensor:
        """Gradients of the whole batch's loss. When memory runs out, the same step is tried again in smaller parts."""
        while True:
            try:
                return self.accumulate(batch)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
            self.shrink(len(batch))

    def accumulate(self, batch: Batch) -> Tensor:
        """Add up the gradients of its parts; gives the loss of the whole batch."""
        for parameter in self.parameters:
            parameter.grad = None
        total: Tensor | None = None
        for start, part in self.parts(batch):
            reseed(self.device, self.seed, self.progress.step, start)
            loss = self.forward_backward(part) if self.replay is None or part is not batch else self.replay(part)
            total = loss if total is None else total + loss
        assert total is not None
        return total

    def forward_backward(self, batch: Batch) -> Tensor:
        """Add to the gradients of each parameter; gives the loss."""
        with self.precision.cast(self.device):
            loss = self.loss_of(batch)
        (loss if self.scale is None else loss * self.scale).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def parts(self, batch: Batch) -> Iterator[tuple[int, Batch]]:
        """What is gone through at once, and the row it begins at."""
        for start, stop in cuts(len(batch), self.progress.micro_batch or len(batch)):
            yield start, batch if stop - start == len(batch) else batch.part(start, stop)

    def typical(self) -> Iterator[Batch]:
        """Parts of batches to compile for: one of each size, or one alone where sizes are taken for unknown."""
        for step in typical_steps(self.order, self.batches):
            parts = {len(part): part for _, part in self.parts(self.batch_at(step, self.progress.step))}
            yield from list(parts.values())[: 1 if self.batches.ragged else None]

    def batch_at(self, step: int, moment: int) -> Batch:
        """The batch of a step's rows, changed as in another step."""
        return self.model.weigh(self.hooks.augment(self.batches.gather(self.order.at(step)), moment))

    def shrink(self, rows: int) -> None:
        """After running out of memory: halve the micro-batch and put back what the failed try has changed."""
        micro = min(self.progress.micro_batch or rows, rows)
        if micro == 1:
            raise TrainingError(
                "memory runs out with a single row at a time",
                place=f"step {self.progress.step}",
                mend="Take smaller inputs or a smaller model.",
            )
        for parameter in self.parameters:
            parameter.grad = None
        self.guard.undo()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.progress.micro_batch = (micro + 1) // 2
        if isinstance(self.loss_of, Compiled):
            self.loss_of.anew()
        self.hooks.message(
            f"memory ran out at step {self.progress.step}: batches are now worked through in parts of "
            f"{self.progress.micro_batch} rows; the batch size is the same"
        )

    def add_l1(self, strength: float) -> None:
        weights = [p for p in self.parameters if p.grad is not None and p.ndim >= 2]
        gradients = [p.grad for p in weights if p.grad is not None]
        torch._foreach_add_(gradients, torch._foreach_sign([p.detach() for p in weights]), alpha=strength)

    def set_rate(self, step: int) -> float:
        """Set each group's learning rate for this step; gives the first group's."""
        # Progress is that of the step to be taken, so that with warm-up the first rate is not zero.
        factor = self.schedule.factor((step + 1) / (self.options.total_steps + 1))
        for optimizer, rates in zip(self.optimizers, self.base_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        return float(self.base_rates[0][0] * factor)

    def update_average(self, decay: float) -> None:
        """Exponential moving average of weights and running statistics, faster at first (as in Adam's correction)."""
        step = self.progress.step
        weight = 1 - min(decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.values()), list(self.live.values()), weight)

    def log(self, count: int, rate: float) -> None:
        """Read the losses since the last time: the only place where training waits for the device."""
        progress, now = self.progress, time.perf_counter()
        flags = self.flags[:count].tolist()
        good = [loss for loss, flag in zip(self.losses[:count].tolist(), flags, strict=True) if not flag]
        epoch = round(progress.step / self.order.steps_per_epoch, 6)
        mean = sum(good) / len(good) if good else None
        progress.skipped += int(sum(flags))
        line = {"kind": "train", "step": progress.step, "epoch": epoch, "loss": mean, "lr": rate}
        progress.log_bytes = self.hooks.record(line | {"skipped": progress.skipped})
        waited = self.batches.waited - self.last_waited
        span = max(now - self.last_log, 1e-9)
        steps = progress.step - self.last_step
        rows = steps * len(self.order.rows) / self.order.steps_per_epoch
        timing = {
            "step": progress.step,
            "seconds": round(now - self.began, 4),
            "rows_per_second": round(rows / span, 1),
            "waiting": round(waited / span, 4),
        }
        if self.batches.steps:
            timing["padding"] = round(self.batches.padding / self.batches.steps, 4)
        self.hooks.timing(timing)
        self.last_log, self.last_waited, self.last_step = now, self.batches.waited, progress.step
        self.check_streak(flags)

    def check_streak(self, flags: list[float]) -> None:
        progress = self.progress
        limit = self.options.non_finite_limit * (4 if self.scale is not None else 1)  # fp16 searches for its scale
        for place, flag in enumerate(flags):
            progress.streak = progress.streak + 1 if flag else 0
            if progress.streak >= limit:
                step = progress.step - len(flags) + place
                culprit = name_culprit(self.model, self.again(step))
                raise TrainingError(
                    f"{limit} steps in a row were not finite: {culprit}",
                    place=f"step {step}",
                    mend="Lower the learning rate, clip gradients (training.clip=1), or look for extreme values.",
                )
        bad = int(sum(flags))
        if bad:
            self.hooks.message(f"{bad} step(s) up to {progress.step} were not finite and were skipped")

    def again(self, step: int) -> Iterator[Tensor]:
        """The losses of the parts of one step's batch, computed once more with the same random numbers."""
        batch = self.batch_at(step, step)
        for start, part in self.parts(batch):
            reseed(self.device, self.seed, step, start)
            with self.precision.cast(self.device):
                yield self.model.loss(part)

    def validate(self) -> None:
        """Measure on rows that are not trained on, with the averaged weights where there are such."""
        progress, options, began = self.progress, self.options, time.perf_counter()
        if options.average:
            self.swap_average()
        self.model.eval()
        seen = self.hooks.validate()
        if seen is not None:
            better = progress.best_score is None or seen.score > progress.best_score + options.min_delta
            progress.stale = 0 if better else progress.stale + 1
            if better:
                progress.best_score, progress.best_step = seen.score, progress.step
                if options.keep_best:
                    self.best = {name: t.detach().clone() for name, t in self.changing().items()}
            self.schedule.observe(better)
            epoch = round(progress.step / self.order.steps_per_epoch, 6)
            line = {"kind": "validation", "step": progress.step, "epoch": epoch, "loss": seen.loss}
            progress.log_bytes = self.hooks.record(line | {"metrics": seen.metrics})
            progress.stopped_early = options.patience is not None and progress.stale >= options.patience
        if options.average:
            self.swap_average()
        self.model.train()
        self.last_log += time.perf_counter() - began  # the speed of training leaves validation out

    def swap_average(self) -> None:
        for tensor, mean in zip(self.live.values(), self.average.values(), strict=True):
            kept = tensor.clone()
            tensor.copy_(mean)
            mean.copy_(kept)

    # Checkpoints ----------------------------------------------------------------------------------------------------

    def save_is_due(self) -> bool:
        if self.writer is None or self.writer.busy:
            return False
        self.writer.check()
        every = self.options.checkpoint_every
        if every is not None:
            return self.progress.step % every == 0
        return time.perf_counter() - self.last_save > CHECKPOINT_SECONDS

    def save(self, *, wait: bool = False) -> None:
        """Begin to write a checkpoint; with ``wait``, come back when it is on disk."""
        if self.writer is None:
            return
        if wait:
            self.writer.finish()
        self.last_save = time.perf_counter()
        self.writer.write(self.checkpoint())
        if wait:
            self.writer.finish()

    def changing(self) -> dict[str, Tensor]:
        """The model's tensors but those that never change."""
        return {name: t for name, t in self.model.state_dict().items() if name not in self.options.constant}

    def own_tensors(self) -> dict[str, Tensor]:
        scale = {} if self.scale is None else {"scale": self.scale}
        return {"losses": self.losses, "flags": self.flags, "growth": self.growth, **scale}

    def checkpoint(self) -> Checkpoint:
        """All that the run needs to go on to the same bits, copied."""
        self.progress.schedule = self.schedule.state()
        groups = {
            "model": self.changing(),
            "optimizer": state_tensors(self.optimizers),
            "average": self.average,
            "best": self.best,
            "loop": self.own_tensors(),
        }
        tensors = {name: snapshot(group) for name, group in groups.items() if group}
        state = {"progress": vars(self.progress).copy(), "seed": self.seed, "random": [self.seed, self.progress.step]}
        return Checkpoint(self.progress.step, tensors, state)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take up a checkpoint of the same run.

        Raises:
            CheckpointError: it is of a run with other settings. The loop is of no use afterwards.
        """
        tensors, loop = checkpoint.tensors, self.own_tensors()
        try:
            if checkpoint.state["seed"] != self.seed:
                raise ValueError(f"its seed is {checkpoint.state['seed']}, the recipe's {self.seed}")
            self.progress = Progress(**checkpoint.state["progress"])
            own = self.model.state_dict()
            self.model.load_state_dict({name: own[name] for name in self.options.constant} | tensors["model"])
            load_state_tensors(self.optimizers, tensors.get("optimizer", {}))
            put_back(self.average, tensors.get("average", {}))
            put_back(loop, tensors["loop"])
            self.schedule.load_state(self.progress.schedule)
        except (KeyError, IndexError, ValueError, TypeError, RuntimeError, AssertionError) as error:
            raise CheckpointError(
                f"the checkpoint of step {checkpoint.step} does not fit the run's settings: {error}",
                mend="Restore the run's recipe.yaml as it was, or start a new run with the changed one.",
            ) from error
        self.best = {name: tensor.to(self.device) for name, tensor in tensors.get("best", {}).items()}

    def chosen_weights(self) -> dict[str, Tensor]:
        """The weights to keep: the best validated ones, else the averaged, else the last."""
        return dict(self.model.state_dict()) | (self.best or self.average)


def cuts(rows: int, most: int) -> list[tuple[int, int]]:
    """Where a batch is cut into parts of at most so many rows. Sizes differ by one at most: a small last part would
    be hard on batch normalisation, and a single row too little for it.

    >>> cuts(17, 8)
    [(0, 5), (5, 11), (11, 17)]
    """
    parts = -(-rows // most)
    edges = [rows * place // parts for place in range(parts + 1)]
    return list(pairwise(edges))


def put_back(tensors: dict[str, Tensor], kept: dict[str, Tensor]) -> None:
    if tensors.keys() != kept.keys():
        raise ValueError(f"it lacks or has besides: {', '.join(sorted(tensors.keys() ^ kept.keys()))}")
    for name, tensor in tensors.items():
        tensor.copy_(kept[name])


def out_of_memory(error: RuntimeError) -> bool:
    """Whether this is the device, or the CPU's allocator, saying that memory has run out."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error)
    return "DefaultCPUAllocator" in text or "out of memory" in text.lower()
