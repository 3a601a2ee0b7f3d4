"""Broken rows: each is told of with its row, place and reason; none is replaced; the others stay as they were."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from zhixing.columns import COLUMNS
from zhixing.data.prepare import prepare
from zhixing.data.source import open_source
from zhixing.data.split import SplitSettings, split
from zhixing.data.table import Table
from zhixing.errors import DataError

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.broken_rows import WAYS, make, order_kept, read, right


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    return make(tmp_path_factory.mktemp("broken"))


def test_each_of_500_broken_rows_is_reported_and_no_other(truth, tmp_path) -> None:
    table, made, prepared = read(truth, tmp_path)
    assert len(WAYS) == 25
    assert table.rows == 10_000 - 40
    reports = [(p.row, p.column, p.place) for p in prepared.problems]
    assert len(reports) == len(set(reports)) == 500
    assert [str(p) for p in prepared.problems if not right(truth, p)] == []
    assert order_kept(truth, made, prepared)
    lost = sum(way.fatal for way in WAYS.values()) * 20
    assert prepared.broken == lost
    assert sum(map(len, prepared.split.values())) == 10_000 - lost


def test_what_the_cache_gives_back_is_the_same(truth, tmp_path) -> None:
    _, first_columns, first = read(truth, tmp_path)
    _, second_columns, second = read(truth, tmp_path)
    _, _, without = read(truth, None)
    assert first.problems == second.problems == without.problems
    assert first.fingerprint == second.fingerprint == without.fingerprint
    assert {n: c.state() for n, c in first_columns.items()} == {n: c.state() for n, c in second_columns.items()}


@pytest.mark.parametrize("on_error", ["auto", "stop"])
def test_too_many_broken_rows_stop(truth, tmp_path, on_error) -> None:
    with pytest.raises(DataError, match=r"400 of 10000 rows \(4\.00%\) cannot be used") as caught:
        read(truth, tmp_path, on_error)
    assert "--on-error skip" in str(caught.value)
    assert str(caught.value).count("\n  ") == 11  # the first ten, and how many more


def prepare_numbers(cells: list[str | None], on_error: str):
    table = Table(pa.table({"x": cells, "y": [str(i % 2) for i in range(len(cells))]}))
    made = {"x": COLUMNS["number"](), "y": COLUMNS["category"]()}
    made["y"].role = "output"
    return prepare(table, made, split(table, SplitSettings(by="random"), 0), cache=None, on_error=on_error)


@pytest.mark.parametrize(("bad", "stops"), [(1, {"stop"}), (2, {"stop"}), (3, {"stop", "auto"})])
def test_one_percent_is_where_auto_stops(bad, stops) -> None:
    cells = ["x"] * bad + [str(i) for i in range(200 - bad)]
    for on_error in ("stop", "auto", "skip"):
        if on_error in stops:
            with pytest.raises(DataError, match=f"{bad} of 200 rows"):
                prepare_numbers(cells, on_error)
        else:
            assert prepare_numbers(cells, on_error).broken == bad


def test_all_rows_broken(tmp_path) -> None:
    with pytest.raises(DataError, match="no training row holds a number"):
        prepare_numbers(["x"] * 20, "skip")
    table = open_source({"photo": [f"{i}.png" for i in range(20)], "y": ["a", "b"] * 10})
    made = {"photo": COLUMNS["image"](size=8, channels=3), "y": COLUMNS["category"]()}
    made["y"].role = "output"
    with pytest.raises(DataError, match="no usable row is left"):
        prepare(table, made, split(table, SplitSettings(), 0), cache=tmp_path, on_error="skip")


def test_no_row_and_one_row(tmp_path) -> None:
    (tmp_path / "empty.csv").write_text("x,y\n")
    table = open_source(tmp_path / "empty.csv")
    with pytest.raises(DataError, match="none of 0 rows to learn from"):
        split(table, SplitSettings(), 0)
    one = open_source({"x": [1.5], "y": ["a"]})
    made = {"x": COLUMNS["number"](), "y": COLUMNS["category"]()}
    made["y"].role = "output"
    prepared = prepare(one, made, split(one, SplitSettings(), 0), cache=tmp_path)
    assert {part: len(rows) for part, rows in prepared.split.items()} == {"train": 1, "validation": 0, "test": 0}
    assert prepared.columns["x"].values.tolist() == [[0.0]]


def test_many_copies_are_told_of_once() -> None:
    prepared = prepare_numbers(["1", "2"] * 50, "stop")
    assert [p.reason for p in prepared.problems] == ["98 rows repeat an earlier row in every column; this is the first"]


def test_a_row_with_one_of_two_targets_is_kept_with_a_mask() -> None:
    table = Table(pa.table({"x": [1.0, 2, 3, 4], "a": ["u", None, "v", None], "b": [1.0, 2.0, None, None]}))
    made = {"x": COLUMNS["number"](), "a": COLUMNS["category"](), "b": COLUMNS["number"]()}
    made["a"].role = made["b"].role = "output"
    whole = SplitSettings(train=1, validation=0, test=0)
    prepared = prepare(table, made, split(table, whole, 0), cache=None, on_error="skip")
    assert prepared.split["train"].tolist() == [0, 1, 2]
    assert prepared.columns["a"].mask.tolist() == [True, False, True, False]
    assert prepared.columns["b"].mask.tolist() == [True, True, False, False]
    assert [(p.row, p.column) for p in prepared.problems] == [(3, "a, b")]


def test_years_that_python_lacks_are_told_of_too() -> None:
    days = pa.array([10**7, 1, 2, None], pa.int32()).cast(pa.date32())
    table = Table(pa.table({"day": days, "y": ["a", "b", "a", "b"]}))
    made = {"day": COLUMNS["date"](), "y": COLUMNS["category"]()}
    made["y"].role = "output"
    whole = SplitSettings(train=1, validation=0, test=0)
    prepared = prepare(table, made, split(table, whole, 0), cache=None, on_error="skip")
    assert [(p.row, p.reason) for p in prepared.problems] == [(0, "the year is outside 1 … 9999")]


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_learned_from_validation_and_test_rows(seed) -> None:
    """Every cell outside the training rows is changed; no column's state may be."""

    def states(strange: bool) -> dict[str, object]:
        draw = np.random.default_rng(0)
        table = {
            "number": draw.normal(size=90),
            "log": draw.normal(size=90),
            "rank": draw.normal(size=90),
            "kind": draw.choice(["a", "b"], 90).astype(object),
            "tags": draw.choice(["a|b", "b"], 90).astype(object),
            "day": draw.choice(["2026-01-01", "2025-02-03"], 90).astype(object),
            "picture": draw.integers(0, 256, (90, 5, 5), np.uint8),
            "y": np.array(["u", "v", "w"] * 30, object),
        }
        parts = split(open_source(table), SplitSettings(by="random"), seed)
        rows = np.concatenate([parts["validation"], parts["test"]])
        if strange:
            for name in ("number", "log", "rank"):
                table[name][rows] = [np.nan, 1e6] * 9
            for name in ("kind", "tags", "y"):
                table[name][rows] = "never seen"
            table["day"][rows] = "1800-01-01 10:00"
            table["picture"][rows] = 255
        source = open_source(table)
        kinds = {"kind": "category", "tags": "tags", "day": "date", "picture": "image", "y": "category"}
        made = {name: COLUMNS[kinds.get(name, "number")]() for name in table}
        made["log"], made["rank"] = COLUMNS["number"](scale="log"), COLUMNS["number"](scale="quantile")
        made["y"].role = "output"
        prepare(source, made, parts, cache=None, on_error="skip")
        return {name: column.state() for name, column in made.items()}

    assert states(strange=True) == states(strange=False)
