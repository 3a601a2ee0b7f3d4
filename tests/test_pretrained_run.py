"""Runs that start from published weights: from a recipe to a finished run, again from its recipe, and resumed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import same_bits
from published_reader import WIDTH, WORDS, reader
from safetensors.torch import load_file, save_file

import zhixing as zx
from zhixing.cli import main
from zhixing.columns.text import Text
from zhixing.errors import RunError
from zhixing.models import ENCODERS
from zhixing.models.encoding import Spec
from zhixing.pretrained import open_model
from zhixing.recipe import load as load_recipe
from zhixing.verbs.train import resume, train


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return reader(tmp_path / "reader")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    path = tmp_path / "films.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(80):
            label = "good" if number % 2 else "bad"
            words = [*random.choice(WORDS[6:], 4), label, "film", f"unseen{number}"]
            file.write(json.dumps({"text": " ".join(map(str, words)), "label": label}) + "\n")
    return path


RAW: dict[str, Any] = {
    "outputs": {"label": "category"},
    "training": {"epochs": 2, "batch_size": 16, "threads": 1, "precision": "fp32"},
}


def test_a_run_starts_from_the_weights_and_keeps_all_of_them(folder: Path, source: Path, tmp_path: Path) -> None:
    raw = {**RAW, "inputs": {"text": {"encoder": str(folder)}}}
    run = train(source, raw, out=tmp_path / "run", device="cpu")
    plain = load_recipe(run.path / "recipe.yaml")
    settings = plain["inputs"]["text"]
    assert settings["type"] == "text"
    assert settings["tokenizer"] == "published"
    assert (settings["encoder"]["width"], settings["encoder"]["pooling"]) == (WIDTH, "mean")
    assert settings["pretrained"]["source"] == str(folder)
    assert settings["pretrained"]["sha256"] == open_model(folder).sha256()
    assert plain["training"]["optimizer"]["lr"] == 5e-5
    # At so small a rate weights are still near to those of the folder.
    ours = load_file(run.path / "model.safetensors")["encoders.0.blocks.blocks.1.feed_forward.branch.up.weight"]
    theirs = load_file(folder / "model.safetensors")["bert.encoder.layer.1.intermediate.dense.weight"]
    assert 0 < float((ours - theirs).abs().max()) < 5e-3
    # The run is repeated from its own recipe, and resumed where it was killed before it had a checkpoint.
    again = train(source, plain, out=tmp_path / "again", device="cpu")
    killed = tmp_path / "killed"
    killed.mkdir()
    shutil.copy(run.path / "recipe.yaml", killed)
    resume(killed, device="cpu")
    whole = load_file(run.path / "model.safetensors")
    for path in (again.path, killed):
        assert same_bits(whole, load_file(path / "model.safetensors"))
    # And needs the folder no more.
    killed_again = tmp_path / "killed-again"
    killed_again.mkdir()
    shutil.copy(run.path / "recipe.yaml", killed_again)
    (folder / "config.json").write_text((folder / "config.json").read_text("utf-8") + " ", "utf-8")
    with pytest.raises(RunError, match="not the files that the recipe was made with"):
        resume(killed_again, device="cpu")
    shutil.rmtree(folder)
    answers = zx.load(run.path, device="cpu").predict(["a good film", "so bad"])
    assert len(answers) == 2
    assert set(answers["label"].to_pylist()) <= {"good", "bad"}


def test_texts_are_framed_and_cut_within_their_frame(folder: Path) -> None:
    column = Text(**open_model(folder).plan("encoder").column, length=5)
    column.fitted = open_model(folder).tokenizer
    done = column.tensorize(pa.array(["Good film", "a very very good film", None, "", "who"]), Path)
    assert done.lengths is not None
    rows = [part.tolist() for part in np.split(done.values, np.cumsum(done.lengths))[:-1]]
    good, film, very, a = (WORDS.index(word) for word in ("good", "film", "very", "a"))
    assert rows == [[2, good, film, 3], [2, a, very, very, 3], [], [], [2, 1, 3]]
    assert [finding.reason for finding in done.findings if finding.index == 1] == [
        "5 tokens, of which the first 3 are kept"
    ]


def test_the_command_takes_a_folder_for_an_encoder(
    folder: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    more = ["--set", "training.threads=1", "training.precision=fp32"]
    main(["train", str(source), "--target", "label", "--encoder", "./reader", "--epochs", "1", "--out", "run",
          "--device", "cpu", "--json", *more])  # fmt: skip
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["metrics"]["label"]["accuracy"] >= 0
    main(["describe", "run"])
    assert "published" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["train", str(source), "--target", "label", "--encoder", "./reader", "--out", "other", "--set",
              "inputs.text.encoder.width=8"])  # fmt: skip
    assert ended.value.code == 2
    assert "inputs.text.encoder.width: the weights have 16, not 8" in capsys.readouterr().err
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-9])
    with pytest.raises(SystemExit):
        main(["train", str(source), "--target", "label", "--encoder", "./reader", "--out", "other"])
    told = capsys.readouterr().err
    assert "cut short" in told
    assert "Traceback" not in told
    assert not (tmp_path / "other").exists()


def test_pictures_are_brought_to_the_statistics_of_the_weights(digits: dict[str, list[Any]], tmp_path: Path) -> None:
    folder = tmp_path / "seer"
    folder.mkdir()
    config = {
        "model_type": "vit", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 12, "image_size": 8, "patch_size": 4, "hidden_act": "gelu",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    told = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.5]}
    (folder / "preprocessor_config.json").write_text(json.dumps(told), "utf-8")
    base, weights = "vit.encoder.layer.0", dict[str, torch.Tensor]()
    own = ENCODERS["vit"](Spec("image", (3, 8, 8)), patch=4, width=8, depth=1, heads=2, hidden=12).state_dict()
    names = open_model_names()
    for name, value in own.items():
        module = name if name in ("cls", "blocks.positions.table.weight") else name.rpartition(".")[0]
        key = f"vit.{names[module.replace('blocks.blocks.0', 'blocks.blocks.{n}')].replace('{n}', '0')}"
        key += "" if module == name else f".{name.rpartition('.')[2]}"
        weights[key] = (value[None] if "position" in key else value).contiguous()
    assert f"{base}.output.dense.weight" in weights
    save_file(weights, folder / "model.safetensors")
    raw = {**RAW, "inputs": {"picture": {"type": "image", "encoder": str(folder)}}}
    run = zx.train(digits, recipe=raw, out=tmp_path / "run", device="cpu")
    settings = load_recipe(run.path / "recipe.yaml")["inputs"]["picture"]
    expected = {"mean": [102.0, 127.5, 153.0], "std": [51.0, 63.75, 127.5]}
    assert settings["statistics"] == expected
    assert (settings["channels"], settings["size"]) == (3, 8)
    scale = load_file(run.path / "model.safetensors")["stems.0.scale"].flatten()
    torch.testing.assert_close(1 / scale, torch.tensor(expected["std"]))


def open_model_names() -> dict[str, str]:
    from zhixing.pretrained.layouts.vit import ViT

    return {ours: str(theirs) for ours, theirs in ViT.encoder_names.items()}


def test_a_language_model_goes_on_from_published_weights(tmp_path: Path) -> None:
    from published_files import CONFIG, tensors, write_tokenizer

    folder = tmp_path / "writer"
    folder.mkdir()
    save_file(tensors(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG), "utf-8")
    write_tokenizer(folder)
    rows = {"text": ["the then the other", "12 of them", "so they went", "and then"] * 10}
    raw = {**RAW, "outputs": {"text": {"length": 12, "decoder": {"name": str(folder), "dropout": 0.0}}}}
    run = zx.train(rows, recipe=raw, out=tmp_path / "run", device="cpu")
    settings = load_recipe(run.path / "recipe.yaml")["outputs"]["text"]
    assert settings["packed"]
    assert settings["decoder"]["tie"]
    answers = run.predict(["the the", "12"])["text"].to_pylist()
    assert len(answers) == 2
    assert all(isinstance(answer, str) for answer in answers)
    metrics = run.evaluate(rows, part="all")["text"]
    assert metrics["bits_per_byte"] > 0
    killed = tmp_path / "killed"
    killed.mkdir()
    shutil.copy(run.path / "recipe.yaml", killed)
    again = resume(killed, source=rows, device="cpu")
    assert same_bits(load_file(run.path / "model.safetensors"), load_file(again.path / "model.safetensors"))
