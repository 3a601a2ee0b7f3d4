"""The Python face: any form of a table in, the same rows out in their order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from own_encoder import Mean
from PIL import Image as Pillow

import zhixing as zx
from zhixing.errors import DataError, RecipeError, RunError, UsageError

SPLIT = "data.split={train: 0.7, validation: 0.15, test: 0.15}"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Dark and bright pictures as files, with a number, a category and a date beside them."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    rows: dict[str, Any] = {name: [] for name in ("photo", "age", "shop", "day", "label", "price", "marks")}
    for i in range(60):
        bright = i % 2
        pixels = rng.integers(150 * bright, 100 + 150 * bright, (8, 8), dtype=np.uint8)
        path = folder / f"{i}.png"
        Pillow.fromarray(pixels).save(path)
        rows["photo"].append(str(path))
        rows["age"].append(float(rng.integers(20, 60)) if i % 9 else None)
        rows["shop"].append(("north", "south")[bright])
        rows["day"].append(f"2026-0{1 + i % 9}-11")
        rows["label"].append(("dark", "bright")[bright])
        rows["price"].append(10.0 + 5 * bright + float(rng.normal()) / 9)
        rows["marks"].append(["bright", "any"] if bright else ["any"])
    return rows


@pytest.fixture(scope="module")
def several(pictures: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> zx.Run:
    """Four inputs of four types, three outputs of three types."""
    return zx.train(
        pictures,
        target=["label", "price", "marks"],
        epochs=12,
        lr=0.02,
        batch_size=16,
        settings=[
            "inputs.photo.encoder={name: cnn, layers: [4, pool], dense: [8]}",
            "outputs.price={loss: quantile, quantiles: [0.1, 0.5, 0.9]}",
            "training.threads=1",
            SPLIT,
        ],
        out=tmp_path_factory.mktemp("runs") / "several",
    )


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> zx.Run:
    """One picture in, one class out."""
    pixels = [np.full((6, 6), 200 * (i % 2) + i, np.uint8) for i in range(40)]
    data = {"picture": pixels, "label": ["dark", "bright"] * 20}
    encoder = {"name": "mlp", "widths": [8]}
    return zx.train(data, encoder=encoder, epochs=15, lr=0.03, batch_size=8, out=tmp_path_factory.mktemp("flat") / "r")


def test_several_inputs_and_outputs_learn(several: zx.Run, pictures: dict[str, Any]) -> None:
    assert {name: one.type for name, one in several.settings.inputs.items()} == {
        "photo": "image", "age": "number", "shop": "category", "day": "date",
    }  # fmt: skip
    assert {name: one.type for name, one in several.settings.outputs.items()} == {
        "label": "category", "price": "number", "marks": "tags",
    }  # fmt: skip
    found = several.evaluate()
    assert found["label"]["accuracy"] == 1.0
    assert found["marks"]["micro_f1"] == 1.0
    assert found["price"]["rmse"] < 2
    assert found == several.evaluate(pictures, part="test")
    assert json.loads((several.path / "evaluation.json").read_text("utf-8"))["rows"] == 9
    answers = several.predict(pictures)
    assert answers.column_names == [
        "label", "label_probability", "price", "price_quantile_0.1", "price_quantile_0.5", "price_quantile_0.9",
        "marks",
    ]  # fmt: skip
    assert answers["label"].to_pylist() == pictures["label"]
    assert [set(cell) for cell in answers["marks"].to_pylist()] == [set(cell) for cell in pictures["marks"]]


def inputs_of(rows: dict[str, Any]) -> dict[str, Any]:
    return {name: rows[name] for name in ("photo", "age", "shop", "day")}


def test_any_form_of_the_same_rows_gives_the_same_answers(several: zx.Run, pictures: dict[str, Any]) -> None:
    asked = inputs_of(pictures)
    expected = several.predict(asked)
    assert expected.num_rows == 60
    frame = pd.DataFrame(asked)
    for form in (
        pa.table(asked),
        [dict(zip(asked, row, strict=True)) for row in zip(*asked.values(), strict=True)],
        {**asked, "photo": [Path(path) for path in asked["photo"]]},
    ):
        assert several.predict(form).equals(expected)
    answers = several.predict(frame)
    assert isinstance(answers, pd.DataFrame)
    pd.testing.assert_frame_equal(answers, expected.to_pandas())


def test_a_frame_keeps_its_index(several: zx.Run, pictures: dict[str, Any]) -> None:
    frame = pd.DataFrame(inputs_of(pictures))
    frame.index = pd.Index([f"r{i}" for i in range(60)])
    answers = several.predict(frame.iloc[[5, 2, 9]])
    assert list(answers.index) == ["r5", "r2", "r9"]
    assert list(answers["label"]) == [pictures["label"][i] for i in (5, 2, 9)]
    frame.index = pd.Index(range(60), name="customer")
    assert several.predict(frame.iloc[:3]).index.name == "customer"


def test_rows_as_mappings_may_lack_cells_and_train_too(several: zx.Run, pictures: dict[str, Any]) -> None:
    rows = [{"photo": pictures["photo"][0], "shop": "north", "day": None}, {"photo": pictures["photo"][1], "age": 3}]
    with pytest.raises(DataError, match="the model reads 'age'"):
        several.predict(rows[:1])
    assert several.predict(rows).num_rows == 2


def test_training_on_a_frame_and_on_mappings_is_the_same(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": np.arange(40.0), "group": pd.Categorical(["a", "b"] * 20), "label": [True, False] * 20})
    settings: dict[str, Any] = {"epochs": 1, "seed": 3}
    one = zx.train(frame, out=tmp_path / "one", **settings)
    other = zx.train(frame.to_dict("records"), out=tmp_path / "other", **settings)
    arrow = zx.train(pa.Table.from_pandas(frame), out=tmp_path / "arrow", **settings)
    weights = (one.path / "model.safetensors").read_bytes()
    assert (other.path / "model.safetensors").read_bytes() == weights
    assert (arrow.path / "model.safetensors").read_bytes() == weights
    assert one.settings.outputs["label"].type == "category"
    assert set(one.predict(frame)["label"]) <= {"true", "false"}


def test_a_picture_in_every_form(flat: zx.Run, tmp_path: Path) -> None:
    dark, bright = np.full((6, 6), 10, np.uint8), np.full((6, 6), 230, np.uint8)
    paths = [tmp_path / "dark.png", tmp_path / "bright.png"]
    for path, array in zip(paths, (dark, bright), strict=True):
        Pillow.fromarray(array).save(path)
    for source in (
        paths, [str(path) for path in paths], [dark, bright], np.stack([dark, bright]),
        [Pillow.fromarray(dark), Pillow.fromarray(bright)], {"picture": paths},
        [dark, np.full((9, 7), 230, np.uint8)], pd.DataFrame({"picture": [str(path) for path in paths]}),
    ):  # fmt: skip
        assert list(np.asarray(flat.predict(source)["label"])) == ["dark", "bright"], source
    for one in (paths[1], str(paths[1])):
        assert flat.predict(one)["label"].to_pylist() == ["bright"]
    for name in ("dark", "bright"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / f"{name}.png").rename(tmp_path / "set" / name / "1.png")
    answers = flat.predict(tmp_path / "set")
    assert sorted(answers["label"].to_pylist()) == ["bright", "dark"]
    assert flat.evaluate(str(tmp_path / "set"))["label"]["accuracy"] == 1.0  # its column `image` is the picture


def test_probabilities_only_where_they_are_asked_for(flat: zx.Run) -> None:
    array = np.full((6, 6), 10, np.uint8)
    assert flat.predict([array]).column_names == ["label", "label_probability"]
    answers = flat.predict([array], probabilities=True)
    assert answers.column_names == ["label", "label_probability", "label_probability_bright", "label_probability_dark"]
    row = answers.to_pylist()[0]
    assert row["label_probability_bright"] + row["label_probability_dark"] == pytest.approx(1, abs=1e-5)


def test_what_cannot_be_predicted_is_told(flat: zx.Run, several: zx.Run, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"1 rows cannot be read.*bad\.png.*not a picture"):
        flat.predict([np.zeros((6, 6), np.uint8), tmp_path / "bad.png"] and [tmp_path / "bad.png"])
    with pytest.raises(UsageError, match="reads 4 columns"):
        several.predict(["a.png"])
    with pytest.raises(DataError, match="lacks"):
        flat.predict({"photo": ["a.png"]})
    with pytest.raises(DataError):
        flat.predict("nowhere/at/all.csv")
    assert flat.predict({"picture": []}).num_rows == 0


def test_broken_and_unknown_rows_of_an_evaluation_are_told_of(
    flat: zx.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Pillow.fromarray(np.full((6, 6), 220, np.uint8)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG")
    rows = {"picture": [str(tmp_path / f"{name}.png") for name in ("good", "bad", "good")],
            "label": ["bright", "bright", "other"]}  # fmt: skip
    assert flat.evaluate(rows)["label"]["accuracy"] == 1.0
    told = capsys.readouterr().err
    assert "2 rows cannot be used and left out" in told
    with pytest.raises(DataError, match="no row"):
        flat.evaluate({"picture": rows["picture"][1:2], "label": ["dark"]})
    with pytest.raises(DataError, match="the column 'label' cannot be found"):
        flat.evaluate({"picture": rows["picture"]})
    with pytest.raises(UsageError, match="'tset' is not a split"):
        flat.evaluate(part="tset")


def test_a_run_on_data_in_memory_can_be_evaluated_while_it_has_them(flat: zx.Run) -> None:
    assert flat.evaluate()["label"]["accuracy"] == 1.0
    again = zx.load(flat.path)
    with pytest.raises(UsageError, match="only in memory"):
        again.evaluate()


def test_a_column_that_fits_no_type_is_told_of_though_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = {"x": [float(i) for i in range(40)], "note": [f"{i * 7919:x}-{i}z" for i in range(40)]}
    run = zx.train({**data, "label": ["a", "b"] * 20}, epochs=1, out=tmp_path / "r")
    assert "note: not used: no column type fits" in capsys.readouterr().err
    assert run.settings.data.unused == ("note",)
    with pytest.raises(DataError, match=r"no column is left to predict from .'note': no column type fits"):
        zx.train({"note": data["note"], "label": ["a", "b"] * 20}, out=tmp_path / "s")


# Encoders of one's own -----------------------------------------------------------------------------------------------


def test_an_encoder_of_ones_own_from_training_to_loading(tmp_path: Path) -> None:
    data = {"picture": [np.full((6, 6), 200 * (i % 2), np.uint8) for i in range(40)], "label": ["dark", "bright"] * 20}
    settings: dict[str, Any] = {"epochs": 20, "lr": 0.05, "batch_size": 8}
    run = zx.train(data, encoder=Mean(), out=tmp_path / "one", **settings)
    assert run.evaluate(data)["label"]["accuracy"] == 1.0
    assert run.settings.inputs["picture"].encoder.module == "Mean"
    with pytest.raises(RunError, match=r"the encoder of 'picture' is Mean that was passed in.*Pass it in again"):
        zx.load(run.path)
    for module in (Mean(), {"picture": Mean()}):
        again = zx.load(run.path, encoder=module)  # type: ignore[arg-type]
        assert again.predict(data).equals(run.predict(data))
    by_column = zx.train(data, encoder={"picture": Mean()}, out=tmp_path / "two", **settings)
    assert by_column.predict(data).equals(run.predict(data))
    with pytest.raises(UsageError, match=r"no input is called 'pictur'\. Did you mean 'picture'"):
        zx.train(data, encoder={"pictur": Mean()}, out=tmp_path / "three")
    with pytest.raises(UsageError, match="which input is the encoder for"):
        zx.train({"a": [1.5, 2.5] * 20, "b": [1.5, 3.5] * 20, "label": ["x", "y"] * 20}, encoder="mlp")


def test_wrong_recipes_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = {"picture": [np.full((6, 6), i, np.uint8) for i in range(40)], "label": ["a", "b"] * 20}
    for settings, error in (
        ({"settings": ["training.epoch=3"]}, RecipeError),
        ({"encoder": {"name": "cnn", "layers": [8, "pool", "pool", "pool"]}}, UsageError),
        ({"encoder": "mlp", "settings": ["fusion={name: attention, heads: 5}"]}, RecipeError),
        ({"encoder": "mlp", "settings": ["outputs.label.class_weights={c: 2}"]}, RecipeError),
        ({"encoder": torch.nn.Linear(3, 4)}, UsageError),
    ):
        with pytest.raises(error):
            zx.train(data, **settings)  # type: ignore[arg-type]
        assert list(tmp_path.iterdir()) == []


def test_settings_of_one_column_do_not_shut_out_the_others(tmp_path: Path) -> None:
    data = {"a": [float(i) for i in range(40)], "b": [float(-i) for i in range(40)], "label": ["x", "y"] * 20}
    run = zx.train(data, settings=["inputs.b.scale=log"], epochs=1, out=tmp_path / "r")
    assert set(run.settings.inputs) == {"a", "b"}
    only = zx.train(data, recipe={"inputs": {"b": {"scale": "log"}}}, epochs=1, out=tmp_path / "s")
    assert set(only.settings.inputs) == {"b"}


def test_a_run_says_what_it_is_and_writes_its_report_anew(flat: zx.Run) -> None:
    assert repr(flat) == f"Run({str(flat.path)!r}: picture → label)"
    (flat.path / "report.html").unlink()
    assert flat.report().read_text("utf-8").startswith("<!")
    assert (flat.path / "README.md").is_file()
