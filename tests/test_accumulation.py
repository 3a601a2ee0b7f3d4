"""A step taken in parts is the step of the whole batch; running out of memory changes nothing but the parts."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import Bench, same_bits
from torch import Tensor

from zhixing.columns.augment import Augment
from zhixing.data.batches import Batch, ColumnBatch
from zhixing.errors import TrainingError
from zhixing.training.loop import Hooks, Loop, cuts, out_of_memory

ROWS = 24
CPU_OUT = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"
)


def table() -> dict[str, Any]:
    """Numbers to read, and something of every kind to predict; each of ``*_gaps`` lacks a third of its cells."""
    chance = np.random.default_rng(0)
    kind = chance.choice(["ant", "bee", "cat"], ROWS, p=[0.6, 0.3, 0.1]).tolist()
    tags = [[word for word in ("red", "big", "old") if chance.random() < 0.4] for _ in range(ROWS)]
    size = chance.normal(3, 2, ROWS).tolist()
    gap = [bool(x) for x in chance.random(ROWS) < 0.33]
    return {
        "a": chance.normal(size=ROWS).tolist(),
        "b": chance.normal(size=ROWS).tolist(),
        "kind": kind,
        "tags": tags,
        "size": size,
        "kind_gaps": [None if g else x for g, x in zip(gap, kind, strict=True)],
        "size_gaps": [None if g else x for g, x in zip(reversed(gap), size, strict=True)],
    }


CATEGORY = {"type": "category"}
OUTPUTS: dict[str, dict[str, dict[str, Any]]] = {
    "cross_entropy": {"kind": CATEGORY},
    "focal": {"kind": {**CATEGORY, "loss": "focal", "gamma": 1.5}},
    "smoothing": {"kind": {**CATEGORY, "smoothing": 0.2}},
    "focal_smoothing_balanced": {"kind": {**CATEGORY, "loss": "focal", "smoothing": 0.1, "class_weights": "balanced"}},
    "balanced": {"kind": {**CATEGORY, "class_weights": "balanced"}},
    "class_weights": {"kind": {**CATEGORY, "class_weights": {"ant": 0.2, "cat": 5.0}}},
    "tags": {"tags": {"type": "tags"}},
    "tags_focal": {"tags": {"type": "tags", "loss": "focal", "class_weights": "balanced"}},
    "tags_smoothing": {"tags": {"type": "tags", "smoothing": 0.1}},
    "squared": {"size": {"type": "number"}},
    "absolute": {"size": {"type": "number", "loss": "absolute"}},
    "huber": {"size": {"type": "number", "loss": "huber", "delta": 0.5}},
    "quantile": {"size": {"type": "number", "loss": "quantile", "quantiles": [0.1, 0.5, 0.8]}},
    "several": {
        "kind": {**CATEGORY, "importance": 2.0, "class_weights": "balanced"},
        "tags": {"type": "tags", "importance": 0.3},
        "size": {"type": "number", "loss": "huber"},
    },
    "gaps": {
        "kind_gaps": {**CATEGORY, "class_weights": "balanced", "importance": 0.7},
        "size_gaps": {"type": "number"},
    },
}
INPUTS = {
    name: {"type": "number", "encoder": {"name": "mlp", "widths": [5], "activation": "tanh"}} for name in ("a", "b")
}


def step_of(loop: Loop, micro: int, augment: Callable[[Batch, int], Batch] | None = None) -> dict[str, Tensor]:
    """Loss, gradients and the weights after one step of the first batch, cut into parts of ``micro`` rows."""
    loop.progress.micro_batch = micro
    gathered = loop.batches.gather(loop.order.at(0))
    batch = loop.model.weigh(augment(gathered, 0) if augment else gathered)
    loop.guard.before()
    loss = loop.gradients(batch)
    out = {"loss": loss}
    out |= {f"gradient of {name}": p.grad.clone() for name, p in loop.model.named_parameters() if p.grad is not None}
    loop.set_rate(0)
    for optimizer in loop.optimizers:
        optimizer.step()
    return out | {name: p.detach().clone() for name, p in loop.model.named_parameters()}


def assert_near(whole: dict[str, Tensor], parts: dict[str, Tensor]) -> None:
    assert whole.keys() == parts.keys()
    for name, tensor in whole.items():
        assert tensor.dtype == torch.float64, name
        assert float((tensor - parts[name]).abs().max()) < 1e-10, name


@pytest.mark.parametrize("micro", [3, 7, 1], ids=["eight parts", "uneven", "single rows"])
@pytest.mark.parametrize("outputs", OUTPUTS.values(), ids=OUTPUTS.keys())
def test_parts_make_the_step_of_the_whole(bench: Callable[..., Bench], outputs: dict[str, Any], micro: int) -> None:
    made = bench(table(), INPUTS, outputs, dtype=torch.float64, name="sgd", lr=0.5)
    whole = step_of(made.loop(batch_size=ROWS), ROWS)
    assert max(float(tensor.abs().max()) for name, tensor in whole.items() if name.startswith("gradient")) > 1e-3
    assert_near(whole, step_of(made.loop(batch_size=ROWS), micro))


def test_a_part_without_any_target(bench: Callable[..., Bench]) -> None:
    data = table()
    data["size_gaps"] = [None] * 12 + data["size"][12:]  # in the table's order, the first parts hold no target at all
    made = bench(data, INPUTS, {"size_gaps": {"type": "number"}, "kind": CATEGORY}, dtype=torch.float64, name="sgd")
    loops = [made.loop(batch_size=ROWS) for _ in range(2)]
    for loop in loops:
        loop.order.shuffle = False
    assert_near(step_of(loops[0], ROWS), step_of(loops[1], 4))


@pytest.mark.parametrize("change", [{"mixup": 0.4}, {"cutmix": 1.0}], ids=["mixup", "cutmix"])
@pytest.mark.parametrize("gaps", [False, True], ids=["whole", "gaps"])
@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_blended_rows(
    bench: Callable[..., Bench], digits: dict[str, Any], change: dict[str, float], weights: str, gaps: bool
) -> None:
    """Against the mean written out, in which a missing target counts for nothing, whichever row it belongs to."""
    labels = [None if gaps and place % 3 == 0 else label for place, label in enumerate(digits["label"])]
    other = [str(place % 2) for place in range(len(labels))]  # so that no row lacks every target
    data = {**digits, "label": labels, "other": other}
    encoder = {"name": "cnn", "layers": [4, "pool"], "dense": [8]}
    outputs = {
        "label": {"type": "category", "class_weights": weights},
        "other": {"type": "category", "importance": 0.5},
    }
    made = bench(
        data, {"picture": {"type": "image", "encoder": encoder}}, outputs, dtype=torch.float64, name="sgd", lr=0.1
    )
    changing = Augment(**change)  # type: ignore[arg-type]

    def augment(batch: Batch, step: int) -> Batch:
        moved, blend = changing(batch.columns["picture"].values, batch.rows, 0, step)
        assert blend is not None
        batch.columns["picture"] = ColumnBatch(moved)
        batch.share = blend.share
        batch.blends = {name: batch.columns[name].each(lambda x: x[blend.partner]) for name in outputs}
        return batch

    whole = step_of(made.loop(batch_size=40), 40, augment)
    torch.testing.assert_close(whole["loss"], blended_loss(made, augment), rtol=1e-6, atol=0)
    for micro in (5, 17):
        assert_near(whole, step_of(made.loop(batch_size=40), micro, augment))


def blended_loss(made: Bench, augment: Callable[[Batch, int], Batch]) -> Tensor:
    loop, total = made.loop(batch_size=40), torch.zeros((), dtype=torch.float64)
    batch = augment(loop.batches.gather(loop.order.at(0)), 0)
    assert batch.share is not None
    for name, logits in loop.model(batch).items():
        count, loss = 0.0, torch.zeros((), dtype=torch.float64)
        scale = getattr(loop.model.head(name), "class_weight", None)
        for (values, mask), share in ((batch.columns[name], batch.share), (batch.blends[name], 1 - batch.share)):
            each = share.double() * (1.0 if scale is None else scale[values])
            each = each if mask is None else each * mask
            count += float(each.sum())
            loss = loss + (each * F.cross_entropy(logits, values, reduction="none")).sum()
        total = total + loop.model.importance[name] * loss / count
    return total.detach()


def test_the_loss_is_the_weighted_mean_that_torch_computes(bench: Callable[..., Bench]) -> None:
    made = bench(table(), INPUTS, OUTPUTS["class_weights"], dtype=torch.float64, name="sgd")
    loop = made.loop(batch_size=ROWS)
    batch = loop.batches.gather(loop.order.at(0))
    logits, target = loop.model(batch)["kind"], batch.columns["kind"].values
    weight = torch.tensor([0.2, 1.0, 5.0], dtype=torch.float64)  # of ant, bee, cat
    expected = F.cross_entropy(logits, target, weight=weight)
    torch.testing.assert_close(step_of(loop, 5)["loss"], expected.detach(), rtol=1e-6, atol=0)


# Out of memory ------------------------------------------------------------------------------------------------------


class Small:
    """Stands before a model's loss: more rows than fit are an error, as the allocator words it."""

    def __init__(self, loop: Loop, rows: int, *, from_step: int = 0) -> None:
        self.loop, self.rows, self.from_step = loop, rows, from_step
        self.real, loop.loss_of = loop.loss_of, self
        self.failed = 0

    def __call__(self, batch: Batch) -> Tensor:
        loss = self.real(batch)  # running statistics have been changed by now, and random numbers drawn
        if len(batch) > self.rows and self.loop.progress.step >= self.from_step:
            self.failed += 1
            raise RuntimeError(f"{CPU_OUT} 99 bytes")
        return loss


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop"], ids=["fused", "not fused"])
def test_from_the_start(
    pictures: Callable[..., Bench], everything: Callable[[Loop], dict[str, Tensor]], precision: str, optimizer: str
) -> None:
    made = pictures(name=optimizer)
    messages: list[str] = []
    loop = made.loop(average=0.9, precision=precision, hooks=Hooks(message=messages.append))
    small = Small(loop, 5)
    loop.run()
    asked = made.loop(average=0.9, precision=precision, micro_batch=4)
    asked.run()
    assert small.failed == 2  # 16, then 8
    assert [("parts of 8" in text, "parts of 4" in text) for text in messages] == [(True, False), (False, True)]
    assert loop.progress == asked.progress
    assert same_bits(everything(loop), everything(asked))


