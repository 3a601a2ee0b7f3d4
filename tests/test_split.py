"""Splits: shares, classes in proportion, groups and instants whole, and the same rows for good."""

from __future__ import annotations

import datetime
import itertools
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from zhixing.data.split import SPLITS, Split, SplitSettings, split
from zhixing.data.table import Table
from zhixing.errors import DataError

FEW = settings(max_examples=80, deadline=None, derandomize=True)
SHARES = st.sampled_from([(0.8, 0.1, 0.1), (0.6, 0.2, 0.2), (0.9, 0.1, 0), (0.5, 0, 0.5), (1, 0, 0), (0.7, 0.15, 0.15)])


def settings_of(shares: tuple[float, float, float] = (0.8, 0.1, 0.1), **more: Any) -> SplitSettings:
    return SplitSettings(train=shares[0], validation=shares[1], test=shares[2], **more)


def table_of(**columns: Any) -> Table:
    return Table(pa.table(columns))


def check(parts: Split, rows: int) -> None:
    """Every row is in one split, and each split is in the table's order."""
    assert list(parts) == list(SPLITS)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(rows))
    assert all((np.diff(part) > 0).all() for part in parts.values())


def test_the_rows_are_these() -> None:
    """A change of these changes what every run was tested on: it must not come unseen."""
    table = table_of(x=list(range(30)), y=["a", "b", "c"] * 10, g=[i // 3 for i in range(30)])
    found = {
        by: [split(table, settings_of(by=by, column=column), 7)[part].tolist() for part in SPLITS[1:]]
        for by, column in (("random", None), ("stratified", "y"), ("group", "g"), ("time", "x"))
    }
    assert found == PINNED


PINNED = {
    "random": [[4, 13, 23], [14, 16, 18]],
    "stratified": [[13, 23, 27], [14, 16, 18]],
    "group": [[3, 4, 5], [9, 10, 11]],
    "time": [[24, 25, 26], [27, 28, 29]],
}


@FEW
@given(st.integers(1, 400), SHARES, st.integers(0, 2**32))
def test_random(rows, shares, seed) -> None:
    table = table_of(x=np.zeros(rows))
    parts = split(table, settings_of(shares, by="random"), seed)
    check(parts, rows)
    for part, share in zip(SPLITS, shares, strict=True):
        assert abs(len(parts[part]) - share * rows) <= (1 if rows > 20 else 2)
        if share and rows >= 3:
            assert len(parts[part])
    assert all((parts[part] == split(table, settings_of(shares, by="random"), seed)[part]).all() for part in SPLITS)


def test_seeds_differ() -> None:
    table = table_of(x=np.zeros(200))
    tests = {tuple(split(table, settings_of(), seed)["test"].tolist()) for seed in range(20)}
    assert len(tests) == 20


@FEW
@given(st.lists(st.integers(1, 90), min_size=1, max_size=8), SHARES, st.integers(0, 99))
def test_stratified(sizes, shares, seed) -> None:
    draw = np.random.default_rng(seed)
    label = draw.permutation(np.repeat([f"class {i}" for i in range(len(sizes))], sizes))
    parts = split(table_of(y=label), settings_of(shares), seed, target="y")
    check(parts, len(label))
    filled = 0
    for index, size in enumerate(sizes):
        for part, share in zip(SPLITS, shares, strict=True):
            count = int((label[parts[part]] == f"class {index}").sum())
            assert abs(count - share * size) <= 1 + 1e-9 + (size > 1 and count == 1 and share * size < 0.5)
            filled += count
        if shares[0] >= 0.5:
            assert f"class {index}" in label[parts["train"]]
    if len(label) >= 3 and max(sizes) > 2:
        assert all(len(parts[part]) for part, share in zip(SPLITS, shares, strict=True) if share)


def test_stratified_with_missing_classes_and_other_types() -> None:
    for cells in ([1, None, 2, 1] * 25, [1.5, None] * 50, [True, False] * 50, [b"a", b"b"] * 50):
        parts = split(table_of(y=pa.array(cells)), settings_of(), 0, target="y")
        check(parts, 100)
        assert [len(part) for part in parts.values()] == pytest.approx([80, 10, 10], abs=3)
    with pytest.raises(DataError, match="cannot be told apart"):
        split(table_of(y=[[1], [2]]), settings_of(), 0, target="y")


@FEW
@given(st.lists(st.integers(1, 12), min_size=12, max_size=60), st.integers(0, 99))
def test_no_group_is_in_two_splits(sizes, seed) -> None:
    group = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    parts = split(table_of(g=group), settings_of(by="group", column="g"), seed)
    check(parts, len(group))
    of_part = [set(group[rows].tolist()) for rows in parts.values()]
    assert all(of_part)
    assert sum(map(len, of_part)) == len(sizes)
    for part, share in zip(SPLITS, (0.8, 0.1, 0.1), strict=True):
        assert abs(len(parts[part]) - share * len(group)) <= 2 * max(sizes)


def test_too_few_groups() -> None:
    with pytest.raises(DataError, match="two groups or more"):
        split(table_of(g=["a"] * 9), settings_of(by="group", column="g"), 0)
    with pytest.raises(DataError, match="leaves none of 9 rows for validation"):
        split(table_of(g=["a", "b", "b"] * 3), settings_of(by="group", column="g"), 0)
    parts = split(table_of(g=["a", "b", "c"] * 3), settings_of(by="group", column="g"), 0)
    assert [len(part) for part in parts.values()] == [3, 3, 3]


DAYS = [datetime.date(2020, 1, 1) + datetime.timedelta(days=i) for i in range(50)]


@pytest.mark.parametrize(
    "cells",
    [
        list(range(50)), [i * 0.5 for i in range(50)], [str(i) for i in range(50)], DAYS, [str(day) for day in DAYS],
        [f"{day.year}/{day.month}/{day.day}" for day in DAYS], [f"{day.day}.{day.month}.{day.year}" for day in DAYS],
        pa.array(DAYS).cast(pa.timestamp("ns")),
        pa.array(DAYS).cast(pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC")), pa.array(DAYS, pa.date64()),
        [f"{day} 10:00" for day in DAYS],
    ],
)  # fmt: skip
def test_time_in_any_writing(cells) -> None:
    order = np.random.default_rng(0).permutation(50)
    values = (cells if isinstance(cells, pa.Array) else pa.array(cells)).take(pa.array(order))
    parts = split(table_of(t=values), settings_of(by="time", column="t"), 0)
    check(parts, 50)
    assert {part: sorted(order[rows].tolist()) for part, rows in parts.items()} == {
        "train": list(range(40)), "validation": list(range(40, 45)), "test": list(range(45, 50)),
    }  # fmt: skip


@FEW
@given(st.lists(st.integers(0, 30), min_size=3, max_size=100), st.integers(0, 9))
def test_the_past_comes_first_and_ties_stay_together(times, seed) -> None:
    try:
        parts = split(table_of(t=times), settings_of(by="time", column="t"), seed)
    except DataError:  # so many rows are of one instant that nothing comes after it
        assert max(Counter(times).values()) >= 2
        return
    check(parts, len(times))
    when = [np.array(times)[rows] for rows in parts.values()]
    for before, after in itertools.pairwise(when):
        assert before.max() < after.min()


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["2020-01-01", None, "2020-01-02"], "is empty"),
        (["2020-01-01", "2020-02-30", "x"], "not a date .*'2020-02-30'"),
        ([1.0, float("inf"), 2.0], "finite number in each row of 't', not inf"),
        ([5, 5, 5, 5], "leaves none of 4 rows for validation"),
    ],
)
def test_times_that_are_none(cells, words) -> None:
    with pytest.raises(DataError, match=words):
        split(table_of(t=cells), settings_of(by="time", column="t"), 0)


