"""Steps that are replayed: the same bits as steps that are gone through plainly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Bench, same_bits
from contract import CPU, HEADS_AND_DECODERS, HEAVY, PAIRS, fits, made
from torch import Tensor, nn

import zhixing as zx
from zhixing.data.batches import Batch
from zhixing.model import Model
from zhixing.training import replay
from zhixing.training.loop import Loop
from zhixing.training.precision import Precision
from zhixing.training.replay import Replay

Everything = Callable[[Loop], dict[str, Tensor]]
FP32, BF16 = Precision("fp32", "asked for"), Precision("bf16", "asked for")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Record the second batch of a shape, however long it takes."""
    monkeypatch.setattr(replay, "OFTEN", 2)
    monkeypatch.setattr(replay, "SHORT", 1e9)


def steps(model: Model, batch: Batch, precision: Precision, replays: bool, count: int = 6) -> tuple[Any, Replay]:
    """Loss, gradients, and what is then in the model, of some steps of plain gradient descent."""
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]

    def plain(part: Batch) -> Tensor:
        with precision.cast(CPU):
            loss = model.loss(part)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    again, seen = Replay(model, parameters, precision, plain), []
    for step in range(count):
        for parameter in parameters:
            parameter.grad = None
        torch.manual_seed(step)
        rolled = batch.each(lambda x, by=step: x.roll(by, 0))  # other values, lengths and gaps in each row
        loss = (again if replays else plain)(model.weigh(rolled))
        seen.append([loss, *(None if p.grad is None else p.grad.clone() for p in parameters)])  # strides are kept
        with torch.no_grad():
            torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], 0.5)  # in place, as clipping does
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter -= 0.01 * parameter.grad
        seen.append([tensor.clone() for tensor in model.state_dict().values()])
    return seen, again


def equal(some: Any, others: Any) -> bool:
    return all(replay.same(*both) for both in zip(some, others, strict=True))


LIKE_OTHERS = {"vgg11", "vgg11_bn", "resnet18", "efficientnet_lite0", "rnn"}  # made of what others are made of
LIGHT = [pair for pair in PAIRS if pair[1] not in HEAVY | LIKE_OTHERS]


@pytest.mark.parametrize(("kind", "encoder"), LIGHT)
def test_every_encoder_replays_to_the_same_bits(kind: str, encoder: str) -> None:
    with torch.random.fork_rng(devices=[]):
        expected, _ = steps(*made(kind, encoder, "category"), FP32, False)
        found, again = steps(*made(kind, encoder, "category"), FP32, True)
    assert equal(found, expected)
    assert again.recorded == 1
    assert [shape.unchecked for shape in again.shapes.values()] == [0]


@pytest.mark.parametrize("head", HEADS_AND_DECODERS)
@pytest.mark.parametrize("precision", [FP32, BF16], ids=["fp32", "bf16"])
def test_every_head_replays_to_the_same_bits(head: str, precision: Precision) -> None:
    kind, encoder = next(pair for pair in (("text", "transformer"), ("series", "lstm")) if fits(pair[1], head))
    with torch.random.fork_rng(devices=[]):
        expected, _ = steps(*made(kind, encoder, head), precision, False)
        found, again = steps(*made(kind, encoder, head), precision, True)
    assert equal(found, expected)
    assert again.recorded == (0 if head == "text ctc" else 1)  # which looks at values


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_loop_that_replays_ends_with_the_same_bits(
    pictures: Callable[..., Bench], everything: Everything, channels_last: bool
) -> None:
    """With dropout, running statistics, averages, clipping, and batches of two sizes in each epoch."""
    ends = []
    for replays in (False, True):
        made = pictures()
        model = made.model().channels_last() if channels_last else made.model()
        made.model = lambda model=model: model  # type: ignore[method-assign]
        loop = made.loop(batch_size=70, average=0.9, clip=1.0, total_steps=30, replay=replays)
        loop.run()
        ends.append(everything(loop))
        assert (loop.replay is not None) == replays
    assert isinstance(loop.replay, Replay)
    assert [shape.unchecked for shape in loop.replay.shapes.values()] == [0, 0]
    assert loop.replay.recorded == 2
    assert same_bits(*ends)


@pytest.mark.parametrize(("long", "replays"), [(5, True), (50, False)])
def test_a_short_run_is_not_recorded(long: int, replays: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would not earn back the time that recording takes."""
    made: list[Replay] = []

    class Seen(Replay):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr("zhixing.verbs.assemble.LONG", long)
    monkeypatch.setattr("zhixing.training.loop.Replay", Seen)
    rows = {"x": [float(i % 7) for i in range(80)], "y": [("even", "odd")[i % 2] for i in range(80)]}
    zx.train(rows, target="y", epochs=4, batch_size=8, device="cpu", out=tmp_path / "run", quiet=True)
    assert [one.recorded > 0 for one in made] == ([True] if replays else [])


def test_gradients_lie_in_memory_as_their_parameters_do() -> None:
    """Autograd hands them over so, and fused optimizers read both in a row."""
    gradient, parameter = torch.arange(6.0).view(2, 3), torch.zeros(3, 2).t()
    laid = replay.laid_out(gradient, parameter, set())
    assert laid is not None
    assert laid.stride() == parameter.stride()
    assert torch.equal(laid, gradient)
    assert replay.laid_out(gradient, gradient, set()) is gradient
    assert not replay.same([laid], [gradient])


class TwoBiases(nn.Module):
    """Both have the same gradient, which is then scaled in place."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Parameter(torch.zeros(8)), nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.one + self.other)


def test_no_two_parameters_share_a_gradient() -> None:
    seen = []
    for replays in (False, True):
        model, batch = made("number", "mlp", "number")
        fusion: Any = model.fusion
        fusion.layers.append(TwoBiases())
        model.passes = False
        found, again = steps(model, batch, FP32, replays)
        seen.append(found)
    assert again.recorded == 1
    assert equal(*seen)


class Counting(nn.Module):
    """Does something else every third time."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.times = nn.Linear(8, 8), 0

    def forward(self, x: Tensor) -> Tensor:
        self.times += 1
        out: Tensor = self.linear(x) * (2.0 if self.times % 3 == 0 else 1.0)
        return out


def test_what_does_not_come_to_the_same_is_not_replayed() -> None:
    model, batch = made("number", "mlp", "number")
    fusion: Any = model.fusion
    fusion.layers.append(Counting())
    model.passes = False
    assert not Replay.takes(model)
    _, again = steps(model, batch, FP32, True, count=12)
    assert again.recorded == 0
    assert [shape.unchecked < replay.CHECKS for shape in again.shapes.values()] == [True]


def test_long_steps_and_rare_shapes_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "SHORT", 0.0)
    _, again = steps(*made("number", "mlp", "number"), FP32, True)
    assert again.recorded == 0
    monkeypatch.setattr(replay, "SHORT", 1e9)
    monkeypatch.setattr(replay, "OFTEN", 100)
    _, again = steps(*made("number", "mlp", "number"), FP32, True)
    assert again.recorded == 0
