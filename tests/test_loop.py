"""The loop: the same bits from the same seed, and each of its parts against a version written out by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Bench, same_bits
from torch import Tensor
from torch.nn import functional as F

from zhixing.columns.augment import Augment
from zhixing.data.batches import Batch, ColumnBatch
from zhixing.training.loop import Hooks, Loop, Validation
from zhixing.training.optimizers import OPTIMIZERS
from zhixing.training.precision import Precision
from zhixing.training.rate_finder import find_rate, steepest
from zhixing.training.schedules import SCHEDULES
from zhixing.verbs.train import train

Everything = Callable[[Loop], dict[str, Tensor]]
PLAIN = {"name": "mlp", "widths": [12]}


def shifted(seed: int) -> Callable[[Batch, int], Batch]:
    change = Augment(shift=0.2, flip=True)

    def augment(batch: Batch, step: int) -> Batch:
        values, mask = batch.columns["picture"]
        batch.columns["picture"] = ColumnBatch(change(values, batch.rows, seed, step)[0], mask)
        return batch

    return augment


# Determinism --------------------------------------------------------------------------------------------------------


def trained(made: Bench, seed: int = 0, block_rows: int | None = None, **options: Any) -> Loop:
    loop = made.loop(seed=seed, average=0.9, hooks=Hooks(augment=shifted(seed)), total_steps=20, **options)
    if block_rows is not None:
        loop.batches.block_rows = block_rows
    loop.run()
    return loop


def test_the_same_seed_gives_the_same_bits(pictures: Callable[..., Bench], everything: Everything) -> None:
    first = everything(trained(pictures()))
    torch.manual_seed(99)  # what others draw does not matter
    torch.rand(5)
    assert same_bits(first, everything(trained(pictures())))
    other = everything(trained(pictures(), seed=1))
    assert not any(torch.equal(first[name], other[name]) for name in first if name.endswith("weight"))


@pytest.mark.parametrize("block_rows", [1, 40, 10**6])
def test_how_many_rows_are_gathered_does_not_matter(
    pictures: Callable[..., Bench], everything: Everything, block_rows: int
) -> None:
    expected = everything(trained(pictures(), block_rows=64))
    assert same_bits(everything(trained(pictures(), block_rows=block_rows)), expected)


def test_what_is_told_does_not_matter(pictures: Callable[..., Bench], everything: Everything) -> None:
    """How often the log is read and rows are looked at changes no weight."""
    one, other = trained(pictures(), log_every=20), trained(pictures(), log_every=3)
    weights = [{k: x for k, x in everything(loop).items() if not k.startswith("loop/")} for loop in (one, other)]
    assert same_bits(*weights)


def test_the_speed_is_that_of_training_alone(pictures: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever validation falls between two lines of the log. A step takes a second here, and validation a thousand."""
    now = [0.0]

    def step(batch: Batch, step: int) -> Batch:
        now[0] += 1.0
        return batch

    def validate() -> None:
        now[0] += 1000.0

    lines: list[dict[str, Any]] = []
    hooks = Hooks(augment=step, validate=validate, timing=lines.append)
    loop = pictures().loop(batch_size=64, total_steps=12, log_every=4, validate_every=3, hooks=hooks)
    monkeypatch.setattr("zhixing.training.loop.time.perf_counter", lambda: now[0])
    loop.run()
    rows = len(loop.order.rows) / loop.order.steps_per_epoch
    assert [line["rows_per_second"] for line in lines] == pytest.approx([rows] * 3, rel=1e-3)
    assert [line["seconds"] for line in lines] == [4 + 1000, 8 + 2000, 12 + 3000]


def test_each_epoch_sees_each_row_once(pictures: Callable[..., Bench]) -> None:
    seen: list[list[int]] = []
    loop = pictures().loop(batch_size=64, total_steps=8)
    rows = np.sort(loop.order.rows)

    def augment(batch: Batch, step: int) -> Batch:
        seen.append(batch.rows.tolist())
        return batch

    loop.hooks.augment = augment
    loop.run()
    assert loop.order.steps_per_epoch == 4
    for epoch in (seen[:4], seen[4:]):
        assert np.array_equal(np.sort(np.concatenate(epoch)), rows)
    assert seen[:4] != seen[4:]
    assert {len(batch) for batch in seen} == {50}  # 200 rows in four equal batches


# Parts of a step ----------------------------------------------------------------------------------------------------


def by_hand(made: Bench, loop: Loop, steps: int, lr: float) -> Iterator[tuple[Any, Tensor]]:
    """Plain gradient descent on the loop's own batches: gives the model and the loss, with its gradients, each step."""
    model, batches = made.model(), made.batches()
    for step in range(steps):
        batch = batches.gather(loop.order.at(step))
        loss = F.cross_entropy(model(batch)["label"], batch.columns["label"].values)
        model.zero_grad()
        loss.backward()
        yield model, loss
        with torch.no_grad():
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter -= lr * parameter.grad


