"""Columns of numbers, classes, labels and dates: against references, back and forth, and the contract of every type."""

from __future__ import annotations

import io
import json
import math
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from sklearn.preprocessing import QuantileTransformer

from zhixing.columns import COLUMNS, Column, Tensorized
from zhixing.columns.category import Category, words
from zhixing.columns.column import Ragged, natural_order, sample
from zhixing.columns.date import Date, seconds
from zhixing.columns.number import KNOTS, Number
from zhixing.columns.tags import Tags
from zhixing.data.batches import ColumnBatch, padded
from zhixing.errors import DataError

FEW = settings(max_examples=60, deadline=None, derandomize=True)


def chunked(cells: Any) -> pa.ChunkedArray:
    return cells if isinstance(cells, pa.ChunkedArray) else pa.chunked_array([cells])


def fitted(column: Column, cells: Any, role: str = "input") -> Column:
    column.role = role  # type: ignore[assignment]
    column.fit(chunked(cells), Path)
    return column


def values_of(column: Column, cells: Any) -> np.ndarray:
    return column.tensorize(cells if isinstance(cells, pa.Array) else pa.array(cells), Path).values


def reasons(column: Column, cells: Any) -> list[tuple[int, str, str]]:
    done = column.tensorize(cells if isinstance(cells, pa.Array) else pa.array(cells), Path)
    return [(f.index, f.kind, f.reason) for f in done.findings]


# --- the contract of every type


def stored_of(done: Tensorized) -> torch.Tensor | Ragged:
    values = torch.from_numpy(done.values)
    return values if done.lengths is None else Ragged(values, np.concatenate([[0], np.cumsum(done.lengths)]))


def batch_of(done: Tensorized) -> ColumnBatch:
    """All rows as one batch."""
    stored = stored_of(done)
    return padded(stored, np.arange(len(done.present))) if isinstance(stored, Ragged) else ColumnBatch(stored)


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Pillow.new("RGB", (6, 6), (shade, 10, 255 - shade)).save(buffer, "PNG")
    return buffer.getvalue()


def clip(seed: int) -> bytes:
    """A tenth of a second of noise; of silence for 0."""
    samples = np.random.default_rng(seed).normal(scale=0.1 * (seed > 0), size=1600 + 100 * seed)
    file = io.BytesIO()
    soundfile.write(file, samples, 16000, format="WAV")
    return file.getvalue()


CELLS: dict[str, tuple[list[Any], list[Any]]] = {  # good ones, and others that must not make it raise
    "audio": ([clip(1), clip(2), clip(3)], [b"", None, b"rubbish", clip(0)]),
    "category": (["cat", "dog", "北京", "cat", " dog "], ["bird", "", None, "  "]),
    "date": (["2026-01-31", "2024-02-29 13:45", "1969-07-20"], ["2026-02-30", "", None, "soon"]),
    "image": ([png(10), png(200), png(90)], [b"", None, b"rubbish", png(3)[:45]]),
    "history": (["a|b", "b", "c|a|b", "b|b"], ["", None]),
    "labels": (["N V", "V", "N N V", "V N"], ["N X", "", None]),
    "number": (["1", "2.5", "-1e9", " 7 "], ["x", "", None, "inf", "nan", "1,5"]),
    "series": (["1 2 3", "4 5 6", "-1 0 1e9"], ["x", "", None, "1 inf 2", "nan nan nan"]),
    "tags": (["a|b", "b", "c | a", "a"], ["z", "", None, "a|z"]),
    "text": (["the cat sat", "北京 is big", "a b c"], ["", None]),
}


def test_the_contract_covers_every_type() -> None:
    assert set(CELLS) == set(COLUMNS)


