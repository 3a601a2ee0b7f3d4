"""Reshapes: nothing of what is to come is seen, counts, gaps, order, places, and agreement with a plain reading."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from zhixing.data.ordered import lists_of
from zhixing.data.reshape import RESHAPES, History, Windows
from zhixing.data.reshape_windows import commonest
from zhixing.data.split import SplitSettings, split
from zhixing.data.table import Problem, Table
from zhixing.errors import DataError, RecipeError
from zhixing.settings import settings_of

FEW = settings(max_examples=80, deadline=None, derandomize=True)


def table_of(**columns: Any) -> Table:
    return Table(pa.table(columns), name="log", place=lambda row: f"log.csv, line {row + 2}")


# --- histories

EVENTS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), min_size=1, max_size=40)


def plain_histories(events: list[tuple[int, int]], length: int, least: int) -> dict[int, tuple[list[str], str]]:
    """Row of an event -> its history and its split, one event after the other. The items are the rows' numbers."""
    so_far: dict[int, list[int]] = defaultdict(list)
    count = Counter(user for user, _ in events)
    found = {}
    for row in sorted(range(len(events)), key=lambda row: (events[row][1], row)):
        user = events[row][0]
        if len(so_far[user]) >= least:
            left = count[user] - len(so_far[user])
            part = "train" if count[user] < 3 else {1: "test", 2: "validation"}.get(left, "train")
            found[row] = ([str(one) for one in so_far[user]][-length:], part)
        so_far[user].append(row)
    return found


@FEW
@given(EVENTS, st.integers(1, 4), st.integers(1, 3))
def test_histories_hold_what_was_before_and_nothing_else(events, length, least) -> None:
    expected = plain_histories(events, length, least)
    assume(expected)
    log = table_of(
        who=[f"u{user}" for user, _ in events],
        what=[str(row) for row in range(len(events))],
        when=[time for _, time in events],
        stars=[time * 2 for _, time in events],
    )
    made = History(user="who", item="what", time="when", length=length, least=least).apply(log)
    rows = [int(item) for item in made["what"].to_pylist()]
    assert rows == sorted(expected, key=lambda row: (events[row][1], row))
    assert made["history"].to_pylist() == [expected[row][0] for row in rows]
    assert made["split"].to_pylist() == [expected[row][1] for row in rows]
    assert made["who"].to_pylist() == [f"u{events[row][0]}" for row in rows]
    assert made["stars"].to_pylist() == [events[row][1] * 2 for row in rows]
    assert [made.where(i) for i in range(made.rows)] == [log.where(row) for row in rows]
    assert made.problems == []
    for row, history in zip(rows, made["history"].to_pylist(), strict=True):
        assert all((events[int(one)][1], int(one)) < (events[row][1], row) for one in history)
        assert {events[int(one)][0] for one in history} == {events[row][0]}


def test_rows_without_a_user_an_item_or_a_time_are_told_of() -> None:
    log = table_of(u=["a", None, "a", "a", "a"], i=[1, 2, None, 4, 5], t=["2026-01-01", "2026-01-02", "2026-01-03", "x",
                   "2026-01-05"])  # fmt: skip
    log.problems = [Problem(1, "", "log.csv, line 99", "cut"), Problem(0, "i", "log.csv, line 2", "odd", fatal=False)]
    made = History(user="u", item="i", time="t").apply(log)
    assert made.data.to_pylist() == [{"u": "a", "history": ["1"], "i": "5", "t": "2026-01-05", "split": "train"}]
    assert [(one.row, one.column, one.place, one.fatal) for one in made.problems] == [
        (0, "", "log.csv, line 99", True),
        (0, "i", "log.csv, line 2", False),
        (0, "u", "log.csv, line 3", True),
        (0, "i", "log.csv, line 4", True),
        (0, "t", "log.csv, line 5", True),
    ]
    assert "not a date" in made.problems[-1].reason


