"""A dry step: one step of training on tensors that have shapes and no contents.

The model, the optimizers and the loop's own copies are built as training builds them, and a batch goes forward and
backward through them, in the precision of training; nothing is computed and no weight is allocated. What lives at each
moment, and how many operations each layer does, is counted on the way.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch._subclasses.fake_tensor import UnsupportedOperatorException as Unsupported
from torch.overrides import TorchFunctionMode

from ...columns import Column
from ...data.batches import Batch, ColumnBatch
from ...layers.recurrent import CellWeights, gru_step, lstm_step, rnn_step
from ...model import Model
from ...pretrained import fine_tune
from ...recipe import Recipe
from ...run import build_model
from ...training.guard import Guard
from ...training.loop import cuts
from ...training.optimizers import OPTIMIZERS, prime, state_tensors
from ...training.precision import Precision, choose_precision, count_multiplications
from .tally import Tally

__all__ = ["Dry", "Layer", "StepCost", "blank_batch", "layers_of", "through"]

CANNOT = (DataDependentOutputException, DynamicOutputShapeException, Unsupported, NotImplementedError)


@dataclass(frozen=True)
class Layer:
    """A module that has weights of its own, by its path, or one without that does operations."""

    name: str
    kind: str
    parameters: int
    forward_flops: int


@dataclass(frozen=True)
class StepCost:
    """What one step takes. Bytes but for ``rows``, ``layers`` and the floating-point operations of the whole batch.

    ``activations`` is what lives beside weights, gradients, optimizer and copies at the moment when most lives at all;
    ``saved`` what the forward pass leaves for the backward pass. ``copies`` are the loop's own: of averages, and of
    what a step that is not finite would spoil.
    """

    rows: int
    precision: Precision
    weights: int
    gradients: int
    optimizer: int
    copies: int
    activations: int
    saved: int
    forward_flops: int
    step_flops: int
    layers: list[Layer]
    whole: bool  # False: the loss cannot be followed, and the sum of the predictions stood for it

    @property
    def bytes(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.copies + self.activations

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)


def blank_batch(columns: Mapping[str, Column], rows: int, steps: Mapping[str, int] | None = None) -> Batch:
    """A batch that says nothing, in the stored form of each column.

    ``steps`` says of how many steps the longest row of a column is; else it is of the most that a row may have.
    """
    parts = {}
    for name, column in columns.items():
        values, mask = column.blank(rows)
        if mask is not None and steps and name in steps:
            values, mask = values[:, : steps[name]], mask[:, : steps[name]]
        parts[name] = ColumnBatch(values, mask)
    return Batch(parts, torch.arange(rows))


class Dry:
    """A model, its optimizers and the loop's own copies, all without contents; :meth:`step` goes through a step.

    Args:
        modules: encoders that were passed in from Python. They are copied without their contents.
    """

    def __init__(
        self,
        recipe: Recipe,
        columns: Mapping[str, Column],
        device: torch.device,
        modules: Mapping[str, nn.Module] | None = None,
    ) -> None:
        self.recipe, self.columns, self.device = recipe, columns, device
        self.fake, self.tally = FakeTensorMode(allow_non_fake_inputs=True), Tally()
        chosen = recipe.training.optimizer
        with self.entered():
            custom = {name: copy.deepcopy(module) for name, module in (modules or {}).items()}
            self.model = build_model(recipe, columns, custom)  # type: ignore[arg-type]
            fine_tune(recipe, self.model)
            self.weights = sum(tensor.nbytes for tensor in (*self.model.parameters(), *self.model.buffers()))
            self.gradients = sum(p.nbytes for p in self.model.parameters() if p.requires_grad)
            optimizers = OPTIMIZERS[chosen.name](self.model, **chosen.keywords())
            before = self.tally.now
            self.tally.forget()
            prime(optimizers)
            self.state = sum(tensor.nbytes for tensor in state_tensors(optimizers).values())
            self.update = self.tally.forget() - before - self.gradients - self.state  # what an update needs for itself
            floating = [tensor for tensor in self.model.state_dict().values() if tensor.is_floating_point()]
            average = [tensor.clone() for tensor in floating] if recipe.training.average else []
            self.guard = Guard(self.model, optimizers, average)
            self.copies = sum(tensor.nbytes for tensor in (*average, *self.guard.copies))

    @contextmanager
    def entered(self) -> Iterator[None]:
        with torch.random.fork_rng(devices=[]), self.fake, AllSteps(), self.tally:
            yield

    def step(
        self,
        rows: int,
        steps: Mapping[str, int] | None = None,
        *,
        precision: str | None = None,
        micro: int | None = None,
        recompute: bool = False,
    ) -> StepCost:
        """Go through one step of ``rows`` rows; ``steps`` are the longest row's of columns of unequal length.

        ``precision``, ``micro`` (rows at a time) and ``recompute`` stand in place of the recipe's.
        """
        training = self.recipe.training
        whole = training.optimizer.name == "gradient_descent"
        micro = micro or training.micro_batch or (1024 if whole else rows)
        with self.entered(), recomputing(self.model, recompute):
            batch = self.model.weigh(blank_batch(self.columns, rows, steps))
            chosen = self.precision(precision or training.precision, batch)
            before = self.tally.now
            self.tally.forget()
            passed = through(self.model, batch, cuts(rows, min(micro, rows)), chosen, self.tally)
            most = max(self.tally.forget() - before - self.gradients, self.update, 0)
            for parameter in self.model.parameters():
                parameter.grad = None
        layers = layers_of(self.model, passed.by_layer)
        return StepCost(
            rows, chosen, self.weights, self.gradients, self.state, self.copies, most, passed.saved,
            passed.by_layer[""], passed.step, layers, passed.whole,
        )  # fmt: skip

    def precision(self, asked: str, batch: Batch) -> Precision:
        work = count_multiplications(self.model, lambda: self.model(batch)) if asked == "auto" else 0
        return choose_precision(asked, self.device, work)

    @property
    def can_recompute(self) -> bool:
        """Whether there are blocks that keep activations and could do without."""
        return any(getattr(module, "recompute", True) is False for module in self.model.modules())


@contextmanager
def recomputing(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Have all blocks that can do so keep no activations, for a while."""
    changed = [one for one in model.modules() if wanted and getattr(one, "recompute", True) is False]
    for module in changed:
        module.recompute = True  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in changed:
            module.recompute = False  # type: ignore[assignment]