@pytest.mark.parametrize("role", ["input", "output"])
@pytest.mark.parametrize("kind", COLUMNS)
def test_contract(kind, role) -> None:
    good, odd = CELLS[kind]
    column = fitted(COLUMNS[kind](), good, role)
    cells = pa.array([*odd, *good, *odd])
    done = column.tensorize(cells, Path)
    rows, bad = len(cells), len(odd)
    assert column.type == kind
    # shapes as the spec says, a finding or an absence for each odd cell and for no other
    spec = column.spec()
    assert spec.kind == column.kind or role == "output"
    assert (done.present.shape, done.present.dtype) == ((rows,), bool)
    stored = batch_of(done)
    if role == "input":
        column.calibrate(stored_of(done), np.flatnonzero(done.present), done.sums)
    values, mask = column.stem()(*stored)
    assert len(values) == rows
    if mask is None:
        assert tuple(values.shape[1:]) == spec.shape
    else:
        assert mask.shape == values.shape[:2]
        assert values.shape[1] <= spec.shape[0]
        assert tuple(values.shape[2:]) == spec.shape[1:]
        assert mask.any(1).tolist() == done.present.tolist()
    assert values.dtype == (torch.int64 if spec.kind in ("ids", "tokens") else torch.float32)
    if role == "input":
        assert np.isfinite(values.double().numpy()).all()
    if spec.kind in ("ids", "tokens"):
        assert 0 <= int(values.min()) <= int(values.max()) < spec.vocabulary
    if spec.kind == "tokens":
        assert torch.equal(values > 0, mask)
    blank, real = column.stem()(*column.blank(2))
    assert tuple(blank.shape) == (2, *spec.shape)
    assert real is None or bool(real.all())
    assert done.present[bad:-bad].all()
    told = {f.index for f in done.findings}
    assert told.isdisjoint(range(bad, rows - bad))
    assert told | set(np.flatnonzero(~done.present).tolist()) == {*range(bad), *range(rows - bad, rows)}
    # the state, through JSON, in a column made from its own settings
    settings_of = json.loads(json.dumps(column.settings()))
    twin = COLUMNS[kind](**settings_of)
    twin.role = column.role
    twin.load_state(json.loads(json.dumps(column.state(), allow_nan=False)))
    assert (twin.state(), twin.settings(), twin.stored_as()) == (column.state(), column.settings(), column.stored_as())
    again = twin.tensorize(cells, Path)
    np.testing.assert_array_equal(again.values, done.values)
    np.testing.assert_array_equal(again.lengths, done.lengths)
    assert again.findings == done.findings
    # any cut of the cells gives the same rows, in any number of threads
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda start: column.tensorize(cells[start : start + 3], Path), range(0, rows, 3)))
    np.testing.assert_array_equal(np.concatenate([part.values for part in parts]), done.values)
    np.testing.assert_array_equal(np.concatenate([part.present for part in parts]), done.present)
    if done.lengths is not None:
        np.testing.assert_array_equal(np.concatenate([part.lengths for part in parts]), done.lengths)
    # nothing at all, in as many dimensions
    none = column.tensorize(cells[:0], Path)
    assert none.values.shape == (0, *done.values.shape[1:])
    # back to cells, and for a person to look at
    assert len(column.restore(stored[0])) == rows
    for row in range(rows):
        one = stored_of(done)
        (key,) = column.show(one.row(row) if isinstance(one, Ragged) else one[row])
        assert key in ("text", "picture")
    json.dumps(column.summary())


@pytest.mark.parametrize("kind", COLUMNS)
def test_no_good_cell_in_training_is_an_error(kind) -> None:
    for cells in (pa.array([None, None], pa.string()), pa.array([], pa.string())):
        with pytest.raises(DataError, match=r"none of|no training row"):
            fitted(COLUMNS[kind](), cells)


@pytest.mark.parametrize("kind", ["category", "date", "number", "tags"])
def test_bytes_are_read_as_text_and_told_of_where_they_are_not(kind) -> None:
    good = [cell.encode() for cell in CELLS[kind][0]]
    column = fitted(COLUMNS[kind](), good)
    plain = fitted(COLUMNS[kind](), CELLS[kind][0])
    assert column.state() == plain.state()
    cells = pa.array([*good, b"\xff\xfe", None], pa.binary())
    done = column.tensorize(cells, Path)
    np.testing.assert_array_equal(done.values[:-2], values_of(plain, CELLS[kind][0]))
    assert [(f.index, f.kind) for f in done.findings] == [(len(good), "broken")]
    assert "not UTF-8" in done.findings[0].reason


# --- numbers


def test_standardised_by_numpy() -> None:
    raw = np.random.default_rng(0).normal(3, 7, 500)
    column = fitted(Number(), raw)
    np.testing.assert_allclose(values_of(column, raw)[:, 0], (raw - raw.mean()) / raw.std(), rtol=1e-5, atol=1e-6)
    assert (column.mean[0], column.std[0]) == (
        pytest.approx(raw.mean(), rel=1e-12),
        pytest.approx(raw.std(), rel=1e-12),
    )


