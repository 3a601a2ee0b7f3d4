"""Inference: a sensible type for each kind of column, with a reason in words, and nothing where nothing fits."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import sklearn.datasets

from zhixing.columns import infer
from zhixing.data.source import open_source

DRAW = np.random.default_rng(0)
N = 300


def some(words: list[Any], count: int = N) -> list[Any]:
    return [words[i] for i in DRAW.integers(0, len(words), count)]


def texts(numbers: Any, form: str = "{}") -> list[str]:
    return [form.format(number) for number in np.asarray(numbers).tolist()]


SENTENCES = [f"The {a} of {b} was seen near {c} in winter." for a in "abcdef" for b in "ghijkl" for c in "mnopqrst"]
CASES: list[tuple[str, list[Any], str | None]] = [
    # numbers
    ("price", texts(DRAW.uniform(1, 99, N).round(2)), "number"),
    ("price", DRAW.uniform(1, 99, N).tolist(), "number"),
    ("age", texts(DRAW.integers(18, 90, N)), "number"),
    ("age", DRAW.integers(18, 90, N).tolist(), "number"),
    ("age", [18, 25, 31, 40, 47, 52, 60, 18, 25, 31, 40, 47, 52, 60], "number"),  # few rows, but gaps between them
    ("year", texts(DRAW.integers(2015, 2025, N)), "number"),
    ("income", [None if i % 7 == 0 else float(i * 1000) for i in range(N)], "number"),
    ("temperature", texts(DRAW.normal(0, 9, N).round(1)), "number"),
    ("tiny", texts(DRAW.uniform(0, 1e-9, N)), "number"),
    ("mostly numbers", [*texts(DRAW.uniform(0, 9, 280)), *["n/a"] * 20], "number"),
    ("embedding", DRAW.normal(size=(N, 5)).tolist(), "number"),
    # classes
    ("flag", texts(DRAW.integers(0, 2, N)), "category"),
    ("flag", DRAW.integers(0, 2, N).tolist(), "category"),
    ("sign", some([-1, 1]), "category"),
    ("percentile", some([0, 100]), "category"),
    ("digit", texts(DRAW.integers(0, 10, N)), "category"),
    ("stars", some([1, 2, 3, 4, 5]), "category"),
    ("with holes", [None if i % 9 == 0 else float(i % 3) for i in range(N)], "category"),
    ("zip", some([f"{i:05}" for i in (1234, 90210, 2139, 10001, 501, 60601)]), "category"),
    ("area code", some([f"{i:04}" for i in range(10, 60)]), "category"),
    ("colour", some(["red", "green", "blue"]), "category"),
    ("city", some(["北京", "上海", "广州"]), "category"),
    ("truth", some(["True", "False"]), "category"),
    ("truth", some([True, False]), "category"),
    ("yes", ["yes", "no"], "category"),
    ("answer", some(["yes", "no", None, ""]), "category"),
    ("first name", some([f"name{i}" for i in range(40)]), "category"),
    # dates
    ("day", [str(datetime.date(2020, 1, 1) + datetime.timedelta(days=i)) for i in range(N)], "date"),
    ("when", [f"2026/{i % 12 + 1}/{i % 28 + 1} 10:{i % 60:02}" for i in range(N)], "date"),
    ("day", [f"2026{i % 12 + 1:02}{i % 28 + 1:02}" for i in range(N)], "date"),
    ("日期", [f"2026年{i % 12 + 1}月{i % 28 + 1}日" for i in range(N)], "date"),
    ("stamp", [datetime.datetime(2026, 1, 1, i % 24) for i in range(N)], "date"),
    # labels, pictures
    ("genres", some(["a|b", "b|c", "a", "c|a|b"]), "tags"),
    ("genres", some([["a", "b"], ["b"], []]), "tags"),
    ("photo", [f"pictures/{i}.jpg" for i in range(N)], "image"),
    ("image_id", [f"{i}.PNG" for i in range(N)], "image"),
    ("pixels", list(DRAW.integers(0, 256, (20, 8, 8), np.uint8)), "image"),
    # prose, series, histories
    ("text", [SENTENCES[i % len(SENTENCES)] + str(i) for i in range(N)], "text"),
    ("诗", [f"床前明月光，疑是地上霜。举头望明月，低头思故乡{i}" for i in range(N)], "text"),
    ("ragged", [[1.0] * (i % 4) for i in range(N)], "series"),
    ("steps", [[[0.5, i]] * 3 for i in range(N)], "series"),
    ("history", [["a", "b"][: i % 3] for i in range(N)], "history"),
    # nothing that fits
    ("name", [f"{chr(65 + i % 26)}{i} von {i * 7}" for i in range(N)], None),
    ("id", list(range(N)), None),
    ("id", texts(np.arange(N)), None),
    ("customer_id", DRAW.permutation(10**6)[:N].tolist(), None),
    ("hash", [f"{int(x):016x}g" for x in DRAW.integers(0, 2**60, N)], None),
    ("code", [f"{i:06}" for i in range(N)], None),
    ("rubbish", [[str(i), f"x{i}", f"2026-01-{i % 28 + 1}"][i % 3] for i in range(N)], None),
    ("empty", [None] * N, None),
    ("blank", ["", " ", None] * 100, None),
    ("labels", [{"a": 1}] * N, None),
]


@pytest.mark.parametrize(("name", "cells", "want"), CASES)
def test_types(name, cells, want) -> None:
    table = open_source({name: cells})
    found = infer(table[name], name)
    assert (found and found[0]) == want
    if found:
        assert len(found[1]) > 8


def test_what_is_called_an_id_but_repeats_is_a_class_or_number() -> None:
    assert infer(pa.chunked_array([some(["u1", "u2", "u3"])]), "user_id")[0] == "category"  # type: ignore[index]
    assert infer(pa.chunked_array([list(range(50))]), "x")[0] == "number"  # type: ignore[index]


def test_reasons_are_counted() -> None:
    _, reason = infer(pa.chunked_array([some(["red", "green", "blue"])]), "colour")  # type: ignore[misc]
    assert reason == "3 different values in 300 sampled cells"
    assert infer(pa.chunked_array([["1.5", "x"] + ["2"] * 30]), "x") == (
        "number",
        "31 of 32 sampled cells read as numbers",
    )


def test_classes_that_take_turns_are_all_seen() -> None:
    cells = pa.chunked_array([[f"class {i % 10}" for i in range(20_000)]])
    assert infer(cells, "label") == ("category", "10 different values in 5000 sampled cells")


@pytest.mark.parametrize(
    ("name", "target"),
    [("iris", "category"), ("wine", "category"), ("breast_cancer", "category"), ("diabetes", "number")],
)
@pytest.mark.parametrize("as_text", [False, True])
def test_known_tables(name, target, as_text, tmp_path) -> None:
    frame = getattr(sklearn.datasets, f"load_{name}")(as_frame=True).frame
    source: Any = frame
    if as_text:
        source = tmp_path / "table.csv"
        frame.to_csv(source, index=False)
    table = open_source(source)
    found = {name: infer(table[name], name) for name in table.columns}
    assert all(found.values())
    kinds = {name: one[0] for name, one in found.items() if one}
    assert kinds.pop("target") == target
    assert set(kinds.values()) == {"number"}
    assert len(kinds) == frame.shape[1] - 1
