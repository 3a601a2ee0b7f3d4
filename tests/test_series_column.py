"""Columns of series: against numpy, back and forth, gaps, lengths, forecasts, and what is wrong with a cell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zhixing.columns.column import Spec
from zhixing.columns.series import Series, numbers_of
from zhixing.errors import DataError

FEW = settings(max_examples=60, deadline=None, derandomize=True)
NUMBERS = st.floats(-1e6, 1e6, allow_subnormal=False)
CELL = st.one_of(st.none(), NUMBERS)


def fitted(cells: Any, role: str = "input", **chosen: Any) -> Series:
    column = Series(**chosen)
    column.role = role  # type: ignore[assignment]
    cells = cells if isinstance(cells, pa.Array) else pa.array(cells)
    column.fit(pa.chunked_array([cells]), Path)
    return column


def rows_of(column: Series, cells: Any) -> list[np.ndarray]:
    done = column.tensorize(cells if isinstance(cells, pa.Array) else pa.array(cells), Path)
    assert done.lengths is not None
    assert done.values.dtype == np.float32
    assert len(done.values) == done.lengths.sum()
    np.testing.assert_array_equal(done.present, done.lengths > 0)
    return np.split(done.values, np.cumsum(done.lengths)[:-1])


def reasons(column: Series, cells: Any) -> list[tuple[int, str, str]]:
    done = column.tensorize(cells if isinstance(cells, pa.Array) else pa.array(cells), Path)
    return [(one.index, one.kind, one.reason) for one in done.findings]


# --- inputs


def test_standardised_by_numpy_with_rows_of_unequal_length() -> None:
    cells = [[[1.0, 10.0], [2.0, 20.0]], [[4.0, 30.0]], [[7.0, 5.0]] * 5]
    column = fitted(cells)
    steps = np.concatenate([np.array(cell) for cell in cells])
    expected = (steps - steps.mean(axis=0)) / steps.std(axis=0)
    got = rows_of(column, cells)
    assert [len(row) for row in got] == [2, 1, 5]
    np.testing.assert_allclose(np.concatenate(got), expected, rtol=1e-6)
    assert column.spec() == Spec("sequence", (5, 2))
    assert column.features == 2


@FEW
@given(st.lists(st.lists(CELL, max_size=6), min_size=1, max_size=8))
def test_gaps_are_carried_on_as_pandas_does(cells) -> None:
    train = [[0.0, None, 1.0]]  # a scale that is known, and a gap, so that there is a flag
    column = fitted(pa.array(train, pa.list_(pa.float64())), scale="none")
    assert column.spec() == Spec("sequence", (3, 2))
    got = rows_of(column, pa.array(cells, pa.list_(pa.float64())))
    for row, cell in zip(got, cells, strict=True):
        kept = pd.Series(cell[:3], dtype=float)
        if kept.isna().all():
            assert row.shape == (0, 2)
            continue
        np.testing.assert_array_equal(row[:, 0], kept.ffill().fillna(0.0).to_numpy(np.float32))
        np.testing.assert_array_equal(row[:, 1], kept.isna().to_numpy(np.float32))


def test_gaps_are_told_once_a_row_and_flagged_where_training_rows_have_them() -> None:
    column = fitted([[[1.0, 2.0], [3.0, None], None]])
    assert column.gaps.tolist() == [True, True]
    column = fitted([[[1.0, 2.0], [3.0, None]]])
    assert column.gaps.tolist() == [False, True]
    assert column.spec() == Spec("sequence", (2, 3))
    assert reasons(column, [[[1.0, None], [None, None]]]) == [(0, "suspect", "2 of 2 steps lack a value")]
    single = fitted([[1.0, 2.0, 3.0]])
    assert reasons(single, [[1.0, None, float("nan")], [1.0, 2.0]]) == [(0, "suspect", "2 of 3 steps are missing")]
    # a row that holds nothing is empty, and is no reason for flags
    assert not fitted(pa.array([[1.0, 2.0], [None, None]], pa.list_(pa.float64()))).gaps.any()
    assert reasons(single, pa.array([[None, None], [], None], pa.list_(pa.float64()))) == []


def test_long_rows_keep_their_first_steps_and_are_told_of() -> None:
    column = fitted([[1.0, 2.0, 3.0], [5.0]])
    assert column.settings()["length"] == 3
    (row,) = rows_of(column, [[1.0, 2.0, 3.0, 4.0]])
    np.testing.assert_array_equal(row, rows_of(column, [[1.0, 2.0, 3.0]])[0])
    assert reasons(column, [[1.0] * 4, [1.0]]) == [(0, "suspect", "4 steps, of which the first 3 are kept")]
    short = fitted([[1.0, 2.0, 90.0]], length=2)
    assert short.spec() == Spec("sequence", (2, 1))
    assert short.mean.tolist() == [1.5]  # of what is kept
    assert fitted(pa.array([[0.5] * 5000])).spec() == Spec("sequence", (4096, 1))


@FEW
@given(st.lists(st.lists(CELL, min_size=1, max_size=6), min_size=1, max_size=6), st.sampled_from([1.0, 1e-200, 1e200]))
def test_each_row_by_itself(cells, unit) -> None:
    cells = [[None if x is None else x * unit for x in cell] for cell in cells]
    column = fitted(pa.array([[1.0, None, 3.0, 4.0, 5.0, 6.0]]), scale="row")
    for row, cell in zip(rows_of(column, pa.array(cells, pa.list_(pa.float64()))), cells, strict=True):
        known = np.array([x for x in cell if x is not None])
        values = row[row[:, 1] == 0, 0].astype(np.float64)
        if not len(known) or np.ptp(known) == 0:
            assert (values == 0).all()
        elif np.ptp(known / np.abs(known).max()) > 1e-6:  # else the deviation is rounding alone
            scaled = known / np.abs(known).max()
            np.testing.assert_allclose(values, (scaled - scaled.mean()) / scaled.std(), atol=1e-4)


def test_text_is_read_like_lists() -> None:
    column = fitted([[1.0, 2.5, None]])
    expected = rows_of(column, [[1.0, 2.5, None]])[0]
    for text in ("1 2.5 ?", "1,2.5,", " 1, 2.5,NaN ", "[1, 2.5, null]", "+1\t2.5e0\tnan", b"1 2.5 ?"):
        np.testing.assert_array_equal(rows_of(column, [text])[0], expected, str(text))
    several = fitted([[[1.0, 2.0], [3.0, 4.0]]])
    expected = rows_of(several, [[[1.0, 2.0], [3.0, 4.0]]])[0]
    for text in ("[[1, 2], [3, 4]]", "1 2; 3 4", "1,2\n3,4"):
        np.testing.assert_array_equal(rows_of(several, [text])[0], expected)
    assert [len(row) for row in rows_of(column, pa.array(["", "[]", None, " ", "7"]))] == [0, 0, 0, 0, 1]


def test_what_is_wrong_with_a_cell() -> None:
    column = fitted([[1.0, 2.0, 3.0]])
    assert reasons(column, ["1 x y", "1 inf", "1 2;3 4", "2"]) == [
        (0, "broken", "step 1: not a number: 'x'"),
        (1, "broken", "step 1: not finite: 'inf'"),
        (2, "broken", "step 0: 1 features expected, 2 found"),
    ]
    assert reasons(column, [[1.0, float("-inf")], [1e300]])[0] == (0, "broken", "step 1: not finite: -inf")
    assert reasons(fitted([[1.0, 1.0]]), [[1e300]])[0][2].startswith("too far from the training rows' numbers: 1e+300")
    assert reasons(column, [5, None]) == [(0, "broken", "not a list of numbers: 5")]
    several = fitted([[[1.0, 2.0]], [[3.0, 4.0]]])
    assert reasons(several, [[[1.0, 2.0], [3.0]], [[1.0, 2.0]]]) == [
        (0, "broken", "step 1: 2 features expected, 1 found")
    ]
    assert reasons(column, pa.array([b"\xff\xfe", b"1 2"])) == [(0, "broken", "not UTF-8: b'\\xff\\xfe'")]


@pytest.mark.parametrize(
    "cells",
    [
        pa.array([[1, 2], [3, 4, 5]], pa.list_(pa.int32())),
        pa.array([[1, 2], [3, 4, 5]], pa.large_list(pa.float32())),
        pa.array([["1", "2"], ["3", " 4", "5"]]),
        pa.array(["1 2", "3,4,5"]),
    ],
    ids=lambda cells: str(cells.type),
)
def test_numbers_of_any_stored_type(cells) -> None:
    np.testing.assert_array_equal(
        np.concatenate(rows_of(fitted(cells, scale="none"), cells))[:, 0], [1.0, 2.0, 3.0, 4.0, 5.0]
    )


def test_arrays_of_a_fixed_shape() -> None:
    array = np.random.default_rng(0).normal(size=(4, 6, 3))
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(array)
    column = fitted(tensors, scale="none")
    np.testing.assert_array_equal(np.stack(rows_of(column, tensors[1:])), array[1:].astype(np.float32))
    flat = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(array[:, :, 0]))
    assert fitted(flat).spec() == Spec("sequence", (6, 1))
    assert fitted(pa.array([[1.0, 2.0], None], pa.list_(pa.float64(), 2))).spec() == Spec("sequence", (2, 1))


# --- forecasts


def test_a_forecast_is_dense_and_keeps_its_gaps() -> None:
    cells = [[[1.0], [2.0]], [[3.0], [None]], [[5.0], [6.0], [7.0]], [], None, [[None], [None]]]
    column = fitted(pa.array(cells), role="output")
    assert (column.horizon, column.features, column.spec()) == (2, 1, Spec("vector", (2, 1)))
    done = column.tensorize(pa.array(cells), Path)
    assert (done.values.shape, done.values.dtype, done.lengths) == ((6, 2, 1), np.float32, None)
    assert done.present.tolist() == [True, True, False, False, False, False]
    assert np.isnan(done.values[1, 1, 0])
    assert np.isfinite(np.delete(done.values, 1, axis=0)).all()
    assert [(one.index, one.kind, one.reason) for one in done.findings] == [
        (1, "suspect", "1 of 2 steps are missing"),
        (2, "broken", "2 steps expected, 3 found"),
    ]
    raw = column.unscale(torch.from_numpy(done.values))
    assert raw.dtype == np.float64
    np.testing.assert_allclose(raw[:2, :, 0], [[1.0, 2.0], [3.0, np.nan]], rtol=1e-6)
    assert [None if x is None else round(x, 5) for x in column.restore(torch.from_numpy(done.values))[1]] == [3.0, None]
    with pytest.raises(DataError, match="cannot be brought back"):
        fitted([[1.0, 2.0]], role="output", scale="row")


@FEW
@given(st.lists(st.lists(st.tuples(NUMBERS, CELL), min_size=1, max_size=4), min_size=1, max_size=6))
def test_series_come_back(cells) -> None:
    column = fitted(pa.array([[list(step) for step in cell] for cell in cells], pa.list_(pa.list_(pa.float64()))))
    spread = [max(1e-5, 1e-5 * (abs(mean) + std)) for mean, std in zip(column.mean, column.std, strict=True)]
    table = pa.array([[list(step) for step in cell] for cell in cells], pa.list_(pa.list_(pa.float64())))
    done = column.tensorize(table, Path)
    for row, cell in zip(np.split(done.values, np.cumsum(done.lengths)[:-1]), cells, strict=True):
        (back,) = column.restore(torch.from_numpy(row)[None])
        for got, step in zip(back, cell, strict=True):
            for x, y, near in zip(got, step, spread, strict=True):
                assert (x is None) == (y is None)
                assert x is None or abs(x - y) <= near + 1e-5 * abs(y)


# --- life of a column


@pytest.mark.parametrize("role", ["input", "output"])
def test_state_goes_through_json_and_any_cut_gives_the_same_rows(role) -> None:
    cells = pa.array([[[1.0, 2.0], [None, 4.0]], [], [[5.0, 6.0]], None, [[7.0, 8.0], [9.0, 1.0]], [[3.0]]])
    column = fitted(cells, role)
    twin = Series(**json.loads(json.dumps(column.settings())))
    twin.role = column.role
    twin.load_state(json.loads(json.dumps(column.state(), allow_nan=False)))
    assert (twin.state(), twin.settings(), twin.stored_as()) == (column.state(), column.settings(), column.stored_as())
    whole = twin.tensorize(cells, Path)
    parts = [column.tensorize(cells[start : start + 2], Path) for start in range(0, len(cells), 2)]
    np.testing.assert_array_equal(np.concatenate([part.values for part in parts]), whole.values)
    np.testing.assert_array_equal(np.concatenate([part.present for part in parts]), whole.present)
    none = column.tensorize(cells[:0], Path)
    assert none.values.shape == (0, *whole.values.shape[1:])
    values, mask = column.blank(3)
    assert tuple(values.shape) == (3, *column.spec().shape)
    assert (mask is None) == (role == "output")
    assert column.show(torch.from_numpy(whole.values[:1] if role == "output" else whole.values[None])[0])["text"]
    json.dumps(column.summary())


def test_no_series_in_training_rows_is_an_error() -> None:
    for cells in (pa.array([None, []], pa.list_(pa.float64())), pa.array(["x", ""]), pa.array([], pa.string())):
        with pytest.raises(DataError, match="no training row holds a series"):
            fitted(cells)


@pytest.mark.parametrize(
    ("cells", "score"),
    [
        (pa.array([[1.0, 2.0], [3.0]]), 0.72),
        (pa.array([[[1.0], [2.0]], [[3.0]]]), 0.75),
        (pa.array([[1.0, 2.0], [3.0, 4.0]]), None),
        (pa.array([["a"], ["b", "c"]]), None),
        (pa.array(["1 2 3"]), None),
        (pa.array([1.0]), None),
    ],
)
def test_claims(cells, score) -> None:
    claim = Series.claims(pa.chunked_array([cells]), "x")
    assert (claim.score if claim else None) == score


@FEW
@given(st.lists(st.text("0123456789.+-eE _xinf", max_size=6), max_size=10))
def test_numbers_are_read_as_python_reads_them(words) -> None:
    got, bad = numbers_of(pa.array(words, pa.string()))
    for word, number, wrong in zip(words, got, bad, strict=True):
        try:
            expected = float(word) if "_" not in word else None
        except ValueError:
            expected = None
        if expected is None:
            assert np.isnan(number)
            assert wrong == bool(word.strip())
        else:
            assert not wrong
            np.testing.assert_equal(number, expected)


def test_a_long_column_against_a_plain_reading_of_each_cell() -> None:
    random = np.random.default_rng(1)
    cells = [random.normal(size=(random.integers(0, 30), 2)).tolist() for _ in range(3000)]
    for row in range(0, 3000, 7):
        for step in cells[row][::3]:
            step[row % 2] = None
    column = fitted(pa.array(cells, pa.list_(pa.list_(pa.float64()))))
    got = rows_of(column, pa.array(cells, pa.list_(pa.list_(pa.float64()))))
    for row in range(0, 3000, 41):
        frame = pd.DataFrame(cells[row], columns=[0, 1], dtype=float)
        if frame.isna().to_numpy().all():
            continue
        expected = ((frame - column.mean) / column.std).ffill().fillna(0.0)
        np.testing.assert_allclose(got[row][:, :2], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(got[row][:, 2:], frame.isna())


def test_the_naive_error_is_that_of_repeating_the_step_before() -> None:
    rows = [[1.0, 4.0, 2.0], [10.0, None, 11.0], [5.0, 5.5, 6.5]]
    column = Series()
    column.role = "output"
    column.fit(pa.chunked_array([rows]), Path)
    assert column.naive_error == pytest.approx(np.mean([3, 2, 0.5, 1]))  # not from row to row, nor over a gap
