"""A step that is not finite leaves no trace; several in a row end the training with the layer named."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
import torch
from conftest import Bench, same_bits
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from zhixing.data.batches import Batch, ColumnBatch
from zhixing.errors import TrainingError
from zhixing.training import optimizers
from zhixing.training.loop import Hooks, Loop
from zhixing.training.optimizers import OPTIMIZERS

Everything = Callable[[Loop], dict[str, Tensor]]
SETTINGS: dict[str, dict[str, Any]] = {name: {"weight_decay": 0.05} for name in OPTIMIZERS} | {
    "sgd": {"weight_decay": 0.05, "momentum": 0.9, "nesterov": True},
    "rmsprop": {"weight_decay": 0.05, "momentum": 0.5},
}


def spoil(batch: Batch, value: float) -> Batch:
    pictures = batch.columns["picture"].values.float()
    pictures[0, 0, 3, 3] = value
    batch.columns["picture"] = ColumnBatch(pictures)
    return batch


def injected(loop: Loop, kind: str, bad: Callable[[int], bool]) -> None:
    """Make the steps for which ``bad`` is true go wrong in one of several ways."""
    real = loop.loss_of

    def loss(batch: Batch) -> Tensor:
        step = loop.progress.step
        if not bad(step):
            return real(batch)
        if kind in ("nan input", "inf input"):
            return real(spoil(batch, float(kind.split()[0])))
        value = real(batch)
        if kind == "inf loss":
            return value + torch.inf  # its gradients are finite
        if kind == "nan loss":
            return value * torch.nan
        first = next(iter(loop.model.parameters()))
        return value + (first.sum() * 0).sqrt()  # finite, with a gradient that is not

    loop.loss_of = loss


@pytest.mark.parametrize("kind", ["nan input", "inf input", "inf loss", "nan loss", "gradient"])
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "not fused"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_leaves_no_trace(
    pictures: Callable[..., Bench],
    everything: Everything,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    fused: bool,
    kind: str,
) -> None:
    """At the first step and at a later one, weights, buffers, the optimizer's state and the average stay."""
    monkeypatch.setattr(optimizers, "fused", lambda model: fused)
    seen: list[dict[str, Tensor]] = []

    def augment(batch: Batch, step: int) -> Batch:
        seen.append(everything(loop))
        return batch

    made = pictures(name=name, **SETTINGS[name])
    loop = made.loop(total_steps=6, average=0.9, clip=1.0, l1=1e-3, hooks=Hooks(augment=augment))
    injected(loop, kind, lambda step: step in (0, 3))
    loop.run()
    states = [{key: x for key, x in state.items() if not key.startswith("loop/")} for state in seen]
    assert [same_bits(one, other) for one, other in pairwise(states)] == [
        True, False, False, True, False,
    ]  # fmt: skip
    assert {key.split("/")[0] for key in states[0]} >= {"model", "average"}
    assert loop.progress.skipped == 2


def test_the_scale_of_fp16_falls_and_training_goes_on(pictures: Callable[..., Bench]) -> None:
    loop = pictures().loop(precision="fp16", total_steps=8)
    injected(loop, "inf loss", lambda step: step in (2, 3))
    loop.run()
    assert loop.scale is not None
    assert float(loop.scale) == 2.0**10
    assert loop.progress.skipped == 2


def test_the_log_leaves_skipped_steps_out(pictures: Callable[..., Bench]) -> None:
    lines: list[dict[str, Any]] = []
    told: list[str] = []

    def record(line: dict[str, Any]) -> int:
        lines.append(line)
        return 0

    loop = pictures().loop(total_steps=12, log_every=4, hooks=Hooks(record=record, message=told.append))
    injected(loop, "nan loss", lambda step: step in (1, 4, 5, 6, 7))
    loop.run()
    assert [line["skipped"] for line in lines] == [1, 5, 5]
    assert lines[0]["loss"] is not None
    assert lines[1]["loss"] is None  # all four were skipped
    assert len(told) == 2


# Several in a row ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 2, 5])
def test_four_in_a_row_do_not_stop(pictures: Callable[..., Bench], first: int) -> None:
    loop = pictures().loop(total_steps=14, log_every=4)
    injected(loop, "nan input", lambda step: first <= step < first + 4 or step == first + 5)
    loop.run()
    assert loop.progress.step == 14
    assert loop.progress.skipped == 5


@pytest.mark.parametrize("first", [0, 2, 7])
@pytest.mark.parametrize("log_every", [1, 4, 100])
def test_five_in_a_row_stop(pictures: Callable[..., Bench], first: int, log_every: int) -> None:
    """Wherever they lie between two readings of the log."""
    loop = pictures().loop(total_steps=14, log_every=log_every)
    injected(loop, "nan input", lambda step: first <= step < first + 5)
    with pytest.raises(TrainingError, match="5 steps in a row") as caught:
        loop.run()
    assert caught.value.place == f"step {first + 4}"