def test_the_order_of_the_log_serves_where_there_is_no_time() -> None:
    log = table_of(u=[1, 2, 1, 1], i=["a", "b", "c", "d"])
    made = History(user="u", item="i", split="none").apply(log)
    assert (made.columns, made.split_column) == (["u", "history", "i"], None)
    assert made["history"].to_pylist() == [["a"], ["a", "c"]]
    with pytest.raises(DataError, match="more than 3 events"):
        History(user="u", item="i", least=3).apply(log)
    with pytest.raises(DataError, match="Did you mean"):
        History(user="u", item="i", time="tt").apply(table_of(u=[1], i=[1], t=[1]))
    with pytest.raises(DataError, match="called 'history' already"):
        History(user="u", item="i").apply(table_of(u=[1], i=[1], history=[1]))


def test_a_long_log_in_several_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    events = list(
        zip(random.integers(0, 500, 20_000).tolist(), random.integers(0, 10**6, 20_000).tolist(), strict=True)
    )
    log = table_of(u=[u for u, _ in events], i=[str(row) for row in range(len(events))], t=[t for _, t in events])
    monkeypatch.setattr(lists_of, "__defaults__", (10_000,))
    made = History(user="u", item="i", time="t", length=20).apply(log)
    assert made["history"].num_chunks > 10
    expected = plain_histories(events, 20, 1)
    assert made.rows == len(expected) == 20_000 - 500
    for row, history in zip(made["i"].to_pylist(), made["history"].to_pylist(), strict=True):
        assert history == expected[int(row)][0]


@FEW
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), max_size=12), st.integers(1, 20))
def test_lists_are_the_slices_whatever_the_pack(slices, pack) -> None:
    starts, lengths = (np.array([one[i] for one in slices], np.int64) for i in (0, 1))
    got = lists_of(pa.array(range(20)), starts, lengths, pack)
    assert got.to_pylist() == [list(range(start, start + length)) for start, length in slices]


# --- windows


def steps(cells: list[list[list[float | None]]]) -> list[list[float | None]]:
    return [[step[0] for step in cell] for cell in cells]


@st.composite
def series(draw: st.DrawFn) -> tuple[list[str], list[int]]:
    """Series told apart by a name, on a grid of 10 with gaps, of which a few are long, in any order of rows."""
    names, times = [], []
    for name in "ab"[: draw(st.integers(1, 2))]:
        gaps = draw(st.lists(st.sampled_from([1, 1, 1, 1, 2, 3, 40]), min_size=15, max_size=40))
        start = draw(st.integers(0, 20))
        times += [10 * (start + int(gap)) for gap in np.cumsum(gaps)]
        names += [name] * len(gaps)
    order = draw(st.permutations(range(len(names))))
    return [names[row] for row in order], [times[row] for row in order]


