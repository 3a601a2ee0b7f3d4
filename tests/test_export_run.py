"""Exported runs: opened again and compared; their example readers, which know nothing of this package; and refusals."""

from __future__ import annotations

import json
import math
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import published_marian as marian
import pytest
import torch
from exported import RECIPE, SMALL, agree, pairs, read, table
from PIL import Image

import zhixing as zx
from zhixing.cli import main
from zhixing.errors import MissingExtraError, RunError, UsageError
from zhixing.export import formats, kernels
from zhixing.export import onnx as onnx_form
from zhixing.export.answers import Quantities, Units
from zhixing.export.command import rows_for
from zhixing.export.export import export
from zhixing.layers.recurrent import Recurrent


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> zx.api.Run:
    folder = tmp_path_factory.mktemp("table")
    return zx.train(str(table(folder)), recipe=RECIPE, out=folder / "run", device="cpu")


@pytest.fixture(scope="module")
def exported(run: zx.api.Run) -> Path:
    main(["export", str(run.path)])
    return run.path / "export" / "onnx"


def test_python_exports_runs_whose_data_are_in_memory(tmp_path: Path) -> None:
    data = {"x": [float(i % 17) for i in range(120)], "y": ["odd" if i % 17 % 2 else "even" for i in range(120)]}
    recipe = {"outputs": {"y": {"type": "category"}}, "training": SMALL}
    run = zx.train(data, recipe=recipe, out=tmp_path / "run", device="cpu")
    folder = run.export(out=tmp_path / "model", most=20)
    (tmp_path / "rows.csv").write_text("x\n3\n4.5\n")
    agree(read("onnx_reader.py", folder, tmp_path / "rows.csv"), run.predict({"x": [3.0, 4.5]}).to_pylist())
    with pytest.raises(UsageError, match="format"):
        run.export("onyx")


def test_the_reader_answers_as_predict_does(run: zx.api.Run, exported: Path) -> None:
    source = Path(run.settings.data.source)
    found = read("onnx_reader.py", exported, source)
    agree(found, run.predict(str(source)).to_pylist())
    assert {"label", "label_probability", "tags", "price", "price_quantile_0.1"} <= set(found[0])


def test_what_stands_beside_the_model(exported: Path) -> None:
    assert {path.name for path in exported.iterdir()} == {"model.onnx", "model.json", "model_note.tokenizer.json"}
    facts = json.loads((exported / "model.json").read_text("utf-8"))
    assert facts["columns"]["label"]["state"]["classes"] == ["no", "yes"]
    assert max(facts["differences"].values()) <= facts["tolerance"] == 1e-4
    notes = json.loads(onnx_form.metadata(exported / "model.onnx")["zhixing"])
    assert notes["columns"] == facts["columns"]


@pytest.mark.slow
@pytest.mark.parametrize(("form", "reader"), [("torch", "torch_reader.py"), ("openvino", "openvino_reader.py")])
def test_other_runtimes_answer_as_predict_does(run: zx.api.Run, form: str, reader: str, tmp_path: Path) -> None:
    main(["export", str(run.path), "--format", form, "--out", str(tmp_path)])
    source = Path(run.settings.data.source)
    agree(read(reader, tmp_path, source), run.predict(str(source)).to_pylist())


def test_a_torch_file_holds_no_rows_and_no_pickles(run: zx.api.Run, tmp_path: Path) -> None:
    told = zx.export.command.export_command(
        run.settings, run.fitted, run.model, form="torch", out=tmp_path, most=5, console=zx.console.Console(quiet=True)
    )
    assert max(told["differences"].values()) < 1e-5
    with zipfile.ZipFile(tmp_path / "model.pt2") as file:
        pickled = [entry.filename for entry in file.infolist() if entry.filename.endswith(".pt") and entry.file_size]
        assert not pickled
        assert not any(file.read(entry).startswith((b"\x80\x02", b"\x80\x04", b"PK")) for entry in file.infolist())