def test_a_given_split_in_many_spellings() -> None:
    words = ["train", "Training", " TRAIN", "val", "Valid", "validation", "DEV", "test", "testing "]
    parts = split(table_of(s=words), settings_of(by="column", column="s"), 0)
    assert {part: rows.tolist() for part, rows in parts.items()} == {
        "train": [0, 1, 2], "validation": [3, 4, 5, 6], "test": [7, 8],
    }  # fmt: skip
    with pytest.raises(DataError, match=r"not 'tset'.*Did you mean 'test'"):
        split(table_of(s=["train", "tset"]), settings_of(by="column", column="s"), 0)
    with pytest.raises(DataError, match="not None"):
        split(table_of(s=["train", None]), settings_of(by="column", column="s"), 0)


@FEW
@given(st.integers(2, 300), st.integers(1, 50), st.integers(0, 9))
def test_validation_is_taken_from_training_rows(train, test, seed) -> None:
    table = table_of(s=["train"] * train + ["test"] * test)
    parts = split(table, settings_of(by="column", column="s"), seed)
    check(parts, train + test)
    assert parts["test"].tolist() == list(range(train, train + test))
    assert len(parts["validation"]) == max(1, round(train / 9))
    without = split(table, settings_of((0.9, 0, 0.1), by="column", column="s"), seed)
    assert without["train"].tolist() == list(range(train))


def test_what_auto_does() -> None:
    table = table_of(y=["a"] * 50 + ["b"] * 50, split=["train", "test"] * 50)
    assert len(split(table, SplitSettings(), 0)["test"]) == 10
    table.split_column = "split"
    own = split(table, SplitSettings(), 0, target="y")
    assert own["test"].tolist() == list(range(1, 100, 2))
    assert split(table, settings_of(column="y"), 0)["test"].tolist() == own["test"].tolist()
    table.split_column = None
    assert {int((split(table, SplitSettings(), seed, target="y")["test"] < 50).sum()) for seed in range(9)} <= {4, 5, 6}


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(ValidationError, match=r"must add up to 1, not 1\.1"):
        SplitSettings(train=0.9)
    with pytest.raises(ValidationError, match="needs the name of a column"):
        SplitSettings(by="group")
    with pytest.raises(DataError, match="needs a column"):
        split(table_of(x=[1, 2]), SplitSettings(by="stratified"), 0)
    with pytest.raises(DataError, match="no column is called 'q'"):
        split(table_of(x=[1, 2]), settings_of(by="group", column="q"), 0)
    with pytest.raises(DataError, match="none of 0 rows"):
        split(table_of(x=pa.array([], pa.string())), SplitSettings(), 0)
    with pytest.raises(DataError, match="none of 0 rows"):
        split(table_of(x=pa.array([], pa.string())), SplitSettings(), 0, target="x")
