"""`zhixing pretrain`, runs as encoders of others, and that a killed pretraining goes on to the same bits."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretraining_words import WORDS

import zhixing as zx
from zhixing.cli import main
from zhixing.data.source import open_source
from zhixing.errors import RecipeError, RunError, UsageError
from zhixing.models.encoding import Encoding
from zhixing.pretrained import resolve
from zhixing.training.loop import Loop
from zhixing.verbs.pretrain import pretrain, pretrain_recipe
from zhixing.verbs.train import resume

SMALL: dict[str, Any] = {
    "inputs": {"text": {"tokenizer": "word", "length": 12, "encoder": {"width": 16, "depth": 1, "heads": 2}}},
    "training": {
        "epochs": 4, "batch_size": 32, "threads": 1, "precision": "fp32", "checkpoint_every": 3, "keep": "last",
    },
}  # fmt: skip


def with_training(**more: Any) -> dict[str, Any]:
    return {**SMALL, "training": {**SMALL["training"], **more}}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts in which a word tells of the next; their translation, word by word; a label."""
    random, lines = np.random.default_rng(0), []
    for _ in range(100):
        start = random.integers(len(WORDS))
        words = [WORDS[(start + i) % len(WORDS)] for i in range(random.integers(4, 12))]
        other = " ".join(word[::-1] for word in words)
        lines.append({"text": " ".join(words), "other": other, "label": "even" if start % 2 else "odd"})
    path = tmp_path_factory.mktemp("table") / "texts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


