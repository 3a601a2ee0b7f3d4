"""Order and batches: every row once, resumable at any step, and no thread left behind."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zhixing.data.batches import Batch, Batches, ColumnBatch, Order

FEW = settings(max_examples=60, deadline=None, derandomize=True)
CPU = torch.device("cpu")


def gathering() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("zhixing-gather")]


def columns(rows: int) -> dict[str, ColumnBatch]:
    wide = torch.arange(rows * 6, dtype=torch.float32).view(rows, 2, 3)
    return {
        "wide": ColumnBatch(wide),
        "label": ColumnBatch(torch.arange(rows) * 10, torch.arange(rows) % 3 > 0),
        "bytes": ColumnBatch((torch.arange(rows) % 256).to(torch.uint8)[:, None]),
    }


@FEW
@given(st.integers(1, 200), st.integers(1, 60), st.integers(0, 99), st.booleans())
def test_every_row_once_in_batches_of_nearly_one_size(count, size, seed, shuffle) -> None:
    rows = np.arange(count) * 3 + 1
    order = Order(rows, size, seed=seed, shuffle=shuffle)
    assert order.steps_per_epoch == -(-count // min(size, count))
    epochs = []
    for epoch in range(2):
        parts = [order.at(epoch * order.steps_per_epoch + step) for step in range(order.steps_per_epoch)]
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= size
        epochs.append(np.concatenate(parts))
        assert sorted(epochs[-1].tolist()) == rows.tolist()
    if not shuffle:
        assert (epochs[0] == rows).all()
    elif count > 12:
        assert (epochs[0] != epochs[1]).any()
        assert (epochs[0] != Order(rows, size, seed=seed + 1).of_epoch(0)[0]).any()


@FEW
@given(st.integers(1, 60), st.integers(1, 20), st.data())
def test_the_order_depends_on_seed_and_step_alone(count, size, data) -> None:
    rows = np.arange(count)
    steps = data.draw(st.lists(st.integers(0, 200), min_size=1, max_size=8))
    one, other = Order(rows, size, seed=5), Order(rows, size, seed=5)
    found = {step: one.at(step).tolist() for step in steps}
    assert {step: other.at(step).tolist() for step in reversed(steps)} == found


def test_the_order_is_this_one() -> None:
    """A change of it changes every run: it must not come unseen."""
    assert Order(np.arange(10), 4, seed=3).at(0).tolist() == FIRST
    assert Order(np.arange(10), 4, seed=3).at(5).tolist() == SIXTH


FIRST = [4, 8, 0]
SIXTH = [1, 5, 4, 7]


@FEW
@given(st.integers(1, 80), st.integers(1, 30), st.integers(0, 12), st.integers(0, 12), st.integers(1, 100))
def test_the_stream_is_the_same_from_any_step_and_in_any_blocks(count, size, first, more, block) -> None:
    stored = columns(count)
    order = Order(np.arange(count), size, seed=1)
    batches = Batches(stored, CPU)
    batches.block_rows = block
    seen = list(batches.stream(order, first, first + more))
    assert len(seen) == more
    for step, batch in enumerate(seen, first):
        rows = order.at(step)
        assert batch.rows.tolist() == rows.tolist()
        assert len(batch) == len(rows)
        for name, column in stored.items():
            assert torch.equal(batch.columns[name].values, column.values[rows])
            assert batch.columns[name].values.dtype == column.values.dtype
        assert torch.equal(batch.columns["label"].mask, stored["label"].mask[rows])
        assert batch.columns["wide"].mask is None
    assert gathering() == []


def test_blocks_hold_several_megabytes() -> None:
    assert Batches({"x": ColumnBatch(torch.zeros(10, 1024))}, CPU).block_rows == 2048
    assert Batches({"x": ColumnBatch(torch.zeros(10, 4 << 20))}, CPU).block_rows == 1
    assert Batches({"x": ColumnBatch(torch.zeros(0, 7))}, CPU).block_rows >= 1


def test_over_sampling_evens_out_the_classes() -> None:
    label = np.repeat([0, 1, 2], [900, 90, 10])
    rows = np.arange(1000) + 50
    order = Order(rows, 100, seed=0, odds=1 / np.bincount(label)[label])
    drawn = np.concatenate([order.of_epoch(epoch)[0] for epoch in range(30)])
    counts = np.bincount(label[drawn - 50])
    assert np.abs(counts / len(drawn) - 1 / 3).max() < 0.01
    assert len(order.of_epoch(0)[0]) == 1000
    assert set(range(950, 960)) <= set((drawn - 0).tolist())
    assert (order.of_epoch(0)[0] != order.of_epoch(1)[0]).any()
    never = Order(rows, 100, odds=(label != 1).astype(float))
    assert not (label[never.of_epoch(0)[0] - 50] == 1).any()


@pytest.mark.parametrize("after", [0, 1, 3])
def test_an_error_in_the_background_reaches_the_user(after, monkeypatch) -> None:
    batches = Batches(columns(40), CPU)
    batches.block_rows = 5
    inner, calls = batches.fetch, []

    def fetch(rows, sizes):
        calls.append(rows)
        if len(calls) > after:
            raise OSError("the disk is gone")
        return inner(rows, sizes)

    monkeypatch.setattr(batches, "fetch", fetch)
    seen = []
    with pytest.raises(OSError, match="the disk is gone"):
        seen.extend(batches.stream(Order(np.arange(40), 5), 0, 8))
    assert len(seen) <= after
    assert gathering() == []


def test_a_stream_that_is_left_early_leaves_no_thread() -> None:
    batches = Batches(columns(40), CPU)
    batches.block_rows = 5
    stream = batches.stream(Order(np.arange(40), 5), 0, 8)
    next(stream)
    assert len(gathering()) == 1
    stream.close()
    assert gathering() == []
    for _ in batches.stream(Order(np.arange(40), 5), 0, 8):
        break
    assert gathering() == []
    assert list(batches.stream(Order(np.arange(40), 5), 3, 3)) == []


def test_a_batch_is_the_users_own() -> None:
    """What augmentation puts into one batch does not show in the stored columns nor in the next batch."""
    stored = columns(8)
    before = stored["wide"].values.clone()
    batches = Batches(stored, CPU)
    for batch in batches.stream(Order(np.arange(8), 2), 0, 4):
        assert set(batch.columns) == set(stored)
        batch.columns["wide"].values.zero_()
        batch.columns.clear()
    assert torch.equal(stored["wide"].values, before)


def test_parts_and_changes_reach_everything() -> None:
    batch = Batch(
        columns(6),
        torch.arange(6),
        {"label": torch.arange(6.0)},
        {"label": ColumnBatch(torch.arange(6), torch.ones(6))},
        torch.linspace(0, 1, 6),
    )
    part = batch.part(2, 5)
    assert len(part) == 3
    assert part.rows.tolist() == part.weights["label"].tolist() == part.blends["label"].values.tolist() == [2, 3, 4]
    assert len(part.share) == len(part.blends["label"].mask) == len(part.columns["label"].mask) == 3
    assert part.rows.data_ptr() == batch.rows[2:].data_ptr()
    assert batch.to(CPU) is batch
    assert batch.part(0, 6).share.tolist() == batch.share.tolist()
