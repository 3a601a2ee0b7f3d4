"""Histories: the newest items, those that training rows have, and a reference that goes item by item."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from column_cells import done, fit, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st

from zhixing.columns.history import History
from zhixing.columns.ragged import append, first, keep_rows, last, list_lengths, owners
from zhixing.columns.tags import Tags
from zhixing.errors import DataError

FEW = settings(max_examples=60, deadline=None, derandomize=True)
GOOD = ["tea|milk|tea", "bread", " milk | 北京 ", "tea|bread|milk|tea|tea"]
ODD = [None, "", "  ", "|", " | |", "rum", "tea|rum|gin"]


def fitted(cells: Any, role: str = "input", **keywords: Any) -> History:
    return fit(History(**keywords), cells, role)


def restored(column: History, cells: Any) -> list[Any]:
    rows = rows_of(done(column, cells))
    return column.restore(torch.tensor([row + [0] * (60 - len(row)) for row in rows]))


# --- the contract


@pytest.mark.parametrize("role", ["input", "output"])
def test_contract(role) -> None:
    column = fitted(GOOD, role, length=3)
    cells = pa.array([*ODD, *GOOD, *ODD])
    result = done(column, cells)
    rows, bad, spec = rows_of(result), len(ODD), column.spec()
    assert (spec.kind, spec.shape, spec.vocabulary) == ("tokens", (3,), 2 + len(column.items))
    assert (result.values.dtype, len(rows), result.present.dtype) == (np.int32, len(cells), bool)
    assert (result.values > 0).all()
    assert (result.values < spec.vocabulary).all()
    assert [bool(row) for row in rows] == result.present.tolist()
    assert result.present[bad:-bad].all()
    assert result.present[:bad].tolist() == [False] * 5 + [role == "input"] * 2
    told = [(finding.index, finding.kind) for finding in result.findings if finding.index < bad]
    assert told == [(0, "suspect"), (5, "unseen"), (6, "unseen")]
    assert "'rum' and 1 more" in result.findings[2].reason
    assert {f.index for f in result.findings}.isdisjoint(range(bad, len(cells) - bad))
    # the state, through JSON, in a column made from its own settings
    twin = History(**json.loads(json.dumps(column.settings())))
    twin.role = column.role
    twin.load_state(json.loads(json.dumps(column.state(), allow_nan=False)))
    assert (twin.state(), twin.settings(), twin.stored_as()) == (column.state(), column.settings(), column.stored_as())
    again = done(twin, cells)
    np.testing.assert_array_equal(again.values, result.values)
    assert again.findings == result.findings
    # any cut of the cells gives the same rows, in any number of threads
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda start: done(column, cells[start : start + 3]), range(0, len(cells), 3)))
    assert [row for part in parts for row in rows_of(part)] == rows
    np.testing.assert_array_equal(np.concatenate([part.present for part in parts]), result.present)
    assert sum(len(part.findings) for part in parts) == len(result.findings)
    none = done(column, cells[:0])
    assert (none.values.shape, none.lengths.shape, none.values.dtype) == ((0,), (0,), np.int32)
    # for a person
    assert column.show(torch.tensor(rows[bad]))["text"] == "tea | milk | tea"
    assert json.loads(json.dumps(column.summary())) == {
        "items": 4,
        "rarest": 1,
        "commonest": 5,
        "empty rows": 0,
        "rows longer than 3": 1,
    }


@pytest.mark.parametrize("cells", [[], [None], ["", "|"], [[]], [[None], None]])
def test_no_item_in_training_is_an_error(cells) -> None:
    kind = pa.list_(pa.int64()) if any(isinstance(cell, list) for cell in cells) else pa.string()
    with pytest.raises(DataError, match="no training row holds an item"):
        fitted(pa.array(cells, kind))


def test_what_is_no_item_is_an_error() -> None:
    with pytest.raises(DataError, match="name no class"):
        fitted(pa.array([[{"a": 1}]]))
    with pytest.raises(DataError, match="an item 3 times"):
        fitted(["a|b"], at_least=3)


# --- cells of any kind


@pytest.mark.parametrize(
    "cells",
    [
        pa.array(["7|12|7", "12", None, ""]),
        pa.array([b"7|12|7", b"12", None, b""]),
        pa.array([["7", " 12", "7"], ["12", None, ""], None, []]),
        pa.array([[7, 12, 7], [12], None, [None]]),
        pa.array([[7.0, 12.0, 7.0], [12.0], None, [float("nan")]]),
        pa.array([[7, 12, 7], [12], None, []], pa.large_list(pa.int16())),
        pa.array(["7|12|7", "12", None, ""]).dictionary_encode(),
        pa.ListArray.from_arrays(  # what lies behind a missing cell is not in it
            pa.array([0, 3, 4, 6, 6]),
            pa.array([7, 12, 7, 12, 99, 99]),
            mask=pa.array([False, False, True, False]),
        ),
    ],
    ids=lambda cells: str(cells.type),
)
def test_all_kinds_of_cells_say_the_same(cells) -> None:
    column = fitted(cells)
    assert column.items == ["7", "12"]
    assert rows_of(done(column, cells)) == [[2, 3, 2], [3], [], []]
    assert done(column, cells).present.tolist() == [True, True, False, False]
    assert rows_of(done(column, cells.slice(1))) == [[3], [], []]


def test_a_single_number_is_a_history_of_one() -> None:
    column = fitted(pa.array([7, 12, None]))
    result = done(column, pa.array([12, 7]))
    assert (rows_of(result), result.findings) == ([[3], [2]], [])


def test_bytes_that_are_no_text_break_their_row() -> None:
    column = fitted(["a|b"])
    for cells in (pa.array([b"a|\xff", b"a"]), pa.array([[b"a", b"\xff", b"\xfe"], [b"a"]])):
        result = done(column, cells)
        assert {(f.index, f.kind) for f in result.findings} == {(0, "broken")}
        assert rows_of(result) == [[], [2]]
        assert result.present.tolist() == [False, True]


# --- which items


def test_the_newest_are_kept_and_longer_rows_counted() -> None:
    column = fitted([list("abcdef"), list("ab"), list("abc")], length=2)
    result = done(column, [list("abcdef"), list("fedcba"), ["c"]])
    assert column.restore(torch.tensor([[*row, 0][:2] for row in rows_of(result)])) == [["e", "f"], ["b", "a"], ["c"]]
    assert result.findings == []
    assert column.summary()["rows longer than 2"] == 2


@pytest.mark.parametrize(("role", "known"), [("input", ["a", "b"]), ("output", ["a", "b", "c"])])
def test_rare_items_are_unknown_in_inputs(role, known) -> None:
    column = fitted(["a|b|c", "b|a"], role, at_least=2)
    assert column.items == known
    result = done(column, ["c|a", "z"])
    assert [bool(f.kind == "unseen") for f in result.findings] == [True] * (role == "output")
    assert column.restore(torch.tensor([[1, 2, 0]])) == [["unknown", "a"]]
    assert result.present.tolist() == [True, role == "input"]


def test_another_separator() -> None:
    column = fitted(["a b  c", "b"], separator=" ")
    assert restored(column, ["c  a "]) == [["c", "a"]]


@FEW
@given(
    cells=st.lists(st.none() | st.lists(st.none() | st.integers(0, 9), max_size=12), max_size=12),
    length=st.integers(1, 6),
    at_least=st.integers(1, 3),
)
def test_as_item_by_item(cells, length, at_least) -> None:
    counts = Counter(item for cell in cells if cell for item in cell if item is not None)
    known = sorted(item for item, count in counts.items() if count >= at_least)
    if not known:
        return
    column = fitted(pa.array(cells, pa.list_(pa.int64())), length=length, at_least=at_least)
    assert (column.items, column.counts) == ([str(item) for item in known], [counts[item] for item in known])
    want = []
    for cell in cells:
        items = [item for item in cell or [] if item is not None]
        want.append([known.index(item) + 2 if item in known else 1 for item in items[-length:]])
    assert rows_of(done(column, pa.array(cells, pa.list_(pa.int64())))) == want


def test_many_rows_go_through_at_once() -> None:
    """100,000 rows of 50 items: no step in Python for each of five million items."""
    draw = np.random.default_rng(0)
    raw = draw.integers(0, 5000, 100_000 * 50)
    cells = pa.ListArray.from_arrays(pa.array(np.arange(0, len(raw) + 1, 50), pa.int32()), pa.array(raw))
    column = fitted(cells, length=20)
    assert column.items == [str(item) for item in range(5000)]
    result = done(column, cells)
    np.testing.assert_array_equal(result.values.reshape(-1, 20), raw.reshape(-1, 50)[:, -20:] + 2)
    assert column.rows == {"all": 100_000, "empty": 0, "longer": 100_000}


def test_claims() -> None:
    def score(cells: list[Any], name: str) -> float:
        claim = History.claims(pa.chunked_array([pa.array(cells)]), name)
        return claim.score if claim else 0.0

    tags = Tags.claims(pa.chunked_array([pa.array([["a", "b"]])]), "history")
    assert tags is not None
    assert score([["a", "b"], ["c"]], "Purchase_History") > tags.score
    assert score([[1, 2], [3]], "history") > 0.8
    assert score([["a", "b"]], "tags") == score(["a|b"], "history") == score([[0.5]], "history") == 0


# --- rows of unequal length


@FEW
@given(st.lists(st.lists(st.integers(1, 9), max_size=6), max_size=8), st.integers(1, 4), st.randoms())
def test_ragged_rows_by_lists(rows, most, chance) -> None:
    values = np.array([value for row in rows for value in row], np.int32)
    lengths = np.array([len(row) for row in rows], np.int64)
    flags = np.array([chance.random() < 0.5 for _ in rows], bool)

    def split(pair: tuple[Any, Any]) -> list[list[int]]:
        assert pair[0].dtype == np.int32
        ends = np.cumsum(pair[1])
        return [pair[0][end - n : end].tolist() for end, n in zip(ends, pair[1], strict=True)]

    assert split(first(values, lengths, most)) == [row[:most] for row in rows]
    assert split(last(values, lengths, most)) == [row[-most:] for row in rows]
    assert split(keep_rows(values, lengths, flags)) == [row if f else [] for row, f in zip(rows, flags, strict=True)]
    assert split(append(values, lengths, flags, 7)) == [row + [7] * int(f) for row, f in zip(rows, flags, strict=True)]
    assert owners(lengths).tolist() == [place for place, row in enumerate(rows) for _ in row]
    assert list_lengths(pa.array(rows, pa.list_(pa.int64()))).tolist() == lengths.tolist()