def test_log_by_numpy() -> None:
    raw = np.array([-1e6, -3.0, 0.0, 0.5, 10.0, 1e9])
    shaped = np.sign(raw) * np.log1p(np.abs(raw))
    got = values_of(fitted(Number(scale="log"), raw), raw)[:, 0]
    np.testing.assert_allclose(got, (shaped - shaped.mean()) / shaped.std(), rtol=1e-5)


@pytest.mark.parametrize("ties", [False, True])
def test_quantile_by_scikit_learn(ties) -> None:
    draw = np.random.default_rng(0)
    raw = draw.exponential(5, 4000)
    raw = np.round(raw) if ties else raw
    column = fitted(Number(scale="quantile"), raw)
    oracle = QuantileTransformer(n_quantiles=KNOTS, output_distribution="normal", subsample=None).fit(raw[:, None])
    new = np.round(draw.exponential(5, 500)) if ties else draw.exponential(5, 500)
    inside = (new > np.quantile(raw, 0.01)) & (new < np.quantile(raw, 0.99))
    got = values_of(column, new)[:, 0] * column.std[0] + column.mean[0]
    np.testing.assert_allclose(got[inside], oracle.transform(new[:, None])[inside, 0], atol=2e-5)
    assert np.abs(got).max() < 3.8


@pytest.mark.parametrize("offset", [1e9, -1e12, 1e15])
def test_huge_offsets_keep_their_differences(offset) -> None:
    raw = offset + np.array([-1.0, 0.0, 1.0])
    for cells in (raw, raw.astype(np.int64), [str(int(x)) for x in raw]):
        column = fitted(Number(), cells)
        np.testing.assert_allclose(
            values_of(column, cells)[:, 0], [-1.2247449, 0, 1.2247449], atol=0.2 if offset > 1e13 else 2e-4
        )
        assert column.restore(torch.from_numpy(values_of(column, cells))) == pytest.approx(raw.tolist(), abs=1e-3)


@pytest.mark.parametrize("unit", [1e-300, 1e-20, 1e20, 1e300])
def test_any_unit_of_measure_is_good(unit) -> None:
    raw = np.array([1.0, 2.0, 3.0, 6.0]) * unit
    np.testing.assert_allclose(values_of(fitted(Number(), raw), raw)[:, 0], [-1.0690, -0.5345, 0, 1.6036], atol=1e-3)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9 + 0.1, -1e-30, 1e300])
@pytest.mark.parametrize("scale", ["standardise", "log", "quantile", "none"])
def test_a_constant_is_zero_and_comes_back(value, scale) -> None:
    column = fitted(Number(scale=scale), [value] * 777)
    if scale == "none" and abs(value) > 1e30:
        assert "too far" in reasons(column, [value])[0][2]
        return
    done = torch.from_numpy(values_of(column, [value]))
    assert column.restore(done)[0] == pytest.approx(value, rel=1e-6)
    if scale != "none":
        assert abs(float(done)) < 1e-3


def test_missing_is_the_mean_with_a_flag() -> None:
    column = fitted(Number(), [1.0, None, 3.0])
    assert values_of(column, [None, 3.0, 1.0]).tolist() == [[0, 1], [1, 0], [-1, 0]]
    assert column.spec().shape == (2,)
    assert column.restore(torch.from_numpy(values_of(column, [None, 3.0]))) == [None, 3.0]
    whole = fitted(Number(), [1.0, 3.0])
    assert values_of(whole, [None, 3.0]).tolist() == [[0], [1]]
    target = fitted(Number(), [1.0, None, 3.0], "output")
    done = target.tensorize(pa.array([None, 3.0]), Path)
    assert (done.values.tolist(), done.present.tolist()) == ([[0], [1]], [False, True])


