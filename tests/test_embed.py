"""Vectors of rows: beside the model's own encodings, in order, with broken rows in their places."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

import zhixing as zx
from zhixing.commands.embed import embed
from zhixing.data.batches import Batches
from zhixing.data.prepare import encode_all
from zhixing.errors import DataError, UsageError
from zhixing.verbs.embed import pooled
from zhixing.verbs.sources import as_table

ROWS = 90  # more than a batch


@pytest.fixture(scope="module")
def table() -> dict[str, list[object]]:
    """Texts of many lengths, so that batches are not in the order of rows."""
    chance = np.random.default_rng(0)
    words = ["good", "bad", "cat", "dog", "the", "sat"]
    texts = [" ".join(chance.choice(words, chance.integers(1, 30))) for _ in range(ROWS)]
    return {
        "text": list(texts),
        "age": chance.normal(size=ROWS).tolist(),
        "label": ["yes" if "cat" in text else "no" for text in texts],
    }


@pytest.fixture(scope="module")
def run(table: dict[str, list[object]], tmp_path_factory: pytest.TempPathFactory) -> zx.Run:
    recipe = {
        "inputs": {"text": {"type": "text", "encoder": "gru"}, "age": {"type": "number"}},
        "outputs": {"label": {"type": "category"}},
        "training": {"epochs": 1},
    }
    return zx.train(table, recipe=recipe, out=tmp_path_factory.mktemp("runs") / "run", quiet=True)


def one_by_one(run: zx.Run, table: dict[str, list[object]], name: str | None) -> NDArray[np.float32]:
    """Each row encoded by itself."""
    source = as_table(run.settings, table)
    encoded, _ = encode_all(source, {key: run.fitted[key] for key in run.model.inputs})
    batches = Batches({key: one.batch for key, one in encoded.items()}, torch.device("cpu"))
    with torch.inference_mode():
        rows = [pooled(run.model, batches.gather(np.array([row])), name)[0] for row in range(source.rows)]
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("name", [None, "text", "age"])
def test_vectors_are_those_of_each_row_by_itself(run: zx.Run, table: dict[str, list[object]], name: str | None) -> None:
    found = run.embed(table, input=name)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, one_by_one(run, table, name), rtol=1e-4, atol=1e-5)


def test_normalised_vectors_have_length_one(run: zx.Run, table: dict[str, list[object]]) -> None:
    plain, found = run.embed(table), run.embed(table, normalise=True)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(found * np.linalg.norm(plain, axis=1, keepdims=True), plain, rtol=1e-5, atol=1e-6)


def test_only_the_input_that_is_asked_for_has_to_be_there(run: zx.Run, table: dict[str, list[object]]) -> None:
    texts = {"text": table["text"]}
    assert np.array_equal(run.embed(texts, input="text"), run.embed(table, input="text"))
    with pytest.raises(DataError, match="'age', which this table lacks"):
        run.embed(texts)
    with pytest.raises(UsageError, match="Did you mean 'text'"):
        run.embed(table, input="txt")


def test_broken_rows_are_empty_told_and_in_their_place(run: zx.Run, table: dict[str, list[object]]) -> None:
    folder = Path(run.path).parent
    source, shell = folder / "rows.csv", CliRunner()
    ages = ["twelve" if row in (0, 50) else f"{table['age'][row]!r}" for row in range(ROWS)]
    lines = [f"{text},{age}" for text, age in zip(table["text"], ages, strict=True)]
    source.write_text("\n".join(["text,age", *lines]) + "\n", "utf-8")
    wanted = run.embed({**table, "age": [0.0 if age == "twelve" else float(age) for age in ages]})
    for out in (folder / "rows.npy", folder / "rows.parquet"):
        done = shell.invoke(embed, [str(run.path), str(source), "--out", str(out), "--json"], catch_exceptions=False)
        told = json.loads(done.stdout)
        assert (told["rows"], told["broken"], told["width"]) == (ROWS, 2, wanted.shape[1])
        assert done.stderr.count("twelve") == 2
    vectors, rows = np.load(folder / "rows.npy"), pq.read_table(folder / "rows.parquet")
    assert np.isnan(vectors[[0, 50]]).all()
    good = np.delete(np.arange(ROWS), [0, 50])
    np.testing.assert_allclose(vectors[good], wanted[good], rtol=1e-4, atol=1e-5)
    assert rows["text"].to_pylist() == table["text"]
    assert rows["embedding"].type == pa.list_(pa.float32(), wanted.shape[1])
    cells = rows["embedding"].to_pylist()
    assert cells[0] is None
    assert cells[50] is None
    assert np.array_equal(np.array([cells[row] for row in good], np.float32), vectors[good])
    with pytest.raises(DataError, match="2 rows cannot be read"):
        run.embed(str(source))


def test_files_that_cannot_be_written_and_tables_without_a_good_row(run: zx.Run, tmp_path: Path) -> None:
    shell = CliRunner()
    source = tmp_path / "rows.csv"
    source.write_text("text,age\na,x\nb,y\n", "utf-8")
    for name, error in (
        ("a.txt", UsageError),
        ("no/a.npy", UsageError),
        ("a.npy", DataError),
        ("a.parquet", DataError),
    ):
        done = shell.invoke(embed, [str(run.path), str(source), "--out", str(tmp_path / name)])
        assert isinstance(done.exception, error), done.output
    assert len(np.load(tmp_path / "a.npy")) == 2  # the empty answers stand
    assert pq.read_table(tmp_path / "a.parquet")["embedding"].null_count == 2
    assert not list(tmp_path.glob(".*"))


def test_pictures_and_models_without_an_input(tmp_path: Path) -> None:
    chance = np.random.default_rng(1)
    for number in range(12):
        place = tmp_path / "data" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(chance.integers(0, 255, (12, 12, 3), np.uint8)).save(place / f"{number}.png")
    run = zx.train(str(tmp_path / "data"), epochs=1, out=tmp_path / "run", quiet=True)
    files = sorted(map(str, (tmp_path / "data").glob("*/*.png")))
    found = run.embed(files)
    assert found.shape[0] == 12
    np.testing.assert_allclose(run.embed(files[::-1]), found[::-1], rtol=1e-4, atol=1e-5)
    text = {"type": "text", "tokenizer": "character", "length": 8, "decoder": {"name": "transformer", "width": 8}}
    speaker = zx.train(
        {"text": ["ab cd", "cd ab"] * 8}, recipe={"outputs": {"text": text}, "training": {"epochs": 1}},
        out=tmp_path / "lm", quiet=True,
    )  # fmt: skip
    with pytest.raises(UsageError, match="no encoder"):
        speaker.embed(["a"])