class Passed(NamedTuple):
    """Operations of the way forward by layer (of all under ``""``) and of the whole step; bytes that were saved."""

    by_layer: dict[str, int]
    step: int
    saved: int
    whole: bool


def through(model: Model, batch: Batch, parts: list[tuple[int, int]], precision: Precision, tally: Tally) -> Passed:
    """Forward and backward. Of a batch in several parts, two are gone through: gradients then live beside activations.

    What is counted is of the whole batch; what is saved, of the largest part.
    """
    done, saved, whole, start_flops = 0, 0, True, tally.flops
    by_layer: Counter[str] = Counter()
    for start, stop in parts[:2]:
        part = batch.part(start, stop)
        before, flops = tally.now, tally.flops
        with precision.cast(batch.rows.device), flops_by_layer(model, tally, by_layer):
            try:
                loss = model.loss(part)
            except CANNOT:
                whole = False
                loss = torch.stack([one.float().sum() for one in model(part).values()]).sum()
        by_layer[""] += tally.flops - flops
        saved = max(saved, tally.now - before)
        loss.backward()  # type: ignore[no-untyped-call]
        done += stop - start
        del loss
    scaled = {name: count * len(batch) // done for name, count in by_layer.items()}
    return Passed(scaled, (tally.flops - start_flops) * len(batch) // done, saved, whole)


@contextmanager
def flops_by_layer(model: nn.Module, tally: Tally, found: Counter[str]) -> Iterator[None]:
    """Add up the operations of each module that has weights of its own, without those of such modules inside it."""
    before: list[int] = []

    def enter(module: nn.Module, given: Any) -> None:
        before.append(tally.flops)

    def leave(name: str, module: nn.Module, given: Any, out: Any) -> None:
        own = tally.flops - before.pop()
        found[name] += own
        if before:  # it is no work of the module around it
            before[-1] += own

    handles = []
    for name, module in model.named_modules():
        if any(True for _ in module.parameters(recurse=False)):
            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(partial(leave, name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def layers_of(model: Model, flops: Mapping[str, int]) -> list[Layer]:
    """The modules that have weights of their own, each weight once, in the order of the model."""
    seen: set[int] = set()
    layers = []
    for name, module in model.named_modules():
        own = [p for p in module.parameters(recurse=False) if id(p) not in seen]
        seen |= {id(p) for p in own}
        if own:
            layers.append(Layer(name, type(module).__name__, sum(p.numel() for p in own), flops.get(name, 0)))
    return layers


# Recurrent layers, all steps at once ---------------------------------------------------------------------------------


class AllSteps(TorchFunctionMode):
    """torch works GRU and Elman's network through step by step, some dozen operations each, and does not say what its
    kernel for LSTM keeps. Here all steps of a layer are one step of as many rows: the same operations on as many
    numbers, in no time."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cell = CELLS.get(getattr(func, "__name__", ""))
        if cell is None or len(args) != 9:
            return func(*args, **(kwargs or {}))
        states, state, weights, _, layers, *_ = args  # as torch.nn.GRU calls it: one direction, batch first
        for layer in range(layers):
            own = CellWeights(*weights[4 * layer : 4 * layer + 4])
            before = torch.zeros(states.shape[:2].numel(), own.state.shape[1], requires_grad=True)
            states = cell(states.flatten(0, 1), before, own).view(*states.shape[:2], -1)
        return (states, *state) if isinstance(state, tuple) else (states, state)


def lstm_cell(x_BF: Tensor, h_BD: Tensor, weights: CellWeights) -> Tensor:
    """Both states start from the same numbers. Beside its results the CPU's kernel keeps a workspace for the way back,
    whose size was found by trying widths and numbers of features (torch 2.13): right to about a tenth."""
    width = -(-h_BD.shape[1] // 16) * 16
    out = lstm_step(x_BF, h_BD, h_BD, weights)[0]
    if out.grad_fn is not None:  # there is a way back, and it is kept until the graph is let go
        workspace = torch.zeros(len(x_BF), 6 * max(x_BF.shape[1], width) + 4 * width)
        out.grad_fn.metadata["workspace"] = workspace  # type: ignore[index]
    return out


CELLS = {"gru": gru_step, "lstm": lstm_cell, "rnn_tanh": rnn_step}