def test_a_streak_goes_on_after_a_restart(pictures: Callable[..., Bench]) -> None:
    made = pictures()
    one = made.loop(total_steps=14, log_every=4, hooks=Hooks(stop=lambda: one.progress.step == 6))
    injected(one, "nan input", lambda step: step >= 3)
    one.run()
    other = made.loop(total_steps=14, log_every=4)
    other.restore(one.checkpoint())
    injected(other, "nan input", lambda step: True)
    with pytest.raises(TrainingError) as caught:
        other.run()
    assert caught.value.place == "step 7"


def broken_loop(pictures: Callable[..., Bench], **options: Any) -> tuple[Loop, Any]:
    """A loop without batch normalisation, and the layers of its network."""
    encoder = {"name": "cnn", "layers": [4, "pool"], "dense": [8, 8], "dropout": 0.1}
    loop = pictures(encoder_settings=encoder).loop(total_steps=8, **options)
    return loop, loop.model.encoders[0]


def test_the_layer_of_the_forward_pass_is_named(pictures: Callable[..., Bench]) -> None:
    loop, encoder = broken_loop(pictures)
    encoder.dense[3].register_forward_hook(lambda module, inputs, output: output / 0)
    with pytest.raises(
        TrainingError, match=r"first output that is not finite is that of the layer encoders\.0\.dense\.3"
    ):
        loop.run()


def test_the_input_is_named(pictures: Callable[..., Bench]) -> None:
    loop, _ = broken_loop(pictures, micro_batch=5)
    loop.hooks.augment = lambda batch, step: spoil(batch, torch.nan)
    with pytest.raises(TrainingError, match=r"layer stems\.0"):
        loop.run()


@pytest.mark.parametrize("micro", [None, 6])
def test_the_layer_of_the_backward_pass_is_named(pictures: Callable[..., Bench], micro: int | None) -> None:
    loop, encoder = broken_loop(pictures, micro_batch=micro)
    # Adds nothing, and the derivative of a square root at 0 times 0.
    encoder.dense[3].register_forward_hook(lambda module, inputs, output: output + (output * 0).sqrt())
    with pytest.raises(
        TrainingError, match=r"first gradient that is not is that of encoders\.0\.dense\.3\.(bias|weight)"
    ):
        loop.run()
    hooks = [module._forward_hooks for module in loop.model.modules() if module is not encoder.dense[3]]
    assert not any(hooks)  # the search has taken its own away


def test_the_weight_is_named(pictures: Callable[..., Bench]) -> None:
    loop, encoder = broken_loop(pictures)
    with torch.no_grad():
        encoder.dense[0].bias[2] = torch.inf
    with pytest.raises(TrainingError, match=r"the weight encoders\.0\.dense\.0\.bias itself is not finite"):
        loop.run()


def test_the_loss_is_named(bench: Callable[..., Bench]) -> None:
    made = bench({"x": [0.0, 1.0] * 8, "y": [1.0, 2.0] * 8}, {"x": "number"}, {"y": {"type": "number"}})
    made.tensors["y"].values[:] = 1e30  # its square is beyond float32, its gradient is not
    with pytest.raises(TrainingError, match="every layer's output is finite, the loss is not"):
        made.loop(batch_size=4).run()


# Waiting for the device ---------------------------------------------------------------------------------------------

READING = ("item", "tolist", "__bool__", "__float__", "__int__", "__index__", "numpy")


class Readings(TorchDispatchMode):
    """Counts every time that a value of a tensor is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.allowed = 0, False

    def note(self) -> None:
        training = threading.current_thread() is threading.main_thread()  # batches are gathered by another
        self.count += training and not self.allowed

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            self.note()
        return func(*args, **(kwargs or {}))


@contextmanager
def counted(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Readings]:
    """Readings outside of ``log``, of a loop that is run in this context."""
    readings, log = Readings(), loop.log

    def allowed(*args: Any) -> None:
        readings.allowed = True
        log(*args)
        readings.allowed = False

    with monkeypatch.context() as patched, readings:
        patched.setattr(loop, "log", allowed)
        for name in READING:
            real = getattr(Tensor, name)

            def spied(tensor: Tensor, *args: Any, real: Any = real, **kwargs: Any) -> Any:
                readings.note()
                return real(tensor, *args, **kwargs)

            patched.setattr(Tensor, name, spied)
        yield readings


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_step_reads_a_value(
    pictures: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, name: str, precision: str
) -> None:
    loop = pictures(name=name).loop(average=0.9, clip=1.0, l1=1e-4, micro_batch=9, precision=precision, total_steps=8)
    injected(loop, "nan loss", lambda step: step == 2)
    with counted(loop, monkeypatch) as readings:
        loop.run()
    assert readings.count == 0


@pytest.mark.parametrize(
    "read",
    [lambda x: x.item(), lambda x: x.tolist(), bool, float, lambda x: x.numpy()],
    ids=["item", "tolist", "bool", "float", "numpy"],
)
def test_a_reading_would_be_noticed(
    pictures: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, read: Callable[[Tensor], Any]
) -> None:
    def augment(batch: Batch, step: int) -> Batch:
        read(batch.rows.sum())
        return batch

    loop = pictures().loop(total_steps=4, hooks=Hooks(augment=augment))
    with counted(loop, monkeypatch) as readings:
        loop.run()
    assert readings.count >= 4
