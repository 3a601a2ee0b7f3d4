"""The model: what each row counts for, and that the parts of a batch add up to the whole."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from own_encoder import Mean
from torch import Tensor, nn

from zhixing.data.batches import Batch, ColumnBatch
from zhixing.errors import UsageError
from zhixing.model import Model
from zhixing.run import build_model
from zhixing.verbs.collect import EXACT, collect

ROWS = 24


@pytest.fixture(scope="module")
def two(bench: Callable[..., Any]) -> Any:
    """Two inputs and three outputs, some targets missing."""
    rng = np.random.default_rng(0)
    data = {
        "size": rng.normal(5, 2, ROWS).tolist(),
        "colour": rng.choice(["red", "blue", "green"], ROWS).tolist(),
        "label": [None if i % 5 == 4 else "ab"[i % 3 == 0] for i in range(ROWS)],
        "price": rng.normal(100, 20, ROWS).tolist(),
        "marks": [["x"] if i % 2 else ["x", "y"] for i in range(ROWS)],
    }
    outputs = {
        "label": {"type": "category", "class_weights": {"a": 1.0, "b": 3.0}, "importance": 0.5},
        "price": {"type": "number", "importance": 2.0},
        "marks": {"type": "tags"},
    }
    return bench(data, {"size": {"type": "number"}, "colour": {"type": "category"}}, outputs)


def whole(bench: Any) -> tuple[Model, Batch]:
    model = bench.model().eval()
    return model, bench.batches().gather(bench.rows)


def test_weights_of_an_output_add_up_to_its_importance(two: Any) -> None:
    model, batch = whole(two)
    model.weigh(batch)
    sums = {name: float(weight.sum()) for name, weight in batch.weights.items()}
    assert sums == pytest.approx({"label": 0.5, "price": 2.0, "marks": 1.0})
    present = batch.columns["label"].mask
    assert present is not None
    assert not present.all()
    assert (batch.weights["label"][~present] == 0).all()


def test_the_loss_is_torchs_weighted_mean_over_targets_that_are_there(two: Any) -> None:
    model, batch = whole(two)
    loss = model.loss(model.weigh(batch))
    predictions = model(batch)
    target, present = batch.columns["label"]
    assert present is not None
    label = F.cross_entropy(predictions["label"][present], target[present], weight=torch.tensor([1.0, 3.0]))
    price = F.mse_loss(predictions["price"][:, :, 0], batch.columns["price"].values)
    marks = F.binary_cross_entropy_with_logits(predictions["marks"], batch.columns["marks"].values.float())
    torch.testing.assert_close(loss, 0.5 * label + 2 * price + marks)


def test_missing_targets_count_nothing_whatever_stands_in_their_place(two: Any) -> None:
    model, batch = whole(two)
    before = model.loss(model.weigh(batch))
    target, present = batch.columns["label"]
    assert present is not None
    batch.columns["label"] = ColumnBatch(torch.where(present, target, 1 - target), present)
    assert torch.equal(model.loss(model.weigh(batch)), before)
    batch.columns["label"] = ColumnBatch(target, torch.zeros_like(present))  # not one is there
    loss = model.loss(model.weigh(batch))
    assert loss.isfinite()
    assert float(batch.weights["label"].abs().sum()) == 0


@pytest.mark.parametrize("sizes", [[24], [1, 23], [7, 8, 9], [10, 0, 14]])
def test_losses_of_parts_add_up_to_that_of_the_whole(two: Any, sizes: list[int]) -> None:
    model, batch = whole(two)
    model.weigh(batch)
    edges = np.cumsum([0, *sizes])
    parts = [model.loss(batch.part(a, b)) for a, b in pairwise(edges) if b > a]
    torch.testing.assert_close(torch.stack(parts).sum(), model.loss(batch))


def blended(batch: Batch, partner: Tensor, share: Tensor) -> Batch:
    batch.share = share
    batch.blends = {name: batch.columns[name].each(lambda x: x[partner]) for name in ("label", "price", "marks")}
    return batch


def test_blended_rows_count_for_both_targets_and_not_for_missing_ones(two: Any) -> None:
    model, batch = whole(two)
    partner = torch.arange(len(batch)).roll(1)
    share = torch.linspace(0, 1, len(batch))
    model.weigh(blended(batch, partner, share))
    loss = model.loss(batch)
    logits = model(batch)["label"].detach().log_softmax(-1)
    target, present = batch.columns["label"]
    assert present is not None
    above = below = 0.0
    for row in range(len(batch)):
        for other, part in ((row, share[row]), (int(partner[row]), 1 - share[row])):
            if present[other]:
                weight = (1.0, 3.0)[int(target[other])] * float(part)
                above += weight * -float(logits[row, target[other]])
                below += weight
    price = batch.columns["price"].values
    said = {name: prediction.detach() for name, prediction in model(batch).items()}
    own, other = ((said["price"][:, :, 0] - goal).square()[:, 0] for goal in (price, price[partner]))
    expected = 0.5 * above / below + 2 * float((share * own + (1 - share) * other).mean())
    marks = batch.columns["marks"].values.float()
    soft = share[:, None] * marks + (1 - share[:, None]) * marks[partner]
    expected += float(F.binary_cross_entropy_with_logits(said["marks"], soft))
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    assert float(batch.weights["label"].sum()) == pytest.approx(0.5)
    parts = model.loss(batch.part(0, 9)) + model.loss(batch.part(9, len(batch)))
    torch.testing.assert_close(parts, loss)


def test_low_precision_ends_before_the_loss(two: Any) -> None:
    model, batch = whole(two)
    model.weigh(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        predictions = model(batch)
        loss = model.loss(batch)
    assert predictions["label"].dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    rows = model.target_losses(batch, "label", predictions["label"])
    assert rows.dtype == torch.float32
    torch.testing.assert_close(loss, model.loss(batch), rtol=0.05, atol=0.05)


def test_statistics_travel_with_the_weights(two: Any, pictures: Callable[..., Any]) -> None:
    bench = pictures()
    names = dict(bench.model().named_buffers())
    assert any(name.startswith("stems.0") for name in names)
    assert bench.model().state_dict().keys() >= {name for name in names if name.startswith("stems")}


def test_weights_follow_from_the_seed(two: Any) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, other = two.model().state_dict(), two.model().state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.get_rng_state(), before)  # the user's own stream stands where it stood


@pytest.mark.parametrize("fusion", ["concat", "gated", "attention"])
def test_a_table_of_many_numbers_trains(bench: Callable[..., Any], fusion: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 30))
    data: dict[str, Any] = {f"x{i}": x[:, i].tolist() for i in range(30)}
    data["y"] = (x @ rng.normal(size=30)).tolist()
    made = bench(data, {f"x{i}": {"type": "number"} for i in range(30)}, {"y": {"type": "number"}}, lr=0.01)
    made.recipe = type(made.recipe)({**made.recipe.plain(), "fusion": {"name": fusion}})
    loop = made.loop(batch_size=32, total_steps=25)
    model, batch = loop.model, made.batches().gather(made.rows)
    with torch.no_grad():
        before = float(model.loss(model.weigh(batch)))
    loop.run()
    with torch.no_grad():
        assert float(model.loss(batch)) < 0.6 * before


def test_values_that_are_handed_on_are_what_the_modules_would_give(two: Any) -> None:
    model, batch = whole(two)
    assert [reader is None for _, reader in model.readers] == [True, False]
    short = model.encode(batch)
    both = zip(model.inputs, model.stems, model.encoders, strict=True)
    model.readers = [(name, (stem, encoder)) for name, stem, encoder in both]  # type: ignore[misc]
    long = model.encode(batch)
    assert torch.equal(short.pooled, long.pooled)


# Encoders of one's own -----------------------------------------------------------------------------------------------


def test_an_encoder_of_ones_own_is_looked_at_before_anything_is_trained(pictures: Callable[..., Any]) -> None:
    made = pictures()
    recipe, columns = made.recipe, made.columns
    model = build_model(recipe, columns, {"picture": Mean()})
    assert model(made.batches().gather(made.rows[:3]))["label"].shape == (3, 10)
    bare: Any = nn.Linear(3, 4)
    wrong: Any = nn.Linear(3, 4)
    wrong.width = 4
    for module, pattern in (
        (bare, "whole number `width`"),
        (wrong, r"cannot read Spec.*shape=\(1, 8, 8\)"),
        (Mean(width=2), r"gives torch.Size\(\[2, 1\]\) for two rows, with a width of 2"),
        ("resnet", "must be a torch.nn.Module"),
    ):
        with pytest.raises(UsageError, match=pattern):
            build_model(recipe, columns, {"picture": module})


def test_evaluation_that_runs_out_of_memory_goes_on_in_smaller_batches(two: Any, monkeypatch: Any) -> None:
    sizes: list[int] = []
    model, batches = two.model(), two.batches()
    whole_answer = collect(model, batches, two.rows, EXACT)
    forward = type(model).encode

    def limited(self: Any, batch: Any) -> Any:
        sizes.append(len(batch))
        if len(batch) > 7:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
        return forward(self, batch)

    monkeypatch.setattr(type(model), "encode", limited)
    answer = collect(model, batches, two.rows, EXACT)
    assert max(sizes) > 7 >= sizes[-1]
    for name, prediction in whole_answer.predictions.items():
        torch.testing.assert_close(answer.predictions[name], prediction)