@pytest.fixture(scope="module")
def base(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = with_training(epochs=45, batch_size=16, optimizer={"name": "adamw", "lr": 0.02})
    return pretrain(table, recipe, ["text"], out=tmp_path_factory.mktemp("base") / "run").path


def fine(table: Path, encoder: Any, out: Path, **more: Any) -> zx.Run:
    training = {"epochs": 1, "batch_size": 32, "threads": 1, "precision": "fp32", **more}
    recipe = {"inputs": {"text": {"encoder": encoder}}, "training": training, "data": {"others": "unused"}}
    return zx.train(table, target="label", recipe=recipe, out=out, device="cpu")


def hashes(run: Path) -> dict[str, str]:
    files = ("model.safetensors", "metrics.jsonl", "evaluation.json", "columns.json", "recipe.yaml", "manifest.json")
    return {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in files}


def test_hidden_words_are_learned_from_those_around_them(base: Path) -> None:
    found = zx.load(base).read_json("evaluation.json")["outputs"]["pretext"]["metrics"]
    assert found["masked_accuracy"] > 0.3  # of 16 words; each follows from its neighbours
    assert found["perplexity"] < 8


def test_an_encoder_starts_where_its_run_ended(table: Path, base: Path, tmp_path: Path) -> None:
    run = fine(table, str(base), tmp_path / "fine", fine_tuning="frozen")
    was, now = zx.load(base).model.encoders[0].state_dict(), run.model.encoders[0].state_dict()
    assert was.keys() == now.keys()
    assert all(torch.equal(was[name], now[name]) for name in was)
    texts = ["the cat sat", "home again the"]
    np.testing.assert_array_equal(zx.load(base).embed(texts), run.embed(texts))
    states = [json.loads((path / "columns.json").read_text("utf-8"))["text"] for path in (base, run.path)]
    assert states[0] == states[1]  # the vocabulary is the run's, not one of the new rows
    assert run.settings.inputs["text"].pretrained.column == "text"


def test_a_finished_run_needs_its_base_no_more(table: Path, base: Path, tmp_path: Path) -> None:
    copy = tmp_path / "base"
    shutil.copytree(base, copy)
    run = fine(table, str(copy), tmp_path / "fine")
    shutil.rmtree(copy)
    assert zx.load(run.path).evaluate(table)["label"] == pytest.approx(run.evaluate(table)["label"])


def test_a_run_that_changed_is_refused(table: Path, base: Path, tmp_path: Path) -> None:
    copy = tmp_path / "base"
    shutil.copytree(base, copy)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    with pytest.raises(RunError, match=r"model\.safetensors is not what was written"):
        fine(table, str(copy), tmp_path / "fine")
    with pytest.raises(RunError, match=r"no such run.*Did you mean 'base'"):
        fine(table, str(tmp_path / "bas"), tmp_path / "fine")
    (copy / "manifest.json").unlink()
    with pytest.raises(RunError, match="not finished"):
        fine(table, str(copy), tmp_path / "fine")


def test_contradictions_are_told_together(base: Path) -> None:
    settings = {"tokenizer": "byte", "encoder": {"name": str(base), "width": 64, "dropout": 0.3}}
    with pytest.raises(RecipeError) as told:
        resolve({"inputs": {"text": settings}, "outputs": {"label": "category"}})
    assert len(told.value.problems) == 2
    assert "encoder.width: the weights have 16, not 64" in str(told.value)
    assert "tokenizer: the weights have 'word', not 'byte'" in str(told.value)
    open_ones = {"length": 9, "encoder": {"name": str(base), "dropout": 0.3}}
    out = resolve({"inputs": {"text": open_ones}, "outputs": {"label": "category"}})["inputs"]["text"]
    assert (out["length"], out["encoder"]["dropout"], out["encoder"]["width"]) == (9, 0.3, 16)
    with pytest.raises(UsageError, match="reads no column 'txt'"):
        resolve({"inputs": {"text": {"encoder": {"name": str(base), "column": "txt"}}}, "outputs": {}})


def test_the_encoder_of_a_supervised_run_is_taken_by_its_column(table: Path, tmp_path: Path) -> None:
    recipe = {
        "inputs": {"text": SMALL["inputs"]["text"], "other": SMALL["inputs"]["text"]},
        "training": SMALL["training"],
    }
    first = zx.train(table, target="label", recipe=recipe, epochs=1, out=tmp_path / "first", device="cpu")
    with pytest.raises(UsageError, match="reads 2 columns"):
        fine(table, str(first.path), tmp_path / "second")
    encoder = {"name": str(first.path), "column": "other"}
    second = fine(table, encoder, tmp_path / "second", fine_tuning="frozen")
    place = first.model.inputs.index("other")
    was, now = first.model.encoders[place].state_dict(), second.model.encoders[0].state_dict()
    assert all(torch.equal(was[name], now[name]) for name in was)


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
def test_the_stack_of_a_language_model_reads_as_it_wrote(table: Path, tmp_path: Path, positions: str) -> None:
    decoder = {"width": 16, "depth": 1, "heads": 2, "dropout": 0.0, "positions": positions}
    recipe = {
        "inputs": {"text": {"tokenizer": "word", "length": 12, "decoder": {"name": "transformer", **decoder}}},
        "training": with_training(epochs=1)["training"],
    }
    made = pretrain(table, recipe, ["text"], objective="next_token", out=tmp_path / "lm")
    writer = zx.load(made.path)
    assert writer.model.inputs == []
    run = fine(table, str(made.path), tmp_path / "fine", fine_tuning="frozen")
    ids = torch.tensor([[2, 7, 5, 9]])  # a text as the decoder reads it, behind its begin
    wrote: Any = writer.model.heads[0].decoder
    with torch.inference_mode():
        encoding: Encoding = run.model.encoders[0](ids, ids > 0)
        torch.testing.assert_close(encoding.tokens, wrote.stack(wrote.vectors(ids)))


def test_a_killed_pretraining_goes_on_to_the_same_bits(table: Path, tmp_path: Path) -> None:
    alone = pretrain(table, SMALL, ["text"], out=tmp_path / "alone", device="cpu").path
    killed = tmp_path / "killed"
    child = os.fork()
    if not child:  # which dies in its eighth step as if the machine had
        steps, accumulate = [0], Loop.accumulate

        def dying(self: Loop, *given: Any) -> Any:
            steps[0] += 1
            if steps[0] == 8:
                os.kill(os.getpid(), signal.SIGKILL)
            return accumulate(self, *given)

        Loop.accumulate = dying  # type: ignore[method-assign,assignment]
        try:
            pretrain(table, SMALL, ["text"], out=killed, device="cpu")
        finally:
            os._exit(70)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert (killed / "recipe.yaml").exists()
    assert not (killed / "manifest.json").exists()
    resume(killed, device="cpu")
    assert hashes(killed) == hashes(alone)


def test_parts_of_a_batch_hide_what_the_whole_does(table: Path, tmp_path: Path) -> None:
    whole = pretrain(table, with_training(epochs=1), ["text"], out=tmp_path / "whole", device="cpu")
    parts = pretrain(table, with_training(epochs=1, micro_batch=5), ["text"], out=tmp_path / "parts", device="cpu")
    lines = [(run.path / "metrics.jsonl").read_text("utf-8").splitlines() for run in (whole, parts)]
    logs = [[json.loads(line)["loss"] for line in log] for log in lines]
    assert logs[0] == pytest.approx(logs[1], rel=1e-4)


def test_pairs_bring_together_what_belongs_together(table: Path, tmp_path: Path, capsys: Any) -> None:
    lines = [json.loads(line) for line in table.read_text("utf-8").splitlines()]
    pairs = tmp_path / "pairs.jsonl"  # two halves of one text, which share its words
    halves = [line["text"].split() for line in lines]
    some = ({"a": " ".join(words[::2]), "b": " ".join(words[1::2])} for words in halves if len(words) > 5)
    pairs.write_text("".join(json.dumps(one) + "\n" for one in some), "utf-8")
    run = tmp_path / "run"
    settings = ["inputs.a.encoder={width: 16, depth: 1, heads: 2}", "inputs.a.type=text", "training.threads=1"]
    words = ["pretrain", str(pairs), "--column", "a", "--column", "b", "--epochs", "30", "--batch-size", "16"]
    main([*words, "--lr", "0.01", "--out", str(run), "--json", "--device", "cpu", "--set", *settings])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["run"] == str(run)
    assert told["metrics"]["b"]["found"] > 0.3
    vectors = zx.load(run).embed(["the sat a", "cat on mat", "far from again"], normalise=True)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]