@pytest.mark.slow
def test_pictures_are_resized_by_the_reader_as_here(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for row in range(24):
        folder = tmp_path / "pictures" / "ab"[row % 2]
        folder.mkdir(parents=True, exist_ok=True)
        height, width = random.integers(20, 50, 2)
        pixels = random.integers(0, 256, (height, width, 4 if row % 3 == 0 else 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{row}.png")
    raw = {"training": SMALL, "inputs": {"image": {"size": 32}}}
    run = zx.train(str(tmp_path / "pictures"), recipe=raw, out=tmp_path / "run", device="cpu")
    main(["export", str(run.path), "--out", str(tmp_path / "small.onnx")])
    files = sorted((tmp_path / "pictures").glob("*/*.png"))
    expected = run.predict([str(file) for file in files]).to_pylist()
    agree(read("onnx_reader.py", tmp_path / "small.onnx", *files), expected)


TEXTS: dict[str, dict[str, Any]] = {
    "transformer": {"name": "transformer", "width": 16, "depth": 2, "heads": 2, "kv_heads": 1, "positions": "rotary"},
    "relative": {"name": "transformer", "width": 16, "depth": 1, "heads": 2, "positions": "relative"},
    "prefix": {"name": "transformer", "width": 16, "depth": 1, "heads": 2, "join": "prefix"},
    "gru": {"name": "gru", "width": 16},
    "ctc": {"name": "ctc"},
}


@pytest.mark.parametrize(
    "decoder", [pytest.param(name, marks=() if name == "gru" else pytest.mark.slow) for name in (*TEXTS, "alone")]
)
def test_texts_are_written_step_by_step_as_predict_does(decoder: str, tmp_path: Path) -> None:
    alone = decoder == "alone"
    source = pairs(tmp_path, alone=alone)
    chosen = TEXTS["transformer" if alone else decoder]
    raw: dict[str, Any] = {
        "outputs": {"to": {"type": "text", "decoder": chosen, "search": {"most": 12}}},
        "training": {**SMALL, "epochs": 4, "optimizer": {"name": "adamw", "lr": 0.01}},
    }
    if not alone:
        raw["inputs"] = {"from": {"type": "text", "tokenizer": "character", "encoder": {"name": "gru", "width": 16}}}
    run = zx.train(str(source), recipe=raw, out=tmp_path / "run", device="cpu")
    main(["export", str(run.path), "--rows", "6"])
    asked = tmp_path / "asked.jsonl"
    lines = ['{"to": "un"}', '{"to": "dos tr"}', '{"to": "t"}'] if alone else source.read_text("utf-8").splitlines()[:9]
    asked.write_text("\n".join(lines), "utf-8")
    found = read("onnx_reader.py", run.path / "export" / "onnx", asked)
    assert found == run.predict(str(asked)).select(["to"]).to_pylist()
    assert any(row["to"] for row in found)


@pytest.mark.slow
def test_a_published_translator_and_its_two_tokenizers(tmp_path: Path) -> None:
    folder = marian.write_model(tmp_path / "published")
    raw = {
        "inputs": {"en": {"type": "text", "encoder": str(folder), "length": 30}},
        "outputs": {"fr": {"type": "text", "decoder": str(folder), "length": 20, "search": {"most": 12}}},
        "training": {**SMALL, "epochs": 4, "optimizer": {"name": "adamw", "lr": 0.01}},
    }
    data = {"en": list(marian.PAIRS), "fr": list(marian.PAIRS.values())}
    run = zx.train(data, recipe=raw, out=tmp_path / "run", device="cpu")
    out = run.export(out=tmp_path / "out", most=4)
    assert {"model_en.tokenizer.model", "model_fr.tokenizer.model"} <= {path.name for path in out.iterdir()}
    asked = tmp_path / "asked.jsonl"
    asked.write_text("\n".join(json.dumps({"en": text}) for text in marian.SOURCE), "utf-8")
    found = read("onnx_reader.py", out, asked)
    assert found == run.predict(str(asked)).select(["fr"]).to_pylist()
    assert any(row["fr"] for row in found)


# Refusals ----------------------------------------------------------------------------------------------------------


def test_a_difference_is_an_error_and_leaves_nothing(
    run: zx.api.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_for(run.settings, run.fitted, run.model, most=4, console=zx.console.Console(quiet=True))
    real = Units.forward
    torch.manual_seed(0)

    def write_wrong(*given: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Units, "forward", lambda self, x: real(self, x + 1e-3))
            onnx_form.write_onnx(*given)

    kind = formats.FORMATS["onnx"]
    monkeypatch.setitem(formats.FORMATS, "onnx", formats.Format(kind.suffix, kind.require, write_wrong, kind.open))
    with pytest.raises(RunError, match=r"price by .*, more than 0\.0001; nothing is left") as caught:
        export(run.fitted, run.model, rows, tmp_path / "out")
    assert "--tolerance" in str(caught.value)
    assert not list((tmp_path / "out").iterdir())
    told = export(run.fitted, run.model, rows, tmp_path / "out", tolerance=0.1)
    assert told["differences"]["price"] > 1e-4
    assert told["differences"]["label"] < 1e-5


@pytest.mark.parametrize(
    ("out", "problem"), [("file.txt/deep", "nothing can be written there"), ("model.pt2", "files of this format end")]
)
def test_where_nothing_can_be_written(run: zx.api.Run, tmp_path: Path, out: str, problem: str) -> None:
    (tmp_path / "file.txt").write_text("not a folder")
    rows = rows_for(run.settings, run.fitted, run.model, most=2, console=zx.console.Console(quiet=True))
    with pytest.raises(UsageError, match=problem):
        export(run.fitted, run.model, rows, tmp_path / out)


def test_a_library_that_is_missing_is_named(run: zx.api.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    rows = rows_for(run.settings, run.fitted, run.model, most=2, console=zx.console.Console(quiet=True))
    with pytest.raises(MissingExtraError, match=r"zhixing\[export\]"):
        export(run.fitted, run.model, rows, tmp_path)


# Parts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_a_kernel_in_both_forms_is_torchs(cell: Any, layers: int) -> None:
    torch.manual_seed(0)
    plain = Recurrent(cell, 3, 5, layers=layers)
    kernel = plain.stages[0][0]
    x = torch.randn(4, 7, 3)
    with torch.no_grad():
        expected = kernel(x)[0]
        for form in (kernels.OneNode, kernels.Scanned):
            torch.testing.assert_close(form(kernel)(x)[0], expected)


@pytest.mark.parametrize("scale", ["standardise", "log", "quantile", "none"])
def test_numbers_come_back_to_their_units(scale: Any) -> None:
    import pyarrow as pa

    from zhixing.columns.number import Number

    column = Number(scale=scale)
    column.role = "output"
    values = 2000 + np.random.default_rng(0).lognormal(size=300) * 30
    column.fit(pa.chunked_array([values]), Path)
    scaled = torch.linspace(-3, 3, 50)[:, None]
    found = Units(column)(scaled).numpy()
    np.testing.assert_allclose(found, column.unscale(scaled), rtol=1e-6)


def test_differences_of_numbers_count_deviations() -> None:
    import pyarrow as pa

    from zhixing.columns.number import Number
    from zhixing.heads import NumberHead

    column = Number()
    column.role = "output"
    column.fit(pa.chunked_array([np.array([1000.0, 1020.0])]), Path)  # a deviation of 10 about 1010
    answer = Quantities(NumberHead(4, column), column, None)
    near, far = torch.tensor([[1012.0]]).double(), torch.tensor([[1110.0]]).double()
    assert answer.differences([near], [near + 1])[0] == pytest.approx(0.1)
    assert answer.differences([far], [far + 1])[0] == pytest.approx(0.01)
    assert answer.differences([near], [near * math.nan])[0] == math.inf
