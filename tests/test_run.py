"""The run folder: everything in it is what was written, and reading it runs nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import zhixing as zx
from zhixing.errors import RunError
from zhixing.run import RunFolder, finite, new_folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = {"x": [float(i % 7) for i in range(60)], "shop": ["a", "b", "c"] * 20, "label": ["p", "q"] * 30}
    return zx.train(data, epochs=1, out=tmp_path_factory.mktemp("runs") / "one").path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_all_that_is_promised_is_there_and_can_be_moved(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "recipe.yaml", "columns.json", "model.safetensors", "manifest.json", "metrics.jsonl", "report.html",
        "README.md", "environment.json", "evaluation.json", "data.json", "problems.jsonl",
    }  # fmt: skip
    assert not [name for name in names if name.endswith((".pkl", ".pt", ".pth", ".part", ".npy"))]
    moved = run.rename(run.with_name("moved"))
    assert zx.load(moved).predict({"x": [1.0], "shop": ["a"]}).num_rows == 1
    assert zx.load(str(moved)).path == moved


def test_the_environment_says_what_the_numbers_depend_on(run: Path) -> None:
    facts = json.loads((run / "environment.json").read_text("utf-8"))
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["seed"] == 0
    assert facts["hardware"]["threads"] == torch.get_num_threads()
    assert len(facts["data_fingerprint"]) == 40
    assert facts["parameters"] > 0


def test_no_file_is_larger_than_the_weights_or_a_pickle(run: Path) -> None:
    for path in run.rglob("*"):
        if path.is_file():
            head = path.read_bytes()[:4]
            assert not head.startswith((b"\x80\x02", b"\x80\x04", b"\x80\x05", b"PK")), path


@pytest.mark.parametrize("name", ["recipe.yaml", "columns.json", "model.safetensors"])
@pytest.mark.parametrize("change", ["byte", "gone", "empty"])
def test_a_file_that_changed_is_told_of(run: Path, name: str, change: str) -> None:
    path = run / name
    content = bytearray(path.read_bytes())
    if change == "gone":
        path.unlink()
    elif change == "empty":
        path.write_bytes(b"")
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.raises(RunError, match=r"there is no such|it has no recipe|is not what was written|cannot be verified"):
        zx.load(run)


@pytest.mark.parametrize("change", ["epochs: 1", "widths"])
def test_a_recipe_edited_after_the_run_is_refused_before_it_is_read(run: Path, change: str) -> None:
    path = run / "recipe.yaml"
    text = path.read_text("utf-8")
    path.write_text(text.replace("seed: 0", "seed: 1") if change == "widths" else text + "nonsense: [", "utf-8")
    with pytest.raises(RunError, match=r"recipe\.yaml is not what was written.*new run: zhixing train --recipe"):
        zx.load(run)


@pytest.mark.parametrize(
    "manifest", ["", "{}", "[]", "3", "null", '{"files": {}}', '{"files": {"recipe.yaml": 3}}', "{"]
)
def test_a_damaged_manifest_is_told_of(run: Path, manifest: str) -> None:
    (run / "manifest.json").write_text(manifest, "utf-8")
    with pytest.raises(RunError):
        zx.load(run)


def test_names_in_a_manifest_reach_no_other_file(run: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x", "utf-8")
    manifest = json.loads((run / "manifest.json").read_text("utf-8"))
    manifest["files"]["../secret"] = {"sha256": "0" * 64}
    manifest["files"]["/etc/passwd"] = {"sha256": "0" * 64}
    (run / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    needed = {"recipe.yaml", "columns.json", "model.safetensors", "calibration.json"}
    assert set(RunFolder(run).verify()) == needed


def vouch(run: Path) -> None:
    """Make the manifest agree with files that were changed, as somebody who means harm would."""
    folder = RunFolder(run)
    folder.write_json("manifest.json", {"format": 1, "files": {
        name: {"sha256": folder.hash(name)} for name in ("recipe.yaml", "columns.json", "model.safetensors")
    }})  # fmt: skip


def test_a_recipe_from_elsewhere_runs_nothing(run: Path, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    text = (run / "recipe.yaml").read_text("utf-8")
    for bad in (
        f"x: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{flag}']]\n",
        "fusion: {name: os.system}\n",
        "inputs: {x: {type: number, encoder: {name: 'torch.nn.Linear'}}}\n",
    ):
        kept = [line for line in text.splitlines() if not line.startswith(bad.split(":")[0])]
        (run / "recipe.yaml").write_text("\n".join(kept) + "\n" + bad, "utf-8")
        vouch(run)
        with pytest.raises(zx.ZhixingError):
            zx.load(run)
    assert not flag.exists()


def test_weights_of_another_model_are_told_of(run: Path) -> None:
    tensors = load_file(run / "model.safetensors")
    name = next(iter(tensors))
    save_file({**tensors, name: torch.zeros(3, 3, 3)}, run / "model.safetensors")
    vouch(run)
    with pytest.raises(RunError, match="the weights do not fit the recipe"):
        zx.load(run)
    (run / "model.safetensors").write_bytes(b"\x00" * 64)
    vouch(run)
    with pytest.raises(RunError, match="the weights do not fit the recipe"):
        zx.load(run)


def test_damaged_columns_are_told_of(run: Path) -> None:
    states: dict[str, Any] = json.loads((run / "columns.json").read_text("utf-8"))
    for bad in ({}, [], {**states, "x": 3}, {**states, "x": {"mean": []}}, {**states, "shop": {"classes": 3}}):
        (run / "columns.json").write_text(json.dumps(bad), "utf-8")
        vouch(run)
        with pytest.raises(RunError, match=r"columns\.json cannot be read"):
            zx.load(run)


def test_what_is_no_run(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"there is no such run\. Did you mean 'run'"):
        zx.load(run.with_name("runn"))
    with pytest.raises(RunError, match=r"this is not a run: it has no recipe\.yaml"):
        zx.load(tmp_path)
    with pytest.raises(RunError):
        zx.load(run / "recipe.yaml")
    (run / "manifest.json").unlink()
    with pytest.raises(RunError, match=r"not finished.*zhixing train --resume"):
        zx.load(run)


def test_new_folders_have_names_that_stay_where_they_are(tmp_path: Path) -> None:
    names = ["mnist", "mnist", "../../etc", "a b/c", "...", "名称", "", "x" * 40]
    folders = [new_folder(tmp_path / "runs", name) for name in names]
    assert len(set(folders)) == len(names)
    assert all(folder.parent == tmp_path / "runs" and folder.is_dir() for folder in folders)
    assert [folder.name for folder in folders[:2]] == ["mnist-1", "mnist-2"]
    assert folders[5].name == "名称-1"


def test_json_has_no_numbers_that_are_none() -> None:
    value = {"a": float("nan"), 3: [float("inf"), (1.5, None)], "b": True}
    assert json.loads(json.dumps(finite(value), allow_nan=False)) == {"a": None, "3": [None, [1.5, None]], "b": True}


def test_the_written_recipe_leaves_nothing_open(run: Path) -> None:
    plain = yaml.safe_load((run / "recipe.yaml").read_text("utf-8"))
    assert plain["training"]["threads"] == torch.get_num_threads()
    assert plain["inputs"]["x"]["type"] == "number"
    assert plain["data"]["others"] == "unused"
    assert zx.load(run).settings.plain() == plain
