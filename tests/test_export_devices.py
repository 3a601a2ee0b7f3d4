"""Runs on small devices: one row at a time through ExecuTorch and LiteRT; and what is said where these are missing."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from exported import RECIPE, agree, graph_of, pairs, read, table, variants
from hypothesis import given
from hypothesis import strategies as st

import zhixing as zx
from zhixing.errors import MissingExtraError, UsageError
from zhixing.export import formats
from zhixing.export.rows import filled, row_by_row, sort_numbers, sort_stable

LIBRARIES = {"executorch": "executorch", "litert": "litert_torch"}
ENCODERS = [
    ("number", "mlp", "number"), ("image", "cnn", "category"), ("image", "vit", "category"),
    ("image", "resnet18", "category"), ("image", "lstm", "number"), ("category", "embedding", "number"),
    ("text", "transformer", "category"), ("text", "text_cnn", "category"), ("text", "bag", "number"),
    ("text", "lstm", "category"), ("text", "sasrec", "category"), ("series", "gru", "number"),
    ("series", "rnn", "number"), ("series", "tcn", "category"), ("series", "conformer", "number"),
    ("series", "whisper", "category"),
]  # fmt: skip


def needs(form: str) -> None:
    if importlib.util.find_spec(LIBRARIES[form]) is None:
        pytest.skip(f"needs the extra {form}")


@pytest.mark.slow
@pytest.mark.parametrize("form", LIBRARIES)
@pytest.mark.parametrize(("kind", "encoder", "head"), ENCODERS)
def test_an_encoder_in_this_format(form: str, kind: str, encoder: str, head: str, tmp_path: Path) -> None:
    needs(form)
    graph, batch = graph_of(kind, encoder, head)
    one, path = formats.FORMATS[form], tmp_path / f"model{formats.FORMATS[form].suffix}"
    one.write(graph, path, batch, {})
    run = one.open(path, graph)
    for part in variants(batch):
        feed = graph.example(part)
        if any(
            port.most is not None and tensor.shape[1] > port.most
            for port, tensor in zip(graph.inputs, feed, strict=True)
        ):
            continue  # columns cut rows to as many
        with torch.no_grad():
            assert max(graph.differences(graph(*feed), run(feed)).values()) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("form", LIBRARIES)
def test_the_reader_answers_as_predict_does(form: str, tmp_path: Path) -> None:
    needs(form)
    run = zx.train(str(table(tmp_path)), recipe=RECIPE, out=tmp_path / "run", device="cpu")
    folder = run.export(form, out=tmp_path / "out")
    source = Path(run.settings.data.source)
    agree(read(f"{form}_reader.py", folder, source), run.predict(str(source)).to_pylist())


@pytest.mark.slow
@pytest.mark.parametrize("form", LIBRARIES)
def test_a_text_that_grows_is_not_written(form: str, tmp_path: Path) -> None:
    needs(form)
    raw: dict[str, Any] = {
        "inputs": {"from": {"type": "text", "encoder": {"name": "gru", "width": 8}}},
        "outputs": {"to": {"type": "text", "decoder": {"name": "gru", "width": 8}}},
        "training": {"epochs": 1, "batch_size": 16, "threads": 1},
    }
    run = zx.train(str(pairs(tmp_path, alone=False)), recipe=raw, out=tmp_path / "run", device="cpu")
    with pytest.raises(UsageError, match="Export it as onnx, openvino or torch"):
        run.export(form, out=tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("form", LIBRARIES)
def test_a_library_that_is_missing_is_named(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("executorch", "executorch.exir", "litert_torch"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=rf"zhixing\[{form}\]"):
        formats.FORMATS[form].require()


@given(
    st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=5),
    st.booleans(),
    st.sampled_from((0, 1, -1)),
)
def test_values_are_sorted_by_counting(rows: list[list[bool]], descending: bool, dim: int) -> None:
    values = torch.tensor(rows)
    expected = torch.sort(values, stable=True, dim=dim, descending=descending)
    truths = sort_stable(values, stable=True, dim=dim, descending=descending)
    numbers = sort_numbers(values.float() - 0.25, dim, descending)
    assert torch.equal(truths[0], expected.values)
    assert torch.equal(numbers[0] + 0.25, expected.values.float())
    for found in (truths, numbers):
        assert torch.equal(found[1], expected.indices)


def test_rows_go_one_by_one() -> None:
    feed = (torch.arange(12.0).view(3, 4), torch.ones(3, 4, dtype=torch.bool))
    seen: list[torch.Size] = []

    def one(given: list[torch.Tensor]) -> list[torch.Tensor]:
        seen.extend(tensor.shape for tensor in given)
        return [given[0].sum(1), filled(given[0], 6)]

    totals, wide = row_by_row(one, feed)
    assert set(seen) == {torch.Size([1, 4])}
    assert totals.tolist() == [6, 22, 38]
    assert wide.shape == (3, 6)
    assert wide[:, 4:].abs().sum() == 0
