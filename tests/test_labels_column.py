"""Labels of words: each beside its word, or the row is told of."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from column_cells import done, fit, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st

from zhixing.columns.labels import Labels
from zhixing.columns.text import Text
from zhixing.errors import DataError

FEW = settings(max_examples=60, deadline=None, derandomize=True)
GOOD = [["DET", "NOUN", "VERB"], ["VERB"], ["NOUN", "名词", "10", "9"]]
ODD: list[Any] = [None, [], ["ADV"], ["NOUN", None], [""], ["VERB", "ADV", None, "ADJ"]]
LISTS = pa.list_(pa.string())


def fitted(cells: Any, role: str = "output", **keywords: Any) -> Labels:
    return fit(Labels(**keywords), cells, role)


@pytest.mark.parametrize("role", ["input", "output"])
def test_contract(role) -> None:
    column = fitted(pa.array(GOOD), role)
    cells = pa.array([*ODD, *GOOD, *ODD], LISTS)
    result = done(column, cells)
    rows, bad, spec = rows_of(result), len(ODD), column.spec()
    assert column.classes == ["9", "10", "DET", "NOUN", "VERB", "名词"]
    assert (spec.kind, spec.shape, spec.vocabulary) == ("tokens", (4,), 7)
    assert (result.values.dtype, len(rows), result.present.dtype) == (np.int32, len(cells), bool)
    assert rows[bad:-bad] == [[3, 4, 5], [5], [4, 6, 2, 1]]
    assert [bool(row) for row in rows] == result.present.tolist()
    assert not result.present[:bad].any()
    told = [(f.index, f.kind, f.reason) for f in result.findings if f.index < bad]
    assert told == [
        (2, "unseen", "the label 'ADV' is in no training row"),
        (3, "broken", "label 2 is empty"),
        (4, "broken", "label 1 is empty"),
        (5, "unseen", "the label 'ADV' is in no training row"),
    ]
    assert {f.index for f in result.findings}.isdisjoint(range(bad, len(cells) - bad))
    # the state, through JSON, in a column made from its own settings
    twin = Labels(**json.loads(json.dumps(column.settings())))
    twin.role = column.role
    twin.load_state(json.loads(json.dumps(column.state(), allow_nan=False)))
    assert (twin.state(), twin.settings(), twin.stored_as()) == (column.state(), column.settings(), column.stored_as())
    again = done(twin, cells)
    np.testing.assert_array_equal(again.values, result.values)
    assert again.findings == result.findings
    # any cut of the cells gives the same rows, in any number of threads
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda start: done(column, cells[start : start + 4]), range(0, len(cells), 4)))
    assert [row for part in parts for row in rows_of(part)] == rows
    np.testing.assert_array_equal(np.concatenate([part.present for part in parts]), result.present)
    assert [f.reason for part in parts for f in part.findings] == [f.reason for f in result.findings]
    none = done(column, cells[:0])
    assert (none.values.shape, none.lengths.shape, none.values.dtype) == ((0,), (0,), np.int32)
    # for a person
    assert column.show(torch.tensor([3, 4, 5, 0]))["text"] == "DET NOUN VERB"
    assert json.loads(json.dumps(column.summary())) == {"classes": 6, "rarest": 1, "commonest": 2, "longest": 4}
    assert Labels.claims(pa.chunked_array([pa.array(GOOD)]), "labels") is None


@pytest.mark.parametrize("cells", [[], [None], [""], [[]], [[None, ""]]])
def test_no_label_in_training_is_an_error(cells) -> None:
    kind = LISTS if any(isinstance(cell, list) for cell in cells) else pa.string()
    with pytest.raises(DataError, match="no training row holds a label"):
        fitted(pa.array(cells, kind))


@pytest.mark.parametrize(
    "cells",
    [
        pa.array([[3, 10], [10], None], pa.list_(pa.int64())),
        pa.array([["3", "10 "], ["10"], None]),
        pa.array(["3  10", " 10\n", None]),
        pa.array([b"3 10", b"10", None]),
        pa.array([[3.0, 10.0], [10.0], None]),
        pa.array(["3 10", "10", ""]),
    ],
    ids=lambda cells: str(cells.type),
)
def test_all_kinds_of_cells_say_the_same(cells) -> None:
    column = fitted(cells)
    assert (column.classes, column.counts) == (["3", "10"], [1, 2])
    assert rows_of(done(column, cells)) == [[1, 2], [2], []]
    assert done(column, cells).findings == []


def test_bytes_that_are_no_text_break_their_row() -> None:
    column = fitted(["A B"])
    for cells in (pa.array([b"A \xff", b"B"]), pa.array([[b"A", b"\xff"], [b"B"]])):
        result = done(column, cells)
        assert [(f.index, f.kind) for f in result.findings] == [(0, "broken")]
        assert rows_of(result) == [[], [2]]


def test_more_labels_than_the_length_are_cut_and_told_of() -> None:
    column = fitted(["A B A", "B"], length=2)
    result = done(column, ["A B A", "B A", "Z Z Z"])
    assert rows_of(result) == [[1, 2], [2, 1], []]
    assert [(f.index, f.kind) for f in result.findings] == [(0, "suspect"), (2, "unseen")]
    assert result.findings[0].reason == "3 labels, of which the first 2 are kept"
    assert fitted([" ".join("A" * 600)]).settings() == {"length": 512}


@FEW
@given(st.lists(st.lists(st.sampled_from(["O", "B-PER", "I-PER", "B-北京"]), min_size=1, max_size=7), min_size=1))
def test_labels_come_back_and_stand_beside_their_words(cells) -> None:
    column = fitted(pa.array(cells, LISTS))
    result = done(column, pa.array(cells, LISTS))
    padded = torch.tensor([row + [0] * (9 - len(row)) for row in rows_of(result)])
    assert column.restore(padded) == cells
    text = Text()
    words = pa.array([[f"w{place}" for place, _ in enumerate(cell)] for cell in cells], LISTS)
    text.fit(pa.chunked_array([words]), Path)
    beside = text.tensorize(words, Path)
    np.testing.assert_array_equal(beside.lengths, result.lengths)
    assert text.spec().shape == column.spec().shape
