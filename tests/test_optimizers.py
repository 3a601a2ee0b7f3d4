"""Optimizers: the same steps as torch's plain ones take on the same gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import Bench, same_bits
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Muon, Optimizer, RMSprop

from zhixing.training import optimizers
from zhixing.training.optimizers import OPTIMIZERS, load_state_tensors, parameter_groups, prime, state_tensors

DECAY = 0.03
Make = Callable[[list[dict[str, Any]]], Optimizer]
PLAIN: dict[str, tuple[dict[str, Any], Make]] = {
    "sgd": ({"lr": 0.1, "momentum": 0.8}, lambda g: SGD(g, lr=0.1, momentum=0.8, foreach=False)),
    "gradient_descent": ({"lr": 0.1}, lambda g: SGD(g, lr=0.1, foreach=False)),
    "momentum": ({"lr": 0.05}, lambda g: SGD(g, lr=0.05, momentum=0.9, foreach=False)),
    "nesterov": ({"lr": 0.05}, lambda g: SGD(g, lr=0.05, momentum=0.9, nesterov=True, foreach=False)),
    "rmsprop": (
        {"lr": 0.01, "alpha": 0.9, "momentum": 0.5},
        lambda g: RMSprop(g, lr=0.01, alpha=0.9, momentum=0.5, foreach=False),
    ),
    "adagrad": ({"lr": 0.02}, lambda g: Adagrad(g, lr=0.02, foreach=False)),
    "adam": ({"lr": 0.01, "betas": (0.8, 0.99)}, lambda g: Adam(g, lr=0.01, betas=(0.8, 0.99), foreach=False)),
    "adamw": ({"lr": 0.01, "eps": 1e-6}, lambda g: AdamW(g, lr=0.01, eps=1e-6, foreach=False)),
}


class Net(nn.Module):
    """A hidden layer, a norm and a head, named as a model's are."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoders = nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 6))
        self.heads = nn.ModuleList([nn.Linear(6, 3)])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.heads[0](self.encoders(x))
        return out


def gradients(net: Net, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in net.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator) * 10.0 ** (step % 3 - 1)


def weights(net: Net) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in net.named_parameters()}


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "not fused"])
@pytest.mark.parametrize("decay", [0.0, DECAY])
@pytest.mark.parametrize("name", PLAIN)
def test_the_steps_are_torchs(name: str, decay: float, fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Primed, in groups and fused, against plain, made from the same gradients; with decay for matrices alone."""
    monkeypatch.setattr(optimizers, "fused", lambda model: fused)
    ours, theirs = Net(), Net()
    settings, make = PLAIN[name]
    mine = OPTIMIZERS[name](ours, **settings, weight_decay=decay)
    prime(mine)
    assert same_bits(weights(ours), weights(theirs))  # priming is no step
    plain = make(
        [
            {"params": [p for p in theirs.parameters() if p.ndim >= 2], "weight_decay": decay},
            {"params": [p for p in theirs.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ]
    )
    for step in range(8):
        for net in (ours, theirs):
            gradients(net, step)
        for optimizer in (*mine, plain):
            optimizer.step()
        if not fused:
            assert same_bits(weights(ours), weights(theirs)), step
    for tensor, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(tensor, other, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(ours.encoders[0].weight, Net().encoders[0].weight, atol=0.01)  # type: ignore[union-attr, arg-type]


def test_muon_turns_hidden_matrices_and_adamw_all_the_rest() -> None:
    ours, theirs = Net(), Net()
    mine = OPTIMIZERS["muon"](ours, lr=0.02, momentum=0.9, weight_decay=DECAY, adam_lr=0.003)
    prime(mine)
    hidden = [theirs.encoders[0].weight, theirs.encoders[3].weight]
    known = {id(p) for p in hidden}
    rest = [p for p in theirs.parameters() if id(p) not in known]
    plain: list[Optimizer] = [
        Muon(hidden, lr=0.02, momentum=0.9, weight_decay=DECAY),  # type: ignore[arg-type]
        AdamW(
            [
                {"params": [p for p in rest if p.ndim >= 2], "weight_decay": DECAY},
                {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
            ],
            lr=0.003,
            foreach=False,
        ),
    ]
    for step in range(5):
        for net in (ours, theirs):
            gradients(net, step)
        for optimizer in (*mine, *plain):
            optimizer.step()
    for tensor, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(tensor, other, rtol=1e-5, atol=1e-6)


def test_groups() -> None:
    net = Net()
    decayed, free = parameter_groups(net, 0.1)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert {p.ndim for p in decayed["params"]} == {2}
    assert {p.ndim for p in free["params"]} == {1}
    assert len(decayed["params"]) + len(free["params"]) == len(list(net.parameters()))
    assert len(parameter_groups(net, 0.0)) == 1
    net.encoders.requires_grad_(False)
    assert sum(len(group["params"]) for group in parameter_groups(net, 0.1)) == 2


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_by_name_comes_back(name: str) -> None:
    settings = {"weight_decay": DECAY}
    one, other = Net(), Net()
    first, second = OPTIMIZERS[name](one, **settings), OPTIMIZERS[name](other, **settings)
    prime(first)
    prime(second)
    for step in range(3):
        gradients(one, step)
        for optimizer in first:
            optimizer.step()
    kept = {key: tensor.clone() for key, tensor in state_tensors(first).items()}
    other.load_state_dict(one.state_dict())
    load_state_tensors(second, kept)
    assert same_bits(state_tensors(second), kept)
    for net, made in ((one, first), (other, second)):
        gradients(net, 9)
        for optimizer in made:
            optimizer.step()
    assert same_bits(weights(one), weights(other))
    assert same_bits(state_tensors(first), state_tensors(second))


def test_state_of_another_optimizer_is_refused() -> None:
    one, other = OPTIMIZERS["adam"](Net()), OPTIMIZERS["momentum"](Net())
    prime(one)
    prime(other)
    with pytest.raises(ValueError, match="another one"):
        load_state_tensors(other, state_tensors(one))


def test_the_loop_takes_the_plain_steps(pictures: Callable[..., Bench]) -> None:
    """The whole way, from batch to weights, against a loop of six lines."""
    encoder = {"name": "mlp", "widths": [12]}
    made = pictures(encoder_settings=encoder, name="adamw", lr=0.01, weight_decay=0.1)
    loop = made.loop(total_steps=10)
    loop.run()
    model, batches = made.model(), made.batches()
    groups = parameter_groups(model, 0.1)
    plain = AdamW(groups, lr=0.01, foreach=False)
    for step in range(10):
        batch = batches.gather(loop.order.at(step))
        logits = model(batch)["label"]
        plain.zero_grad()
        nn.functional.cross_entropy(logits, batch.columns["label"].values).backward()
        plain.step()
    for tensor, other in zip(loop.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(tensor, other, rtol=1e-4, atol=1e-5)
