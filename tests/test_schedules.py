"""Schedules against their formulas, and against torch's where it has them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import Bench
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import SGD, lr_scheduler

from zhixing.training.schedules import SCHEDULES, Schedule

STEPS = 40


def torch_rates(make: Callable[[SGD], Any], base: float = 1.0, steps: int = STEPS) -> list[float]:
    """The rates of the first steps under one of torch's schedulers."""
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=base)
    scheduler, rates = make(optimizer), []
    for _ in range(steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return rates


def factors(schedule: Schedule, places: list[float]) -> list[float]:
    return [schedule.factor(place) for place in places]


EVEN = [step / STEPS for step in range(STEPS)]


def test_cosine_is_torchs() -> None:
    expected = torch_rates(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=STEPS, eta_min=0.1))
    assert factors(SCHEDULES["cosine"](final=0.1), EVEN) == pytest.approx(expected, abs=1e-12)  # type: ignore[call-arg]


def test_exponential_is_torchs() -> None:
    expected = torch_rates(lambda o: lr_scheduler.ExponentialLR(o, gamma=0.01 ** (1 / STEPS)))
    assert factors(SCHEDULES["exponential"](final=0.01), EVEN) == pytest.approx(expected, rel=1e-9)  # type: ignore[call-arg]


def test_step_is_torchs() -> None:
    expected = torch_rates(lambda o: lr_scheduler.MultiStepLR(o, milestones=[20, 30], gamma=0.1))
    assert factors(SCHEDULES["step"](milestones=(0.5, 0.75), gamma=0.1), EVEN) == pytest.approx(expected)  # type: ignore[call-arg]


def test_linear_is_torchs() -> None:
    expected = torch_rates(lambda o: lr_scheduler.LinearLR(o, start_factor=1.0, end_factor=0.2, total_iters=STEPS))
    assert factors(SCHEDULES["linear"](final=0.2), EVEN) == pytest.approx(expected)  # type: ignore[call-arg]


@pytest.mark.parametrize("warmup", [0.3, 0.5])
@pytest.mark.parametrize("divide", [25.0, 4.0])
def test_one_cycle_is_torchs(warmup: float, divide: float) -> None:
    """Torch counts its phases in whole steps from the first, ours in shares of the way."""
    final = 1e-3
    expected = torch_rates(
        lambda o: lr_scheduler.OneCycleLR(
            o, max_lr=1.0, total_steps=STEPS, pct_start=warmup, div_factor=divide, final_div_factor=1 / (divide * final)
        )
    )
    schedule = SCHEDULES["one_cycle"](warmup=(warmup * STEPS - 1) / (STEPS - 1), divide=divide, final=final)  # type: ignore[call-arg]
    assert factors(schedule, [step / (STEPS - 1) for step in range(STEPS)]) == pytest.approx(expected, abs=1e-12)


def test_plateau_is_torchs() -> None:
    """Torch waits for one bad validation more."""
    scores = [0.1, 0.2, 0.2, 0.1, 0.2, 0.3, 0.2, 0.2, 0.2, 0.2, 0.2, 0.4, 0.1, 0.1]
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = lr_scheduler.ReduceLROnPlateau(optimizer, "max", factor=0.5, patience=1, threshold=0.0, eps=0.0)
    ours = SCHEDULES["plateau"](patience=2, gamma=0.5)  # type: ignore[call-arg]
    best = -math.inf
    for place, score in enumerate(scores):
        theirs.step(score)
        ours.observe(score > best)
        best = max(best, score)
        assert ours.factor(0.5) == optimizer.param_groups[0]["lr"], place
        other = SCHEDULES["plateau"](patience=2, gamma=0.5)  # type: ignore[call-arg]
        other.load_state(ours.state())
        ours = other  # a restart after each validation changes nothing
    assert ours.factor(0.5) < 0.2


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@given(warmup=st.floats(0.01, 0.9), place=st.floats(0, 1))
def test_warm_up_rises_and_then_nothing_exceeds_the_base_rate(name: str, warmup: float, place: float) -> None:
    schedule = SCHEDULES[name](warmup=warmup)
    factor = schedule.factor(place)
    assert 0 <= factor <= 1 + 1e-12
    if place < warmup:
        assert factor <= schedule.factor(min(warmup * (1 - 1e-9), place * 1.01 + 1e-6)) + 1e-9
        if name != "one_cycle":
            assert factor == pytest.approx(place / warmup)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_it_ends_where_it_says(name: str) -> None:
    ends = {"constant": 1.0, "cosine": 0.0, "exponential": 0.01, "linear": 0.0, "one_cycle": 1e-4, "plateau": 1.0}
    assert SCHEDULES[name](warmup=0.2).factor(1.0) == pytest.approx({**ends, "step": 0.01}[name], abs=1e-12)


def test_the_loop_sets_the_rate_of_every_group(pictures: Callable[..., Bench]) -> None:
    """The first step of a warm-up has a rate, and the last one is not nothing."""
    lines: list[float] = []
    schedule = SCHEDULES["linear"](warmup=0.5)
    loop = pictures(name="muon", lr=0.1, adam_lr=0.01).loop(total_steps=9, log_every=1, schedule=schedule)
    rates: list[list[float]] = []
    loop.hooks.record = lambda line: lines.append(line["lr"]) or 0  # type: ignore[func-returns-value]
    loop.hooks.timing = lambda line: rates.append(
        [group["lr"] for optimizer in loop.optimizers for group in optimizer.param_groups]
    )
    loop.run()
    shares = [schedule.factor((step + 1) / 10) for step in range(9)]
    assert shares == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 0.8, 0.6, 0.4, 0.2])
    assert lines == pytest.approx([0.1 * share for share in shares])
    assert {len(step) for step in rates} == {3}  # the hidden matrices; the rest, with and without decay
    for step, share in zip(rates, shares, strict=True):
        assert step == pytest.approx([0.1 * share, 0.01 * share, 0.01 * share])