def test_several_numbers_in_a_cell() -> None:
    cells = [[1.0, 10.0], [3.0, None], None, [5.0, 30.0], [1.0], [2.0, math.inf], [math.nan, 20.0]]
    kinds = [pa.list_(pa.float64()), pa.large_list(pa.float64())]
    results = []
    for kind in kinds:
        column = fitted(Number(), pa.array(cells, kind))
        results.append(column.tensorize(pa.array(cells, kind), Path))
        assert (column.length, column.indicator, column.spec().shape) == (2, True, (4,))
    done = results[0]
    np.testing.assert_array_equal(done.values, results[1].values)
    np.testing.assert_allclose(column.mean, [np.mean([1, 3, 5, 2]), 20])
    assert done.present.tolist() == [True, False, False, True, False, False, False]
    assert [(f.index, f.kind) for f in done.findings] == [(4, "broken"), (5, "broken"), (6, "suspect")]
    back = [[1.0, 10.0], [3.0, None], [None, None], [5.0, 30.0]]
    for cell, again in zip(back, column.restore(torch.from_numpy(done.values[:4])), strict=True):
        for x, y in zip(cell, again, strict=True):
            assert y is None if x is None else y == pytest.approx(x, rel=1e-6)
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(12.0).reshape(4, 3))
    fixed = fitted(Number(), tensors)
    np.testing.assert_allclose(fixed.mean, [4.5, 5.5, 6.5])
    bad = pa.FixedShapeTensorArray.from_numpy_ndarray(np.array([[1, np.inf, 2], [1, 2, 3.0]]))
    assert [f.index for f in fixed.tensorize(bad, Path).findings] == [0]
    assert [f.reason for f in fixed.tensorize(pa.array([1.0]), Path).findings] == ["3 numbers expected, 1 found"]


def test_the_odd_first_cell_does_not_set_the_length() -> None:
    column = fitted(Number(), [[1.0], [1.0, 2.0], [3.0, 4.0]])
    assert [(i, r) for i, _, r in reasons(column, [[1.0], [1.0, 2.0]])] == [(0, "2 numbers expected, 1 found")]
    one = fitted(Number(), [[1.0], [2.0]])
    assert [(i, r) for i, _, r in reasons(one, [[1.0, 5.0], [2.0]])] == [(0, "1 numbers expected, 2 found")]


def test_a_place_that_is_always_empty() -> None:
    column = fitted(Number(scale="quantile"), pa.array([[1.0, None], [3.0, None]], pa.list_(pa.float64())))
    assert np.isfinite(values_of(column, [[1.0, None], [2.0, 5.0]])).all()


@pytest.mark.parametrize(
    ("cell", "kind", "words_of"),
    [
        ("1,234", "broken", "not a number"), ("1_000", "broken", "not a number"), ("12 km", "broken", "not a number"),
        ("0x10", "broken", "not a number"), ("inf", "broken", "not finite"), ("1e999", "broken", "not finite"),
        ("NaN", "suspect", "taken as empty"), ("1e200", "broken", "too far"), ("$5", "broken", "not a number"),
    ],
)  # fmt: skip
def test_what_is_no_number_is_told_of(cell, kind, words_of) -> None:
    column = fitted(Number(), ["1", "2"])
    ((index, found, reason),) = reasons(column, ["1", cell, "2"])
    assert (index, found) == (1, kind)
    assert words_of in reason


@pytest.mark.parametrize("cell", ["7", " 7 ", "7.0", "+7", "7e0", "\t7\n", "７"])
def test_what_is_a_number(cell) -> None:
    assert values_of(fitted(Number(scale="none"), ["1"]), [cell, "1"])[:, 0].tolist() == [7, 1]


TYPES = [pa.int8(), pa.uint64(), pa.float32(), pa.decimal128(10, 2), pa.bool_()]


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_numbers_of_any_stored_type(kind) -> None:
    cells = pa.array([1, 0, 1, 1], pa.int8()).cast(kind)
    assert values_of(fitted(Number(scale="none"), cells), cells)[:, 0].tolist() == [1, 0, 1, 1]


@FEW
@given(
    st.lists(st.one_of(st.none(), st.floats(-1e12, 1e12, allow_subnormal=False)), min_size=1, max_size=40).filter(
        lambda cells: any(cell is not None for cell in cells)
    ),
    st.sampled_from(["standardise", "log", "none", "quantile"]),
)
def test_numbers_come_back(cells, scale) -> None:
    column = fitted(Number(scale=scale), pa.array(cells, pa.float64()))
    back = column.restore(torch.from_numpy(values_of(column, pa.array(cells, pa.float64()))))
    present = [cell for cell in cells if cell is not None]
    spread = max(present) - min(present)
    for cell, again in zip(cells, back, strict=True):
        if cell is None:
            assert again is None
        elif scale == "quantile":  # ends are drawn in to about 3.7 deviations, as far as the next knot
            knots = column.knots[:, 0]
            low, high = np.searchsorted(knots, cell, "left"), np.searchsorted(knots, cell, "right")
            assert knots[max(0, low - 2)] - 1e-6 * abs(cell) <= again + 1e-5 * spread
            assert again - 1e-5 * spread <= knots[min(KNOTS - 1, high + 1)] + 1e-6 * abs(cell)
        elif scale == "log":
            assert math.copysign(math.log1p(abs(again)), again) == pytest.approx(
                math.copysign(math.log1p(abs(cell)), cell), abs=1e-4
            )
        else:
            assert again == pytest.approx(cell, rel=1e-6, abs=1e-5 * spread + 1e-30)


