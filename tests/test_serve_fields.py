"""Every type of column stands in requests: its example is taken, its bounds are kept, and its schema says both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from column_cells import fit

from zhixing.columns import COLUMNS, Column
from zhixing.columns.sound import FULL
from zhixing.data.source_cells import from_mapping
from zhixing.serve.fields import Fields, RowError, parse_json

SCREEN = np.random.default_rng(0).integers(0, 255, (6, 9, 9, 3), dtype=np.uint8)
WAVES = [(0.1 * FULL * np.sin(np.arange(4000) / n)).astype(np.int16).tolist() for n in (2, 3)]
TRAINING: dict[str, Any] = {
    "image": pa.chunked_array([pa.FixedShapeTensorArray.from_numpy_ndarray(SCREEN)]),
    "text": ["the cat sat", "a dog ran", "the end"],
    "audio": WAVES,
    "number": [1.0, 2.5, None, 7.0],
    "category": ["a", "b", "a", "c"],
    "tags": [["x", "y"], ["y"], []],
    "labels": [["N", "V"], ["V"]],
    "series": [[1.0, 2.0, 3.0], [2.0, None, 5.0, 1.0]],
    "history": [["tea", "milk"], ["milk", "bread"]],
    "date": ["2026-01-31", "2026-03-01"],
}
SEVERAL: dict[str, Any] = {
    "number": [[1.0, 2.0], [3.0, 4.0]],
    "series": [[[1.0, 10.0], [2.0, 20.0]], [[3.0, 30.0]]],
    "text": [["the", "cat"], ["a", "dog"]],
}
WRONG: dict[str, list[Any]] = {
    "image": [
        "/etc/passwd",
        "http://example.com",
        {"path": "/x"},
        {"base64": "?"},
        3,
        {"base64": "aGk=", "path": "/x"},
    ],
    "text": [3, ["a"], {"text": "a"}, True],
    "audio": ["/etc/passwd", [1, 2, 3], {"base64": 1}],
    "number": ["1", True, [1.0], 1e300, float("inf")],
    "category": [["a"], {"a": 1}, float("nan")],
    "tags": ["x", [["x"]], {"x": 1}],
    "labels": ["N", [None], 1],
    "series": [3, "1 2 3", [[1.0, 2.0]], ["a"]],
    "history": ["tea", [["tea"]], 5],
    "date": [20260131, "soon", "03/04/2026", ["2026-01-31"], ""],
}


def column(kind: str, cells: Any) -> Column:
    one = fit(COLUMNS[kind](), cells)
    if kind == "image":
        one.mean, one.std = [0.0] * 3, [1.0] * 3  # type: ignore[attr-defined]
    return one


def test_the_table_is_complete() -> None:
    assert set(TRAINING) == set(WRONG) == set(COLUMNS)


@pytest.mark.parametrize(
    ("kind", "cells"),
    [*TRAINING.items(), *SEVERAL.items()],
    ids=[*TRAINING, *(f"{kind} of several" for kind in SEVERAL)],
)
def test_examples_are_taken(kind: str, cells: Any) -> None:
    """An example, alone and beside empty cells, is one that the column reads without complaint."""
    one = column(kind, cells)
    fields = Fields({"it": one}, 10_000)
    example = fields.example()
    read = fields.read(parse_json(json_of(example)))
    found = one.tensorize(from_mapping({"it": [read["it"]]}, place="here")["it"].combine_chunks(), Path)
    assert not [finding for finding in found.findings if finding.kind == "broken"]
    assert found.present.tolist() == [True]
    facts = fields.describe()[0]
    assert (facts["name"], facts["type"], facts["example"]) == ("it", kind, example["it"])
    assert facts["schema"]["examples"] == [example["it"]]


@pytest.mark.parametrize("kind", TRAINING)
def test_other_cells_are_refused_with_the_column(kind: str) -> None:
    fields = Fields({"it": column(kind, TRAINING[kind])}, 10_000)
    for wrong in WRONG[kind]:
        with pytest.raises(RowError) as refused:
            fields.read({"it": wrong})
        assert refused.value.column == "it"
        assert refused.value.message


@pytest.mark.parametrize("kind", TRAINING)
def test_schemas_agree_with_what_is_taken(kind: str) -> None:
    jsonschema = pytest.importorskip("jsonschema_rs")
    fields = Fields({"it": column(kind, TRAINING[kind])}, 10_000)
    schema = fields.schema()
    jsonschema.meta.validate(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(fields.example())
    for wrong in WRONG[kind]:
        text = isinstance(wrong, dict | str) or wrong != wrong  # base64, dates and NaN are beyond JSON schema
        assert text or not validator.is_valid({"it": wrong}), wrong


def test_rows_are_checked() -> None:
    fields = Fields({"a": column("number", [1.0, 2.0]), "b": column("category", ["x", "y"])}, 20)
    assert fields.read({"a": 1, "b": 3.0}) == {"a": 1.0, "b": "3"}
    for row, wrong in (({"a": 1}, "b"), ({"a": 1, "b": "x", "c": 1}, "c"), ({"a": 1, "b": "x" * 21}, "b"), ([], None)):
        with pytest.raises(RowError) as refused:
            fields.read(row)
        assert refused.value.column == wrong


def test_forms_hold_cells_or_their_json() -> None:
    kinds = {"n": "number", "t": "text", "s": "series", "d": "date"}
    fields = Fields({name: column(kind, TRAINING[kind]) for name, kind in kinds.items()}, 100)
    form = {"n": "1.5", "t": "[1, 2]", "s": "[1, null, 3]", "d": "null"}
    assert fields.read(fields.read_form(form)) == {"n": 1.5, "t": "[1, 2]", "s": [1.0, None, 3.0], "d": None}
    assert fields.read_form({"n": "", "t": b"as a file"}) == {"n": None, "t": "as a file"}


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "{", "[" * 5000, "'a'", ""])
def test_json_is_strict(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parse_json(text)


def json_of(value: Any) -> str:
    import json

    return json.dumps(value)