def assert_same_weights(loop: Loop, model: torch.nn.Module, tolerance: float = 1e-9) -> None:
    for (name, tensor), other in zip(loop.model.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(tensor, other, rtol=tolerance, atol=tolerance, msg=name)


def test_clipping_is_torchs(pictures: Callable[..., Bench]) -> None:
    made = pictures(encoder_settings=PLAIN, dtype=torch.float64, name="sgd", lr=0.1)
    loop, norms = made.loop(total_steps=6, clip=0.5), []
    loop.run()
    for model, _ in by_hand(made, loop, 6, 0.1):
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)))
    assert max(norms) > 0.6  # there was something to clip
    assert_same_weights(loop, model, 1e-6)


def test_l1_is_its_derivative(pictures: Callable[..., Bench]) -> None:
    made = pictures(encoder_settings=PLAIN, dtype=torch.float64, name="sgd", lr=0.1)
    loop = made.loop(total_steps=6, l1=0.01)
    loop.run()
    for model, _ in by_hand(made, loop, 6, 0.1):
        (0.01 * sum(p.abs().sum() for p in model.parameters() if p.ndim >= 2)).backward()  # type: ignore[union-attr]
    assert_same_weights(loop, model, 1e-6)


def test_the_average_is_the_one_written_out(pictures: Callable[..., Bench]) -> None:
    made = pictures(name="momentum")
    loop, live = made.loop(total_steps=30, average=0.8), []

    def augment(batch: Batch, step: int) -> Batch:
        live.append({name: x.clone() for name, x in loop.model.state_dict().items()})
        return batch

    loop.hooks.augment = augment
    loop.run()
    live.append(dict(loop.model.state_dict()))
    expected = {name: live[0][name].double() for name in loop.average}
    for step, weights in enumerate(live[1:]):
        keep = min(0.8, (1 + step) / (10 + step))
        expected = {name: keep * x + (1 - keep) * weights[name].double() for name, x in expected.items()}
    assert any("running_var" in name for name in expected)
    for name, mean in expected.items():
        torch.testing.assert_close(loop.average[name].double(), mean, rtol=1e-5, atol=1e-6, msg=name)
    chosen = loop.chosen_weights()
    assert all(torch.equal(chosen[name], mean) for name, mean in loop.average.items())


def test_validation_looks_at_the_averaged_weights(pictures: Callable[..., Bench], everything: Everything) -> None:
    made = pictures()
    seen: list[dict[str, Tensor]] = []
    loop = made.loop(total_steps=6, average=0.5, validate_every=2)

    def validate() -> Validation:
        assert not loop.model.training
        seen.append({name: x.clone() for name, x in loop.model.state_dict().items()})
        return Validation(1.0, float(loop.progress.step == 4), {})

    loop.hooks.validate = validate
    loop.run()
    plain = made.loop(total_steps=6, average=0.5)
    plain.run()
    one, other = everything(loop), everything(plain)
    assert all(same_bits({name: one[name]}, {name: other[name]}) for name in one if not name.startswith("best/"))
    assert all(torch.equal(seen[-1][name], mean) for name, mean in loop.average.items())
    assert loop.progress.best_step == 4
    assert same_bits(loop.chosen_weights(), seen[1])
    assert loop.model.training


# Choosing and stopping ----------------------------------------------------------------------------------------------


def scored(made: Bench, scores: list[float], **options: Any) -> tuple[Loop, list[dict[str, Tensor]]]:
    """A loop whose validations have these scores, and its weights at each of them."""
    seen: list[dict[str, Tensor]] = []
    loop = made.loop(total_steps=2 * len(scores), validate_every=2, **options)

    def validate() -> Validation:
        seen.append({name: x.clone() for name, x in loop.model.state_dict().items()})
        return Validation(0.0, scores[len(seen) - 1], {})

    loop.hooks.validate = validate
    loop.run()
    return loop, seen


@pytest.mark.parametrize(
    ("scores", "patience", "min_delta", "stops", "best"),
    [
        ([1, 2, 3, 2, 2, 2, 2], 3, 0.0, 6, 3),
        ([1, 2, 2, 2, 9], 2, 0.0, 4, 2),  # as good is not better
        ([1, 1.5, 1.9, 5], 2, 1.0, 3, 1),
        ([1, 1.5, 2.5, 5, 4], 2, 1.0, 5, 4),
        ([3, 2, 4, 3, 5], 2, 0.0, 5, 5),
    ],
)
def test_early_stopping(
    pictures: Callable[..., Bench], scores: list[float], patience: int, min_delta: float, stops: int, best: int
) -> None:
    loop, seen = scored(pictures(), scores, patience=patience, min_delta=min_delta)
    assert loop.progress.step == 2 * stops
    assert loop.progress.stopped_early == (stops < len(scores))
    assert loop.progress.best_step == 2 * best
    assert same_bits(loop.chosen_weights(), seen[best - 1])
    before = loop.progress.step
    if loop.progress.stopped_early:
        loop.run()  # as a run does that was killed after it
        assert loop.progress.step == before


def test_the_last_weights_where_they_are_asked_for(pictures: Callable[..., Bench]) -> None:
    loop, seen = scored(pictures(), [3, 2, 1], keep_best=False)
    assert same_bits(loop.chosen_weights(), seen[-1])
    assert not same_bits(seen[0], seen[-1])


