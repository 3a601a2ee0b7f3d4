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
from math import prod
from typing import Any, NamedTuple

import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch._subclasses.fake_tensor import UnsupportedOperatorException as Unsupported
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop, sdpa_flop

from ...columns import Column
from ...data.batches import Batch, ColumnBatch
from ...layers.recurrent import CellWeights, gru_step, rnn_step
from ...model import Model
from ...recipe import Recipe
from ...run import build_model
from ...training.guard import Guard
from ...training.loop import cuts
from ...training.optimizers import OPTIMIZERS, prime, state_tensors
from ...training.precision import Precision, choose_precision, count_multiplications
from .live import LiveBytes

__all__ = ["DryStep", "Layer", "blank_batch", "dry_step"]

CANNOT = (DataDependentOutputException, DynamicOutputShapeException, Unsupported, NotImplementedError)


@dataclass(frozen=True)
class Layer:
    """A module that has weights of its own, by its path, or one without that does operations."""

    name: str
    kind: str
    parameters: int
    forward_flops: int


@dataclass(frozen=True)
class DryStep:
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


def dry_step(
    recipe: Recipe,
    columns: Mapping[str, Column],
    rows: int,
    device: torch.device,
    *,
    steps: Mapping[str, int] | None = None,
    modules: Mapping[str, nn.Module] | None = None,
) -> DryStep:
    """Go through one step of ``rows`` rows; ``steps`` are the longest row's of columns of unequal length.

    ``modules`` are encoders that were passed in from Python. They are copied without their contents.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with torch.random.fork_rng(devices=[]), fake, AllSteps(), LiveBytes() as live:
        custom = {name: copy.deepcopy(module) for name, module in (modules or {}).items()}
        model = build_model(recipe, columns, custom)  # type: ignore[arg-type]
        weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
        optimizers = OPTIMIZERS[recipe.training.optimizer.name](model, **recipe.training.optimizer.keywords())
        prime(optimizers)
        state = sum(tensor.nbytes for tensor in state_tensors(optimizers).values())
        floating = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
        average = [tensor.clone() for tensor in floating] if recipe.training.average else []
        guard = Guard(model, optimizers, average)
        copies = sum(tensor.nbytes for tensor in (*average, *guard.copies))
        batch = model.weigh(blank_batch(columns, rows, steps))
        precision = choose_precision(
            recipe.training.precision, device, count_multiplications(model, lambda: model(batch))
        )
        before = live.now
        live.forget()
        micro = recipe.training.micro_batch or (1024 if recipe.training.optimizer.name == "gradient_descent" else rows)
        passed = through(model, batch, cuts(rows, min(micro, rows)), precision, live)
        for optimizer in optimizers:
            optimizer.step()
        gradients = sum(p.nbytes for p in model.parameters() if p.requires_grad)
        most = max(0, live.forget() - before - gradients)
        layers = layers_of(model, passed.by_layer)
    return DryStep(
        rows, precision, weights, gradients, state, copies, most, passed.saved,
        passed.by_layer[""], passed.step, layers, passed.whole,
    )  # fmt: skip


class Passed(NamedTuple):
    """Operations of the way forward by layer (of all under ``""``) and of the whole step; bytes that were saved."""

    by_layer: dict[str, int]
    step: int
    saved: int
    whole: bool


def through(model: Model, batch: Batch, parts: list[tuple[int, int]], precision: Precision, live: LiveBytes) -> Passed:
    """Forward and backward. Of a batch in several parts, two are gone through: gradients then live beside activations.

    What is counted is of the whole batch; what is saved, of the largest part.
    """
    done, total, saved, whole = 0, 0, 0, True
    by_layer: Counter[str] = Counter()
    for start, stop in parts[:2]:
        part = batch.part(start, stop)
        before = live.now
        with FlopCounterMode(display=False, custom_mapping=MORE) as counter:
            with precision.cast(torch.device("cpu")), flops_by_layer(model, counter, by_layer):
                try:
                    loss = model.loss(part)
                except CANNOT:
                    whole = False
                    loss = torch.stack([one.float().sum() for one in model(part).values()]).sum()
            forward = counter.get_total_flops()
            saved = max(saved, live.now - before)
            loss.backward()  # type: ignore[no-untyped-call]
        by_layer[""] += forward
        done, total = done + stop - start, total + counter.get_total_flops()
        del loss
    scaled = {name: count * len(batch) // done for name, count in by_layer.items()}
    return Passed(scaled, total * len(batch) // done, saved, whole)


@contextmanager
def flops_by_layer(model: nn.Module, counter: Any, found: Counter[str]) -> Iterator[None]:
    """Add up the operations of each module that has weights of its own, without those of such modules inside it."""
    before: list[int] = []

    def enter(module: nn.Module, given: Any) -> None:
        before.append(counter.get_total_flops())

    def leave(name: str, module: nn.Module, given: Any, out: Any) -> None:
        own = counter.get_total_flops() - before.pop()
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
    """torch works GRU and Elman's network through step by step, some dozen operations each. Here all steps of a layer
    are one step of as many rows: the same operations on the same numbers of numbers, in no time."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cell = CELLS.get(getattr(func, "__name__", ""))
        if cell is None or len(args) != 9:
            return func(*args, **(kwargs or {}))
        states, state, weights, _, layers, *_ = args  # as torch.nn.GRU calls it: one direction, batch first
        for layer in range(layers):
            own = CellWeights(*weights[4 * layer : 4 * layer + 4])
            before = torch.zeros(states.shape[:2].numel(), own.state.shape[1], requires_grad=True)
            states = cell(states.flatten(0, 1), before, own).view(*states.shape[:2], -1)
        return states, state


CELLS = {"gru": gru_step, "rnn_tanh": rnn_step}


# Operations that torch's counter does not know -----------------------------------------------------------------------


def recurrent_flop(x: Any, w_input: Any, w_state: Any, *others: Any, out_shape: Any = None, **named: Any) -> int:
    """A layer of LSTM in one kernel: steps [T, B, F], weights [4 D, F] and [4 D, D]."""
    return int(2 * prod(x[:2]) * (prod(w_input) + prod(w_state)))


def recurrent_backward_flop(*shapes: Any, out_shape: Any = None, **named: Any) -> int:
    return 2 * recurrent_flop(*shapes)


def attention_flop(query: Any, key: Any, value: Any, *others: Any, out_shape: Any = None, **named: Any) -> int:
    return int(sdpa_flop(query, key, value))


def attention_backward_flop(
    gradient: Any, query: Any, key: Any, value: Any, *others: Any, out_shape: Any = None, **named: Any
) -> int:
    return int(sdpa_backward_flop(gradient, query, key, value))


ATEN = torch.ops.aten
MORE: dict[Any, Any] = {
    ATEN.mkldnn_rnn_layer: recurrent_flop,
    ATEN.mkldnn_rnn_layer_backward: recurrent_backward_flop,
    ATEN._scaled_dot_product_flash_attention_for_cpu: attention_flop,
    ATEN._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward_flop,
}