@FEW
@given(series(), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_windows_do_not_see_the_future_of_another_split(given, past, future, stride) -> None:
    names, times = given
    assume(commonest(np.concatenate([np.diff(sorted(t for n, t in zip(names, times, strict=True) if n == name))
                                     for name in set(names)])) == 10)  # fmt: skip
    shape = Windows(time="t", values=("v",), by="who", past=past, future=future, stride=stride, split=(0.6, 0.2, 0.2))
    log = table_of(who=names, t=times, v=[float(time) for time in times])
    try:
        made = shape.apply(log)
    except DataError:
        with pytest.raises(DataError, match="is left for"):
            shape.apply(log)
        reject()
    first, second = shape.cuts(np.array(times, float))
    lows: dict[str, list[float]] = defaultdict(list)
    highs: dict[str, list[float]] = defaultdict(list)
    for name, before, after, part in zip(
        made["who"].to_pylist(), steps(made["past"].to_pylist()), steps(made["future"].to_pylist()),
        made["split"].to_pylist(), strict=True,
    ):  # fmt: skip
        window = [*before, *after]
        (at, value), *_ = [(at, value) for at, value in enumerate(window) if value is not None]
        own = {time for n, time in zip(names, times, strict=True) if n == name}
        grid = [value + 10 * (place - at) for place in range(len(window))]
        assert window == [time if time in own else None for time in grid]  # gaps are gaps, and nothing else is
        assert any(one is not None for one in before)
        assert any(one is not None for one in after)
        lows[part].append(grid[past])
        highs[part].append(grid[-1])
    assert max(highs["train"]) < first <= min(lows["validation"])
    assert max(highs["validation"]) < second <= min(lows["test"])
    assert all(made.where(row).startswith("log.csv, line ") for row in range(made.rows))


@FEW
@given(st.integers(5, 60), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))
def test_the_number_of_windows(count, past, future, stride) -> None:
    shape = Windows(time="t", values=("v",), past=past, future=future, stride=stride, split=(1.0, 0.0, 0.0))
    log = table_of(t=range(count), v=[float(i) for i in range(count)])
    every = list(range(0, count - past - future + 1, stride))
    if not every:
        with pytest.raises(DataError, match="no window"):
            shape.apply(log)
        return
    made = shape.apply(log)
    assert steps(made["past"].to_pylist()) == [[float(x) for x in range(start, start + past)] for start in every]
    assert made.problems == []
    assert [made.where(row) for row in range(made.rows)] == [log.where(start + past) for start in every]
    shape = Windows(time="t", values=("v",), past=past, future=future, stride=stride, split=(0.5, 0.0, 0.5))
    first, second = shape.cuts(np.arange(count, dtype=float))
    assert first == second == round(count / 2)
    parts = ["train" if s + past + future <= first else "test" if s + past >= first else None for s in every]
    if {"train", "test"} <= set(parts):
        made = shape.apply(log)
        assert made["split"].to_pylist() == [part for part in parts if part]
        lost = parts.count(None)
        told = [f"windows left out because a cut of the split lies within their future: {lost}"] if lost else []
        assert [(one.reason, one.fatal) for one in made.problems] == [(reason, False) for reason in told]


def test_several_features_and_dates_with_a_gap() -> None:
    days = [date(2026, 1, 1) + timedelta(days=day) for day in (0, 1, 2, 4, 5, 6)]
    log = table_of(
        day=[f"{day:%Y-%m-%d}" for day in reversed(days)],
        sales=["6", "5", "x", "3", "2", "1"],
        rain=[0.6, 0.5, 0.4, None, 0.2, 0.1],
    )
    shape = Windows(time="day", values=("sales",), exogenous=("rain",), past=2, future=2, split=(1.0, 0.0, 0.0))
    made = shape.apply(log)
    assert made["past"].to_pylist() == [
        [[1.0, 0.1], [2.0, 0.2]],
        [[3.0, None], [None, None]],
        [[None, None], [None, 0.4]],
    ]
    assert made["future"].to_pylist() == [[[3.0], [None]], [[None], [5.0]], [[5.0], [6.0]]]
    assert [(one.place, one.reason) for one in made.problems] == [
        ("log.csv, line 4", "not a finite number, taken as missing"),
        ("log", "windows left out because their past or future holds no value: 1"),
    ]