@FEW
@given(st.lists(st.one_of(st.text("0123456789.eE+-_ ,infa", max_size=6), st.just("")), min_size=1, max_size=20))
def test_the_fast_and_the_slow_reading_agree(cells) -> None:
    column = Number()
    slow, findings = column.read_cells(cells)
    fast, found = column.read(pa.array(cells), 1)
    np.testing.assert_array_equal(fast, slow)
    assert found == findings
    for index, cell in enumerate(cells):  # each alone, too: one bad cell must not change how another is read
        np.testing.assert_array_equal(column.read(pa.array([cell]), 1)[0], slow[index : index + 1])


# --- classes


def test_unknown_and_missing() -> None:
    column = fitted(Category(), ["b", "a", "b", None, "b", "c"])
    assert (column.classes, column.counts) == (["a", "b", "c"], [1, 3, 1])
    assert values_of(column, ["c", "a", "d", None, " ", " b\t"]).tolist() == [2, 0, 3, 4, 4, 1]
    assert column.restore(torch.arange(5)) == ["a", "b", "c", "unknown", None]
    assert column.spec().vocabulary == 5
    assert reasons(column, ["d"]) == [(0, "unseen", "the class 'd' is in no training row")]
    target = fitted(Category(), ["b", "a"], "output")
    done = target.tensorize(pa.array(["b", "d", None]), Path)
    assert (done.values.tolist(), done.present.tolist()) == ([1, 0, 0], [True, False, False])


def test_rare_classes_are_unknown_in_inputs_alone() -> None:
    cells = ["a"] * 3 + ["b"] * 2 + ["c"]
    assert fitted(Category(at_least=2), cells).classes == ["a", "b"]
    assert reasons(fitted(Category(at_least=2), cells), ["c", "z"]) == []
    assert fitted(Category(at_least=2), cells, "output").classes == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("cells", "classes"),
    [
        ([10, 9, 2, 9], ["2", "9", "10"]),
        ([1.0, 0.0, None, math.nan], ["0", "1"]),
        ([0.5, 1.0, math.inf, -math.inf, 1e300], ["0.5", "1", "1e+300", "-inf", "inf"]),
        ([True, False, None], ["false", "true"]),
        (["10", "9", "b", "nan", "a", "inf"], ["9", "10", "a", "b", "inf", "nan"]),
        (["北京", "上海", "　上海　"], ["上海", "北京"]),
        (pa.array(["x", "y", "x"]).dictionary_encode(), ["x", "y"]),
        (pa.chunked_array([["b"], ["a", "b"], []]), ["a", "b"]),
        (pa.array([3, 1], pa.uint64()), ["1", "3"]),
        (pa.array([0.1, 2.0], pa.float32()), ["0.1", "2"]),
    ],
)
def test_classes_of_any_stored_type(cells, classes) -> None:
    column = fitted(Category(), cells)
    assert column.classes == classes
    array = cells.combine_chunks() if isinstance(cells, pa.ChunkedArray) else cells
    text = words(array if isinstance(array, pa.Array) else pa.array(array))[0].to_pylist()
    known = [name for name in text if name is not None]
    assert [column.classes[code] for code in values_of(column, array) if code < len(classes)] == known


def test_lists_are_no_classes_and_too_many_are_a_mistake() -> None:
    with pytest.raises(DataError, match=r"stored as list<.*> name no class"):
        fitted(Category(), [[1], [2]])
    with pytest.raises(DataError, match="5 classes, more than 4"):
        fitted(Category(most=4), list("abcde"))


@FEW
@given(st.lists(st.one_of(st.none(), st.text(max_size=5)), min_size=1, max_size=30))
def test_classes_come_back(cells) -> None:
    cells = [*cells, "x"]
    column = fitted(Category(), pa.array(cells, pa.string()))
    back = column.restore(torch.from_numpy(values_of(column, pa.array(cells, pa.string()))))
    text = words(pa.array(cells, pa.string()))[0].to_pylist()
    assert back == text
    assert sum(column.counts) == sum(one is not None for one in text)


