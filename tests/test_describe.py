"""Describe and init: what data, a recipe or a run hold; the written recipe is complete and trains."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

import zhixing as zx
from zhixing.api import assemble
from zhixing.console import Console
from zhixing.recipe import Recipe, load, recipe_model
from zhixing.verbs.describe import describe, show
from zhixing.verbs.init import write_recipe

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "people.csv"
    lines = [f"{rng.integers(20, 60)},{rng.choice(['a', 'b'])},{i % 2},{i * 7919:x}z{i}" for i in range(60)]
    path.write_text("\n".join(["age,shop [x],label,note", *lines]) + "\n", "utf-8")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, csv: Path) -> zx.Run:
    return zx.train(str(csv), epochs=1, out=tmp_path_factory.mktemp("runs") / "r")


def test_data(csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = describe(str(csv), {}, console=QUIET)
    assert json.loads(json.dumps(facts)) == facts
    assert facts["data"]["rows"] == 60
    assert facts["data"]["splits"] == {"train": 48, "validation": 6, "test": 6}
    assert {name: one["role"] for name, one in facts["columns"].items()} == {
        "age": "input", "shop [x]": "input", "label": "output", "note": "unused",
    }  # fmt: skip
    assert "no column type fits" in facts["columns"]["note"]["reason"]
    assert facts["parameters"] == sum(facts["parameters_by_part"].values())
    show(facts)
    told = capsys.readouterr().out
    assert "shop [x]" in told  # brackets are no markup
    assert "MiB" in told


def test_counts_of_parameters_and_operations_are_the_models(run: zx.Run, csv: Path) -> None:
    facts = describe(str(csv), {}, console=QUIET)
    assert facts["parameters"] == sum(p.numel() for p in run.model.parameters())
    assert describe(str(run.path), {}, console=QUIET)["parameters"] == facts["parameters"]
    linear = describe(
        str(csv), assemble(None, settings=["fusion.widths=[]", "inputs.age.encoder.dropout=0.1"]), console=QUIET
    )
    weights = linear["parameters_by_part"]["head of label"] - 2  # one layer to two logits, without its biases
    assert linear["forward_flops_per_row"] == 2 * weights
    assert "encoder of age" not in linear["parameters_by_part"]  # numbers still pass through


def test_statistics_of_a_few_rows_are_not_told_as_the_columns(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (8, 8), dtype=np.uint8) for _ in range(200)]
    told = describe_memory({"image": pictures, "label": ["a", "b"] * 100}, tmp_path)
    assert told["columns"]["image"]["size"] == "8 x 8"
    assert not [key for key in told["columns"]["image"] if "mean" in key or "deviation" in key]


def describe_memory(data: Any, folder: Path) -> dict[str, Any]:
    np.savez(folder / "set.npz", image=np.stack(data["image"]), label=np.array(data["label"]))
    raw = assemble(None, settings=["inputs.image.encoder=mlp"])
    return describe(str(folder / "set.npz"), raw, console=QUIET)


def test_without_a_target_the_columns_are_told(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n3,4.5\n", "utf-8")
    facts = describe(str(tmp_path / "t.csv"), {}, console=QUIET)
    assert facts["columns"]["b"]["type"] == "number"
    assert "--target" in facts["note"]


def test_a_run_and_one_with_an_encoder_of_ones_own(run: zx.Run, tmp_path: Path) -> None:
    from own_encoder import Mean

    facts = describe(str(run.path), {}, console=QUIET)
    assert facts["finished"]
    assert facts["metrics"]["label"]["accuracy"] >= 0
    assert facts["columns"]["age"]["role"] == "input"
    pictures = {"image": [np.zeros((8, 8), np.uint8), np.ones((8, 8), np.uint8)] * 20, "label": ["a", "b"] * 20}
    own = zx.train(pictures, encoder=Mean(), epochs=1, out=tmp_path / "own")
    facts = describe(str(own.path), {}, console=QUIET)
    assert "image was passed in from Python" in facts["note"]
    assert "parameters" not in facts


def test_broken_rows_are_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.csv").write_text("a,label\n" + "1,x\n2,y\n" * 20 + "1,2,3\n", "utf-8")
    facts = describe(str(tmp_path / "t.csv"), {}, console=QUIET)
    assert facts["data"]["rows_lost_in_reading"] == 1
    assert "line 42" in capsys.readouterr().err


# Init ----------------------------------------------------------------------------------------------------------------


def test_the_written_recipe_is_the_complete_one_with_words_for_each_setting(csv: Path, tmp_path: Path) -> None:
    text = write_recipe(str(csv), {})
    path = tmp_path / "r.yaml"
    path.write_text(text, "utf-8")
    written = Recipe(load(path))
    bare = {key: value for key, value in written.plain().items() if key in ("data", "seed")}
    bare |= {part: {name: {"type": one["type"]} for name, one in written.plain()[part].items()}
             for part in ("inputs", "outputs")}  # fmt: skip
    assert written.plain() == Recipe(bare).plain()  # every other line says the default
    assert written.model == recipe_model().model_validate(bare)
    silent = [line for line in text.splitlines() if "#" not in line and not re.match(r"\s*(shop|age|label)", line)]
    assert [line for line in silent if "nesterov" not in line] == []


def test_the_written_recipe_trains(csv: Path, tmp_path: Path) -> None:
    raw = assemble(None, epochs=1, settings=["training.threads=1", "inputs.age.scale=log"])
    (tmp_path / "r.yaml").write_text(write_recipe(str(csv), raw), "utf-8")
    run = zx.train(recipe=tmp_path / "r.yaml", out=tmp_path / "run")
    assert list(run.settings.inputs) == ["age", "shop [x]"]
    assert run.settings.inputs["age"].scale == "log"
    again = zx.train(recipe=run.path / "recipe.yaml", out=tmp_path / "again")
    assert (run.path / "model.safetensors").read_bytes() == (again.path / "model.safetensors").read_bytes()


def test_init_for_a_folder_of_pictures(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(4):
            Pillow.new("RGB", (12, 12), (i * 9, 0, 0)).save(tmp_path / "photos" / name / f"{i}.png")
    text = write_recipe(str(tmp_path / "photos"), {}, encoder="mlp")
    assert "name: mlp" in text
    assert str(tmp_path / "photos") in text
