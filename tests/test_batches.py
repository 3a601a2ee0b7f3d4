"""Order and batches: every row once, resumable at any step, and no thread left behind."""

from __future__ import annotations

import threading
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zhixing.columns.column import Ragged
from zhixing.data.batches import Batch, Batches, ColumnBatch, Order, stored_row

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


# --- rows of unequal length

LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=60)


def ragged(lengths: list[int], width: int = 0, dtype: type = np.int32) -> Ragged:
    """Rows whose values are all different, and never 0."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    shape = (int(offsets[-1]), *([width] if width else []))
    return Ragged(torch.from_numpy(1 + np.arange(np.prod(shape), dtype=dtype).reshape(shape)), offsets)


@FEW
@given(LENGTHS, st.sampled_from([0, 1, 3]), st.data())
def test_a_batch_of_unequal_rows_is_what_one_would_lay_out_by_hand(lengths, width, data) -> None:
    stored = ragged(lengths, width, np.float32 if width else np.int32)
    rows = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=20))
    values, mask = Batches({"x": stored}, CPU).gather(np.array(rows)).columns["x"]
    longest = max(1, max(lengths[row] for row in rows))
    assert values.shape == (len(rows), longest, *([width] if width else []))
    assert values.dtype == (torch.float32 if width else torch.int64)
    assert mask is not None
    for place, row in enumerate(rows):
        own = stored.row(row)
        assert torch.equal(values[place, : lengths[row]], own.to(values.dtype))
        assert torch.equal(stored_row(stored, row), own)
        assert not values[place, lengths[row] :].any()
        assert mask[place].tolist() == [step < lengths[row] for step in range(longest)]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64, np.float32])
def test_stored_types_stay_what_they_are_but_for_ids(dtype) -> None:
    values = Batches({"x": ragged([2, 3], dtype=dtype)}, CPU).gather(np.array([1, 0])).columns["x"].values
    assert values.numpy().dtype == (np.int64 if dtype == np.int32 else dtype)
    none = Batches({"x": ragged([0, 0], dtype=dtype)}, CPU).gather(np.array([1, 0])).columns["x"]
    assert none.values.tolist() == [[0], [0]]
    assert none.mask is not None
    assert not none.mask.any()


@FEW
@given(LENGTHS, st.integers(1, 20), st.integers(0, 9), st.integers(1, 9), st.integers(1, 60))
def test_streams_of_unequal_rows_are_the_same_in_any_blocks(lengths, size, first, more, block) -> None:
    stored = {"x": ragged(lengths), "y": ragged([*reversed(lengths)], 2, np.float32)}
    plain = {"label": ColumnBatch(torch.arange(len(lengths)))}
    batches = Batches({**stored, **plain}, CPU)
    rows = np.arange(len(lengths))
    order = Order(rows, size, seed=2, lengths=batches.lengths(rows))
    batches.block_rows = block
    for step, batch in enumerate(batches.stream(order, first, first + more), first):
        wanted = order.at(step)
        assert batch.rows.tolist() == batch.columns["label"].values.tolist() == wanted.tolist()
        for name in stored:  # each step is padded to the longest of its own rows, whatever it was fetched with
            one, other = batch.columns[name], Batches(stored, CPU).gather(wanted).columns[name]
            assert torch.equal(one.values, other.values)
            assert torch.equal(one.mask, other.mask)
    assert gathering() == []


@FEW
@given(LENGTHS, st.integers(1, 20), st.integers(0, 5), st.booleans())
def test_every_row_once_in_the_order_of_length(lengths, size, seed, shuffle) -> None:
    rows = np.arange(len(lengths)) * 2 + 5
    order = Order(rows, size, seed=seed, shuffle=shuffle, lengths=np.array(lengths))
    length_of = dict(zip(rows.tolist(), lengths, strict=True))
    for epoch in range(2):
        steps = [order.at(epoch * order.steps_per_epoch + step) for step in range(order.steps_per_epoch)]
        seen = [row for rows_ in steps for row in rows_.tolist()]
        assert sorted(seen) == rows.tolist()
        sizes = [len(rows_) for rows_ in steps]
        assert max(sizes) - min(sizes) <= 1
        spans = sorted(
            (min(length_of[row] for row in one), max(length_of[row] for row in one)) for one in map(list, steps)
        )
        assert all(one[1] <= other[0] for one, other in pairwise(spans))  # they do not overlap
        if not shuffle:
            assert [length_of[row] for row in seen] == sorted(lengths)


def test_rows_of_one_length_come_together_and_yet_by_chance() -> None:
    draw = np.random.default_rng(0)
    lengths = draw.integers(1, 500, 40_000)
    rows = np.arange(len(lengths))
    batches = Batches({"x": ragged(lengths.tolist())}, CPU)
    waste = {}
    for name, given_ in (("by length", lengths), ("by chance", None)):
        order = Order(rows, 32, seed=0, lengths=given_)
        longest = [lengths[order.at(step)].max() for step in range(order.steps_per_epoch)]
        sizes = [len(order.at(step)) for step in range(order.steps_per_epoch)]
        waste[name] = 1 - lengths.sum() / (np.array(longest) * sizes).sum()
    assert waste["by length"] < 0.02
    assert waste["by chance"] > 0.4
    order = Order(rows, 32, seed=0, lengths=lengths)
    means = np.array([lengths[order.at(step)].mean() for step in range(order.steps_per_epoch)])
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.1  # long and short batches take no turns
    assert sorted(order.at(0).tolist()) != sorted(order.at(order.steps_per_epoch).tolist())  # other company each epoch
    assert order.at(3).tolist() == Order(rows, 32, seed=0, lengths=lengths).at(3).tolist()
    assert order.at(3).tolist() != Order(rows, 32, seed=1, lengths=lengths).at(3).tolist()
    assert batches.lengths(np.array([7, 3])).tolist() == lengths[[7, 3]].tolist()


def test_rows_of_several_columns_go_by_the_longest_and_then_by_which_it_is() -> None:
    rng = np.random.default_rng(0)
    first = rng.geometric(0.05, 4000)
    second = np.maximum(1, (first * rng.normal(1.2, 0.2, 4000)).astype(int))
    stored = {"x": ragged(first.tolist()), "y": ragged(second.tolist()), "z": ColumnBatch(torch.zeros(4000))}
    batches, rows = Batches(stored, CPU), np.arange(4000)
    order = Order(rows, 32, lengths=batches.lengths(rows))
    for _ in batches.stream(order, 0, order.steps_per_epoch):
        pass
    shares = {"ours": batches.padding / batches.steps}
    for name, key in (("sum", first + second), ("first", first)):
        batches.steps = batches.padding = 0
        order = Order(rows, 32, lengths=key)
        for _ in batches.stream(order, 0, order.steps_per_epoch):
            pass
        shares[name] = batches.padding / batches.steps
    assert shares["ours"] < 0.12
    assert shares["ours"] < 0.8 * min(shares["sum"], shares["first"])
    assert Batches({"x": stored["x"]}, CPU).lengths(np.array([2, 0])).tolist() == [first[2], first[0]]
    assert Batches({"z": stored["z"]}, CPU).lengths(np.array([0])) is None
    assert Batches(stored, CPU).ragged
    assert not Batches({"z": stored["z"]}, CPU).ragged


def test_padding_is_counted_in_training_alone() -> None:
    stored = {"x": ragged([1, 4, 0, 3])}
    batches = Batches(stored, CPU)
    batches.block_rows = 1
    rows = np.arange(4)
    for _ in batches.stream(Order(rows, 2, shuffle=False), 0, 2):
        pass
    assert (batches.steps, batches.padding) == (0, 0)
    order = Order(rows, 2, seed=0)
    for _ in batches.stream(order, 0, 2):
        pass
    by_hand = [2 * max(1, *([1, 4, 0, 3][row] for row in order.at(step))) for step in range(2)]
    assert (batches.steps, batches.padding) == (sum(by_hand), sum(by_hand) - 8)


def test_over_sampled_rows_come_by_length_too() -> None:
    lengths = np.array([1] * 50 + [9] * 50)
    odds = np.array([1.0] * 50 + [0.0] * 50)
    order = Order(np.arange(100), 10, odds=odds, lengths=lengths)
    assert set(np.concatenate([order.at(step) for step in range(10)]).tolist()) <= set(range(50))
    even = Order(np.arange(100), 10, odds=np.ones(100), lengths=lengths)
    mixed = [len(set(lengths[even.at(step)].tolist())) for step in range(even.steps_per_epoch)]
    assert sum(one > 1 for one in mixed) <= 1


def test_parts_of_a_padded_batch_keep_its_length() -> None:
    batch = Batches({"x": ragged([1, 5, 2])}, CPU).gather(np.array([0, 1, 2]))
    part = batch.part(0, 1).columns["x"]
    assert part.values.shape == part.mask.shape == (1, 5)