def photos(side: int) -> list[Any]:
    return list(np.random.default_rng(0).integers(0, 256, (24, side, side), np.uint8))


def waves() -> list[Any]:
    time = np.arange(1600)
    return [(8000 * np.sin(time * (0.1 + 0.01 * row))).astype(np.int16).tolist() for row in range(24)]


TINY = {"width": 16, "depth": 1, "heads": 2}
KINDS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "masked_patches": ("image", lambda: photos(8), {"name": "vit", **TINY}),
    "views": ("image", lambda: photos(20), {"name": "cnn"}),
    "masked_items": ("history", lambda: [WORDS[: 1 + row % 9] for row in range(24)], {"name": "transformer", **TINY}),
    "masked_spectrogram": ("audio", waves, {"name": "conformer", **TINY}),
}


@pytest.mark.parametrize("objective", KINDS)
def test_every_objective_is_chosen_trained_and_taken_up(objective: str, tmp_path: Path) -> None:
    kind, cells, encoder = KINDS[objective]
    column = cells()
    settings = {"type": kind, "encoder": encoder, **({"rate": 8000} if kind == "audio" else {})}
    training = {"epochs": 2, "batch_size": 8, "threads": 1, "precision": "fp32"}
    base = pretrain({"x": column}, {"inputs": {"x": settings}, "training": training}, ["x"], out=tmp_path / "base")
    run = zx.load(base.path)
    assert {name: one.type for name, one in run.settings.outputs.items()} == {"pretext": objective}
    logged = [json.loads(line) for line in (base.path / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert all(np.isfinite(line["loss"]) for line in logged)
    source = {"x": column, "label": [row % 2 for row in range(24)]}
    recipe = {"inputs": {"x": {"encoder": str(base.path)}}, "training": {**training, "fine_tuning": "frozen"}}
    fine_tuned = zx.train(source, target="label", recipe=recipe, out=tmp_path / "fine", device="cpu")
    was, now = run.model.encoders[0].state_dict(), fine_tuned.model.encoders[0].state_dict()
    assert all(torch.equal(was[name], now[name]) for name in was)


def planned(raw: dict[str, Any], *columns: str, objective: str | None = None, encoder: str | None = None) -> Any:
    cells = {
        "text": ["one two three four", "five six seven eight nine"] * 20,
        "other": ["a b c d", "e f g h i"] * 20,
        "photo": list(np.zeros((40, 8, 8), np.uint8)),
        "number": list(range(40)),
        "pretext": ["x"] * 40,
    }
    return pretrain_recipe(raw, open_source(cells), columns, objective=objective, encoder=encoder)


def test_what_is_left_open_is_chosen_by_the_column_and_the_encoder() -> None:
    text = {"inputs": {"text": "text", "other": "text", "photo": "image"}}
    plan = planned(text, "text")
    assert plan["inputs"]["text"]["encoder"]["name"] == "transformer"
    assert plan["outputs"] == {"pretext_": {"type": "masked_tokens"}}  # a name that no column has
    assert plan["data"]["split"]["test"] == 0
    assert planned(text, "photo")["outputs"]["pretext_"]["type"] == "views"
    assert planned(text, "photo", encoder="vit")["outputs"]["pretext_"]["type"] == "masked_patches"
    assert planned(text, "text", "other")["outputs"] == {"other": {"type": "pairs"}}
    words = planned(text | {"outputs": {"pretext_": {"share": 0.3}}}, "text")
    assert words["outputs"] == {"pretext_": {"type": "masked_tokens", "share": 0.3}}
    language = planned({"inputs": {"text": {"length": 9}}}, "text", objective="next_token")
    assert language["inputs"] == {}
    assert language["outputs"] == {"text": {"type": "text", "length": 9}}


def test_what_cannot_be_pretrained_is_said() -> None:
    text = {"inputs": {"text": "text"}}
    with pytest.raises(UsageError, match="there is no column 'txet'"):
        planned(text, "txet")
    with pytest.raises(UsageError, match="Did you mean 'masked_tokens'"):
        planned(text, "text", objective="maskd_tokens")
    with pytest.raises(UsageError, match="of type number, of which nothing is learned"):
        planned({}, "number")
    with pytest.raises(RecipeError, match=r"outputs\.number: pretraining predicts no column"):
        planned(text | {"outputs": {"number": {}}}, "text")
    with pytest.raises(UsageError, match="3 columns are named"):
        planned(text, "text", "other", "photo")