@pytest.mark.parametrize("step", [1, 7])
def test_at_a_later_step(
    pictures: Callable[..., Bench], everything: Callable[[Loop], dict[str, Tensor]], step: int
) -> None:
    made = pictures()
    loop = made.loop(average=0.9)
    Small(loop, 8, from_step=step)
    loop.run()

    def change(batch: Batch, now: int) -> Batch:
        other.progress.micro_batch = 8 if now >= step else None
        return batch

    other = made.loop(average=0.9, hooks=Hooks(augment=change))
    other.run()
    assert same_bits(everything(loop), everything(other))
    whole = made.loop(average=0.9)
    whole.run()
    assert not same_bits(everything(loop), everything(whole))  # dropout and running statistics are those of the parts


def test_in_a_later_part_and_in_the_backward_pass(
    pictures: Callable[..., Bench], everything: Callable[[Loop], dict[str, Tensor]]
) -> None:
    made = pictures()
    loop, calls = made.loop(micro_batch=8), []
    real = loop.loss_of

    def loss(batch: Batch) -> Tensor:
        calls.append(len(batch))
        value = real(batch)
        if len(calls) == 6:  # the second part of the third step: memory runs out on the way back

            def full(gradient: Tensor) -> None:
                raise RuntimeError(f"{CPU_OUT} 12345 bytes")

            value.register_hook(full)
        return value

    loop.loss_of = loss
    loop.run()

    def change(batch: Batch, now: int) -> Batch:
        other.progress.micro_batch = 4 if now >= 2 else 8
        return batch

    other = made.loop(micro_batch=8, hooks=Hooks(augment=change))
    other.run()
    assert loop.progress.micro_batch == 4
    assert same_bits(everything(loop), everything(other))


def test_a_single_row_that_does_not_fit(pictures: Callable[..., Bench]) -> None:
    loop = pictures(encoder_settings={"name": "mlp", "widths": [4]}).loop()
    Small(loop, 0)
    with pytest.raises(TrainingError, match="a single row at a time"):
        loop.run()


@pytest.mark.parametrize(("rows", "most"), [(17, 8), (33, 32), (5, 5), (5, 9), (128, 127), (1000, 7)])
def test_parts_are_of_nearly_one_size(rows: int, most: int) -> None:
    parts = cuts(rows, most)
    sizes = [stop - start for start, stop in parts]
    assert [parts[0][0], parts[-1][1]] == [0, rows]
    assert all(one[1] == other[0] for one, other in pairwise(parts))
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-rows // most)


def test_other_errors_are_not_taken_for_it(pictures: Callable[..., Bench]) -> None:
    loop = pictures().loop()

    def wrong(batch: Batch) -> Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    loop.loss_of = wrong
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        loop.run()
    assert loop.progress.micro_batch is None


def test_the_allocators_own_words_are_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert out_of_memory(caught.value)
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