def test_the_plateau_lowers_the_rate(pictures: Callable[..., Bench]) -> None:
    rates: list[float] = []
    schedule = SCHEDULES["plateau"](patience=2, gamma=0.5)  # type: ignore[call-arg]
    hooks = Hooks(record=lambda line: rates.append(line.get("lr", -1.0)) or 0)  # type: ignore[func-returns-value]
    scored(pictures(name="sgd", lr=0.4), [1, 2, 2, 2, 2, 2, 3], schedule=schedule, log_every=2, hooks=hooks)
    assert [rate for rate in rates if rate >= 0] == pytest.approx([0.4, 0.4, 0.4, 0.4, 0.2, 0.2, 0.1])


def test_the_log_holds_the_mean_of_each_stretch(pictures: Callable[..., Bench]) -> None:
    made = pictures(encoder_settings=PLAIN, dtype=torch.float64, name="sgd", lr=0.1)
    lines: list[dict[str, Any]] = []
    loop = made.loop(total_steps=10, log_every=4, hooks=Hooks(record=lambda line: lines.append(line) or 0))  # type: ignore[func-returns-value]
    loop.run()
    losses = [float(loss.detach()) for _, loss in by_hand(made, loop, 10, 0.1)]
    assert [line["step"] for line in lines] == [4, 8, 10]
    expected = [np.mean(losses[:4]), np.mean(losses[4:8]), np.mean(losses[8:])]
    assert [line["loss"] for line in lines] == pytest.approx(expected, rel=1e-5)
    assert [line["epoch"] for line in lines] == pytest.approx([4 / 13, 8 / 13, 10 / 13], abs=1e-6)


# Through the verb ---------------------------------------------------------------------------------------------------


def test_gradient_descent_takes_one_step_an_epoch(tmp_path: Path) -> None:
    data = {"x": np.linspace(-1, 1, 200), "y": np.linspace(-1, 1, 200) * 3 + 1}
    raw = {
        "outputs": {"y": {"type": "number"}},
        "training": {"epochs": 7, "optimizer": "gradient_descent", "log_every": 1, "threads": 1},
    }
    run = train(data, raw, out=tmp_path / "run", device="cpu")
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 8))
    assert [line["step"] for line in lines if line["kind"] == "validation"] == list(range(1, 8))
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert losses == sorted(losses, reverse=True)


# The rate finder ----------------------------------------------------------------------------------------------------


class Chosen:
    """An optimizer's settings as a recipe holds them."""

    def __init__(self, name: str) -> None:
        self.name = name

    def keywords(self) -> dict[str, Any]:
        return {"lr": "find"}


@pytest.mark.parametrize("name", ["adamw", "momentum"])
def test_the_rate_that_is_found_trains(pictures: Callable[..., Bench], name: str) -> None:
    made = pictures(encoder_settings={"name": "mlp", "widths": [32]}, name=name)
    loop = made.loop(batch_size=32)

    def find(seed: int = 0) -> float:
        settings = Chosen(name)
        precision = Precision("fp32", "")
        return find_rate(
            loop.model, settings, loop.batches, loop.order, precision, seed=seed, augment=loop.hooks.augment
        )

    before = {key: x.clone() for key, x in loop.model.state_dict().items()}
    rate = find()
    assert find() == rate
    assert same_bits(before, dict(loop.model.state_dict()))
    assert 1e-4 < rate < 1.0

    def loss_after(lr: float) -> float:
        lines: list[float] = []
        hooks = Hooks(record=lambda line: lines.append(line["loss"]) or 0)  # type: ignore[func-returns-value]
        other = pictures(encoder_settings={"name": "mlp", "widths": [32]}, name=name, lr=lr)
        other.loop(batch_size=32, total_steps=60, log_every=10, hooks=hooks).run()
        return lines[-1] if lines[-1] is not None else float("inf")

    found = loss_after(rate)
    assert found < 0.6 * loss_after(rate / 100)
    assert found < 1.0  # of about 2.3 at the start


def test_the_steepest_fall_of_a_known_curve() -> None:
    """A loss that falls as a logistic of the rate's logarithm is steepest in its middle; smoothing lags behind."""
    rates = np.geomspace(1e-6, 1.0, 120)
    losses = 2 / (1 + np.exp(2 * np.log(rates / 1e-3)))
    assert 1e-3 <= steepest(rates, losses, smooth=0.0) <= 1.2e-3
    assert 1e-3 < steepest(rates, losses) < 1e-2
    losses[5] = np.inf
    assert 1e-3 < steepest(rates, losses) < 1e-2


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_learns(pictures: Callable[..., Bench], name: str) -> None:
    lines: list[float] = []
    hooks = Hooks(record=lambda line: lines.append(line["loss"]) or 0)  # type: ignore[func-returns-value]
    pictures(name=name).loop(batch_size=32, total_steps=60, log_every=10, hooks=hooks).run()
    assert lines[-1] < 0.9 * lines[0]