def test_odd_times_are_told_of_with_their_row() -> None:
    times = [0, 10, 20, 20, 35, 45, None, 55]
    made = Windows(time="t", values=("v",), past=2, future=1, split=(1.0, 0.0, 0.0)).apply(
        table_of(t=times, v=[float(i) for i in range(8)])
    )
    assert [(one.place, one.fatal, one.reason) for one in made.problems] == [
        ("log.csv, line 8", True, "the cell is empty"),
        ("log.csv, line 5", True, "the time of a row before it in its series"),
        ("log.csv, line 6", False, "15 after the row before it, where steps are of 10"),
        ("log", False, "windows left out because their past or future holds no value: 1"),
    ]
    assert steps(made["past"].to_pylist()) == [[0.0, 1.0], [2.0, None], [None, 4.0], [4.0, 5.0]]
    monthly = [date(2020 + month // 12, month % 12 + 1, 1) for month in range(36)]
    made = Windows(time="t", values=("v",), past=12, future=3, split=(1.0, 0.0, 0.0)).apply(
        table_of(t=monthly, v=[float(i) for i in range(36)])
    )
    assert (made.rows, made.problems) == (36 - 14, [])  # months are of unequal length, and of one step


def test_a_gap_of_ages_costs_nothing() -> None:
    times = [*range(20), *range(10**12, 10**12 + 20)]
    made = Windows(time="t", values=("v",), past=3, future=2, split=(1.0, 0.0, 0.0)).apply(
        table_of(t=times, v=[float(i) for i in range(40)])
    )
    whole = [cell for cell in steps(made["past"].to_pylist()) if None not in cell]
    assert [cell for cell in whole if cell[0] < 20 <= cell[-1]] == []
    assert made.rows < 60


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=30), st.integers(1, 6))
def test_a_log_is_asked_with_each_users_newest_items(events: list[tuple[int, int]], length: int) -> None:
    log = table_of(
        who=[f"u{who}" for who, _ in events], what=[f"i{what}" for _, what in events], when=[*range(len(events))]
    )
    asked = History(user="who", item="what", time="when", length=length).ask(log)
    want = {f"u{who}": [f"i{what}" for one, what in events if one == who][-length:] for who, _ in events}
    rows = zip(asked["who"].to_pylist(), asked["history"].to_pylist(), strict=True)
    assert list(rows) == list(want.items())
    last = [max(row for row, (who, _) in enumerate(events) if f"u{who}" == name) for name in want]
    assert [asked.where(row) for row in range(asked.rows)] == [log.where(row) for row in last]


def test_a_series_is_asked_with_its_last_steps() -> None:
    long = table_of(shop=list("aabaaba"), day=[1, 2, 1, 4, 5, 2, 6], sold=[1.0, 2.0, 10.0, 4.0, 5.0, 20.0, 6.0])
    windows = Windows(time="day", values=("sold",), by="shop", past=4, future=2)
    asked = windows.ask(long)
    assert asked["shop"].to_pylist() == ["a", "b"]
    assert asked["past"].to_pylist() == [[[None], [4.0], [5.0], [6.0]], [[10.0], [20.0]]]
    assert [(one.row, one.fatal) for one in asked.problems] == [(1, False)]
    assert "fewer than 4 steps" in asked.problems[0].reason


def test_the_split_of_windows_is_the_split_of_the_run() -> None:
    made = Windows(time="t", values=("v",), past=4, future=2).apply(table_of(t=range(100), v=[0.5] * 100))
    parts = split(made, SplitSettings(), seed=3)
    assert {name: len(rows) for name, rows in parts.items()} == dict(Counter(made["split"].to_pylist()))


def test_settings_are_held_against_their_rules() -> None:
    with pytest.raises(RecipeError, match="add up to 1"):
        Windows(time="t", values=("v",), split=(0.5, 0.1, 0.1))
    with pytest.raises(RecipeError, match="named more than once"):
        Windows(time="t", values=("v",), exogenous=("v",))
    with pytest.raises(DataError, match="left for validation"):
        Windows(time="t", values=("v",), past=8, future=8).apply(table_of(t=range(30), v=[1.0] * 30))
    models = {name: settings_of(kind, name=name) for name, kind in RESHAPES.items()}
    chosen = models["windows"](time="t", values=["v"], past=7)
    assert RESHAPES["windows"](**chosen.keywords()).past == 7  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="past"):
        models["windows"](time="t", values=["v"], past=0)
    assert RESHAPES["history"](**models["history"](user="u", item="i").keywords()).length == 50  # type: ignore[attr-defined]
