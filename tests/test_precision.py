"""Number formats: chosen by rule, cheap where they do not pay, and the weights stay wide."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import Bench
from torch import nn

from zhixing.training import precision as module
from zhixing.training.loop import Hooks
from zhixing.training.precision import Precision, choose_precision, count_multiplications, has_fast_bf16

CPU = torch.device("cpu")


@pytest.mark.parametrize("asked", ["fp32", "bf16", "fp16"])
def test_what_is_asked_for_is_taken(asked: str) -> None:
    assert choose_precision(asked, CPU, 0.0) == Precision(asked, "asked for")
    assert choose_precision(asked, CPU, 1e12).name == asked


@pytest.mark.parametrize("fast", [True, False])
def test_auto_goes_by_the_hardware_and_the_work(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    monkeypatch.setattr(module, "has_fast_bf16", lambda device: fast)
    least = module.WORTHWHILE["cpu"]
    assert choose_precision("auto", CPU, least * 0.99).name == "fp32"
    assert choose_precision("auto", CPU, least).name == ("bf16" if fast else "fp32")
    assert choose_precision("auto", torch.device("meta"), 1e15).name == "fp32"


def test_a_gpu_without_bf16_takes_fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda")
    for capability, expected in (((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 0), "fp16"), ((6, 1), "fp32")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        assert choose_precision("auto", device, 1e12).name == expected
        assert choose_precision("auto", device, 1e3).name == "fp32"


def test_the_same_machine_always_answers_the_same() -> None:
    assert len({has_fast_bf16(CPU) for _ in range(5)}) == 1


def test_multiplications_are_counted() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),  # 8·6·6 results of 3·3·3 products
        nn.Conv2d(8, 8, 3, stride=2, groups=4),  # 8·2·2 results of 2·3·3
        nn.BatchNorm2d(8),
        nn.Flatten(),
        nn.Linear(32, 5),
    )
    network[2].eval()
    network.train()
    expected = 8 * 36 * 27 + 8 * 4 * 18 + 5 * 32
    before = network[2].running_mean.clone()  # type: ignore[union-attr, operator]
    assert count_multiplications(network, lambda: network(torch.randn(1, 3, 6, 6))) == expected
    assert count_multiplications(network, lambda: network(torch.randn(4, 3, 6, 6))) == 4 * expected
    assert network.training
    assert torch.equal(network[2].running_mean, before)  # type: ignore[arg-type]
    assert not any(part._forward_hooks for part in network.modules())


def test_each_step_of_an_lstm_goes_through_all_its_matrices() -> None:
    network = nn.LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=True)
    expected = 2 * (16 * (3 + 4) + 16 * (8 + 4))  # a step
    assert count_multiplications(network, lambda: network(torch.randn(5, 7, 3))) == 5 * 7 * expected
    packed = nn.utils.rnn.pack_sequence([torch.randn(6, 3), torch.randn(2, 3)])
    assert count_multiplications(network, lambda: network(packed)) == 8 * expected


def test_hooks_are_taken_away_after_an_error() -> None:
    network = nn.Linear(3, 2)
    with pytest.raises(RuntimeError):
        count_multiplications(network, lambda: network(torch.zeros(1, 4)))
    assert not network._forward_hooks
    assert network.training


def test_the_context_changes_products_and_nothing_outside() -> None:
    layer, x = nn.Linear(4, 4), torch.ones(2, 4)
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        precision = Precision(name, "")
        assert precision.dtype == dtype
        with precision.cast(CPU):
            assert layer(x).dtype == dtype
        assert layer(x).dtype == torch.float32


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_training_is_near_to_that_in_full_precision(pictures: Callable[..., Bench], name: str) -> None:
    losses: dict[str, list[float]] = {"fp32": [], name: []}
    made = pictures(encoder_settings={"name": "cnn", "layers": [6, "pool"], "dense": [16]}, lr=0.003)
    for kind, told in losses.items():
        hooks = Hooks(record=lambda line, told=told: told.append(line["loss"]) or 0)  # type: ignore[misc]
        loop = made.loop(precision=kind, total_steps=40, log_every=10, average=0.9, hooks=hooks)
        loop.run()
        assert loop.progress.skipped == 0
        state = [*loop.model.state_dict().values(), *loop.average.values()]
        assert {tensor.dtype for tensor in state if tensor.is_floating_point()} == {torch.float32}
    assert losses[name] == pytest.approx(losses["fp32"], rel=0.02)
    assert losses[name] != losses["fp32"]
    assert losses[name][-1] < 0.8 * losses[name][0]