@FEW
@given(st.permutations(["1", "10", "9", "-3", "1.5", "nan", "inf", "-inf", "a", "B", "é", "二", "1e3", "NaN"]))
def test_the_order_of_classes_is_one(names) -> None:
    assert natural_order(names) == natural_order(sorted(names))
    assert natural_order(names)[:6] == ["-3", "1", "1.5", "9", "10", "1e3"]


# --- labels


def test_labels_of_lists_text_and_single_values() -> None:
    column = fitted(Tags(), [["b", "a"], ["b"], [], None, ["b", None, " "]])
    assert (column.classes, column.counts) == (["a", "b"], [1, 3])
    done = column.tensorize(pa.array([["a", "b"], [], None, ["b", "b"]]), Path)
    assert done.values.tolist() == [[1, 1], [0, 0], [0, 0], [0, 1]]
    assert done.present.tolist() == [True, True, False, True]
    text = fitted(Tags(separator=";"), ["a; b", "b;", ";"])
    assert values_of(text, ["b;a", "", " ; "]).tolist() == [[1, 1], [0, 0], [0, 0]]
    assert fitted(Tags(), [3, 1, 3]).classes == ["1", "3"]
    assert fitted(Tags(), [[10, 9], [2]]).classes == ["2", "9", "10"]


def test_unseen_labels() -> None:
    cells = ["a|b", "a"]
    assert reasons(fitted(Tags(), cells), ["a|z"]) == [(0, "unseen", "the label 'z' is in no training row")]
    done = fitted(Tags(), cells, "output").tensorize(pa.array(["a|z", "a"]), Path)
    assert done.present.tolist() == [False, True]


@FEW
@given(st.lists(st.sets(st.sampled_from(["a", "b", "猫", "10", "9"])), min_size=1, max_size=10).filter(any))
def test_labels_come_back(cells) -> None:
    lists = pa.array([sorted(cell) for cell in cells], pa.list_(pa.string()))
    column = fitted(Tags(), lists)
    back = column.restore(torch.from_numpy(values_of(column, lists)))
    assert [set(cell) for cell in back] == cells


# --- dates


def features(text: str, column: Date) -> list[float]:
    return values_of(column, [text])[0, 1:-1].tolist()


def turn(share: float) -> list[float]:
    return [math.sin(2 * math.pi * share), math.cos(2 * math.pi * share)]


@pytest.mark.parametrize(
    ("text", "year", "month", "week", "day"),
    [
        ("2026-01-01", 0, 0, 3 / 7, 0),  # a Thursday
        ("2026-03-01", 59 / 365, 0, 6 / 7, 0),
        ("2024-03-01", 60 / 366, 0, 4 / 7, 0),
        ("2024-02-29", 59 / 366, 28 / 29, 3 / 7, 0),
        ("2023-02-28", 58 / 365, 27 / 28, 1 / 7, 0),
        ("2024-12-31", 365 / 366, 30 / 31, 1 / 7, 0),
        ("1900-02-28 18:00", 58 / 365, 27 / 28, 2 / 7, 0.75),
        ("2000-02-29 06:00", 59 / 366, 28 / 29, 1 / 7, 0.25),
        ("1969-07-20T20:17:40", 200 / 365, 19 / 31, 6 / 7, 73060 / 86400),
    ],
)
def test_places_on_the_cycles(text, year, month, week, day) -> None:
    column = fitted(Date(), ["2020-01-01 12:00", "2026-01-01"])
    want = [x for share in (year, month, week, day) for x in turn(share)]
    assert features(text, column) == pytest.approx(want, abs=1e-6)


@FEW
@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)))
def test_cycles_against_the_calendar(when) -> None:
    column = fitted(Date(), ["2020-01-01 12:00", "2026-01-01"])
    first, following = datetime(when.year, 1, 1), datetime(min(when.year + 1, 9999), 1, 1)
    days = 365 + (when.year % 4 == 0 and (when.year % 100 != 0 or when.year % 400 == 0))
    assert when.year == 9999 or (following - first).days == days
    got = features(when.isoformat(), column)
    assert got[:2] == pytest.approx(turn(((when - first).days) / days), abs=1e-5)
    assert got[4:6] == pytest.approx(turn(when.weekday() / 7), abs=1e-5)
    assert got[6:8] == pytest.approx(
        turn((when - datetime(when.year, when.month, when.day)) / timedelta(days=1)), abs=1e-4
    )


NOON = datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31 12:00", "2026-01-31T12:00:00", "2026-01-31T12:00:00Z", "2026-01-31 20:00+08:00",
        "2026-01-31T07:00:00.000-05:00", "2026/01/31 12:00", "2026/1/31 12:00:00", "2026.01.31 12:00",
        "2026年1月31日 12:00", "31.1.2026 12:00", "31 Jan 2026 12:00", "Jan 31, 2026 12:00",
        "20260131T1200", "January 31, 2026 12:00:00", "  2026-01-31  12:00 ",
    ],
)  # fmt: skip
def test_many_ways_to_write_an_instant(text) -> None:
    assert seconds(text) == NOON


@pytest.mark.parametrize(
    "text", ["2026-01-31", "20260131", "2026/1/31", "2026年01月31日", "31.01.2026", "2026-W05-6", "31 January 2026"]
)
def test_many_ways_to_write_a_day(text) -> None:
    assert seconds(text) == NOON - 43200


@pytest.mark.parametrize(
    "text", ["2026-02-30", "10000-01-01", "03/04/2026", "2026-13-01", "soon", "2026", "12:30", "2026131", "0000-01-01"]
)
def test_what_is_no_date_or_more_than_one(text) -> None:
    with pytest.raises(ValueError, match="not a date"):
        seconds(text)


def test_stored_dates_of_every_type() -> None:
    when = [datetime(2026, 1, 31), None, datetime(1960, 2, 29)]
    text = fitted(Date(), ["2026-01-31", None, "1960-02-29"])
    kinds = [pa.date32(), pa.date64(), *(pa.timestamp(unit) for unit in ("s", "ms", "us", "ns"))]
    for kind in kinds:
        column = fitted(Date(), pa.array(when, kind))
        assert column.state() == text.state()
        np.testing.assert_array_equal(
            values_of(column, pa.array(when, kind)), values_of(text, ["2026-01-31", None, "1960-02-29"])
        )
    zone = timezone(timedelta(hours=8))
    aware = pa.array([datetime(2026, 1, 31, 8, tzinfo=zone)], pa.timestamp("us", tz="Asia/Shanghai"))
    np.testing.assert_array_equal(values_of(text, aware), values_of(text, ["2026-01-31"]))
    far = pa.array([10**17, -(10**17), 0], pa.int64()).cast(pa.timestamp("s"))
    done = text.tensorize(far, Path)
    assert [(f.index, f.reason) for f in done.findings] == [(i, "the year is outside 1 … 9999") for i in (0, 1)]
    assert done.present.tolist() == [False, False, True]


def test_a_single_instant_has_no_spread() -> None:
    column = fitted(Date(), ["2026-01-31 00:00:01"] * 999)
    assert values_of(column, ["2026-01-31 00:00:01"])[0, 0] == 0


@FEW
@given(st.lists(st.dates(datetime(1900, 1, 1).date(), datetime(2100, 1, 1).date()), min_size=1, max_size=20))
def test_days_come_back(days) -> None:
    cells = [day.isoformat() for day in days]
    column = fitted(Date(), [*cells, None])
    assert column.restore(torch.from_numpy(values_of(column, [*cells, None]))) == [*cells, None]


@FEW
@given(st.lists(st.datetimes(datetime(2020, 1, 1), datetime(2026, 1, 1)), min_size=1, max_size=20))
def test_instants_come_back_nearly(instants) -> None:
    cells = [when.isoformat(sep=" ") for when in [*instants, datetime(2020, 1, 1, 1)]]
    column = fitted(Date(), cells)
    back = column.restore(torch.from_numpy(values_of(column, cells)))
    for cell, again in zip(cells, back, strict=True):
        assert abs(seconds(cell) - seconds(again)) <= 2 + 1e-6 * column.std


# --- samples


def test_samples_do_not_fall_in_step_with_the_table() -> None:
    turns = pa.chunked_array([[str(i % 10) for i in range(50_000)]])
    found = sample(turns, 1000)
    assert len(found) == 1000
    assert min(found.count(str(i)) for i in range(10)) > 60
    assert found == sample(turns, 1000)
    assert sample(pa.chunked_array([["a", None, "", "  ", "b"]])) == ["a", "b"]
