"""Forms of a model, how they are chosen and told of, and the folder that is kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import zhixing as zx
from zhixing.compress.candidate import Candidate, choose
from zhixing.compress.command import METHODS, Ask, compress
from zhixing.compress.compressed import Compressed, open_compressed
from zhixing.compress.forms import FORMS
from zhixing.compress.measure import Timed, collected, drop, goals, sample_rows, time_forms
from zhixing.compress.page import render
from zhixing.compress.retrain import open_material
from zhixing.compress.subject import Predictions, arrays_of, joined
from zhixing.console import Console
from zhixing.data.batches import Batches
from zhixing.errors import RunError, UsageError, ZhixingError
from zhixing.heads import CategoryHead, NumberHead

QUIET = Console(quiet=True)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, digits: dict[str, list[Any]]) -> Any:
    """A small network on pictures of digits, trained a little."""
    encoder = {"name": "cnn", "layers": [8, "pool", 8], "dense": [16]}
    settings = ["data.split.validation=0.3", "data.split.train=0.5", "data.split.test=0.2", "training.threads=1"]
    out = tmp_path_factory.mktemp("runs") / "digits"
    return zx.train(digits, target="label", encoder=encoder, epochs=15, batch_size=16, lr=0.01, settings=settings,
                    out=out, device="cpu")  # fmt: skip


@pytest.fixture(scope="module")
def kept(
    run: Any, digits: dict[str, list[Any]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """What `compress` makes of it, with the quickest of the forms."""
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    out = tmp_path_factory.mktemp("out") / "small"
    ask = Ask(max_drop=0.05, methods=("onnx", "onnx_static"), rounds=1)
    told = compress(
        run.path, run.settings, run.fitted, run.model, ask, source=digits, out=out, device=CPU, console=QUIET
    )
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    return out, told


def candidate(name: str, drop: float, latency: float, *, size: int = 10, failure: str = "") -> Candidate:
    timed = None if failure else Timed(latency, (latency, latency), 1 / latency, (1.0, 2.0), 1000)
    return Candidate(
        name, "", "onnx", Path(), size=size, figures={"y": 1 - drop}, drop=drop, timed=timed, failure=failure
    )


# Choosing -----------------------------------------------------------------------------------------------------------


def test_a_drop_is_of_a_share_absolute_and_of_an_error_relative() -> None:
    assert drop(CategoryHead, 0.9, 0.88) == pytest.approx(0.02)  # type: ignore[arg-type]
    assert drop(CategoryHead, 0.9, 0.95) < 0  # type: ignore[arg-type]
    assert drop(NumberHead, 10.0, 10.5) == pytest.approx(0.05)  # type: ignore[arg-type]
    assert drop(NumberHead, 10.0, 9.0) < 0  # type: ignore[arg-type]
    assert drop(NumberHead, 0.0, 1.0) > 0  # type: ignore[arg-type]


def test_the_chosen_one_is_the_best_of_those_within_the_limit() -> None:
    first = candidate("original", 0.0, 1.0)
    fast, faster = candidate("fast", 0.004, 0.5, size=8), candidate("faster", 0.006, 0.1, size=3)
    broken = candidate("broken", 0.0, 0.01, failure="no such thing")
    every = [first, fast, faster, broken]
    assert choose(every, 0.005, "latency") is fast
    assert choose(every, 0.006, "latency") is faster  # the limit itself is within
    assert choose(every, 0.0, "latency") is first
    assert choose(every, 0.01, "size") is faster
    assert choose([first, broken], 1.0, "throughput") is first
    with pytest.raises(UsageError, match="nothing was measured"):
        choose([broken], 1.0, "latency")


# Forms --------------------------------------------------------------------------------------------------------------


def test_a_graph_of_predictions_says_what_the_heads_say(run: Any, digits: dict[str, list[Any]]) -> None:
    material = open_material(run.settings, run.fitted, run.model, digits, fingerprint=None, device=CPU, console=QUIET)
    rows = [material.batches.gather(material.some("train", 5)[i : i + 1]) for i in range(5)]
    graph, batch = Predictions(run.fitted, run.model), joined(rows)
    with torch.inference_mode():
        assert torch.equal(graph(*graph.example(batch))[0], run.model(batch)["label"])


def test_rows_of_unequal_length_are_joined_to_the_longest(bench: Any) -> None:
    text = bench({"text": ["a b", "a b c d", "a"], "y": ["p", "q", "p"]}, {"text": {"type": "text"}},
                 {"y": {"type": "category"}})  # fmt: skip
    batches = Batches(text.tensors, CPU)
    rows = [batches.gather(np.array([row])) for row in range(3)]
    one, all_ = joined(rows), batches.gather(np.arange(3))
    assert torch.equal(one.columns["text"].values, all_.columns["text"].values)
    assert torch.equal(one.columns["text"].mask, all_.columns["text"].mask)
    assert set(arrays_of(one, ["text"])) == {"text", "text_mask"}


def test_forms_answer_as_the_model_does(
    kept: tuple[Path, dict[str, Any]], run: Any, digits: dict[str, list[Any]]
) -> None:
    """The figures that were told are those of the kept model and of the original, measured once more by another way."""
    out, told = kept
    _, columns, model, _ = open_compressed(out)
    material = open_material(run.settings, run.fitted, run.model, digits, fingerprint=None, device=CPU, console=QUIET)
    rows = material.prepared.split["test"]
    mine = collected(model, material.batches, rows)
    theirs = collected(run.model, material.batches, rows)
    assert goals(model, columns, mine) == pytest.approx(told["test"]["chosen"])
    assert goals(run.model, columns, theirs) == pytest.approx(told["test"]["original"])
    assert run.evaluate(digits, part="test")["label"]["accuracy"] == pytest.approx(told["test"]["original"]["label"])
    by_name = {one["form"]: one for one in told["candidates"]}
    assert by_name["onnx"]["drop"] == pytest.approx(0.0)
    assert by_name["onnx_static"]["bytes"] < by_name["onnx"]["bytes"] + 20_000
    assert told["asked"]["max_drop"] == 0.05
    assert told["test"]["rows"] == len(rows)


def test_every_figure_was_measured(kept: tuple[Path, dict[str, Any]]) -> None:
    _, told = kept
    for one in told["candidates"]:
        assert one["not_measured"] == ""
        assert one["latency_spread"][0] <= one["latency_seconds"] <= one["latency_spread"][1]
        assert one["throughput_rows_per_second"] > 0
        assert one["memory_bytes"] > 10e6
    eager, onnx = told["candidates"][0], told["candidates"][1]
    assert eager["form"] == "eager"
    assert onnx["memory_bytes"] < eager["memory_bytes"]  # its process never loads torch


def test_a_form_that_cannot_be_run_has_a_reason_and_no_figure(
    kept: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    shutil.copytree(kept[0], good)
    shutil.copytree(kept[0], bad)
    (bad / "model.onnx").write_bytes(b"nothing")
    rows = {f"{kind}/picture": np.zeros((count, 1, 8, 8), np.uint8) for kind, count in (("one-0", 1), ("many-0", 4))}
    found, failed = time_forms([good, bad], rows, rounds=2)
    assert isinstance(found, Timed)
    assert found.latency_spread[0] <= found.latency <= found.latency_spread[1]
    assert 0 < found.share <= 1
    assert isinstance(failed, ZhixingError)
    assert "INVALID_PROTOBUF" in str(failed) or "model.onnx" in str(failed)
    one = candidate("bad", 0.0, 1.0)
    one.timed = None
    one.fail(failed)
    assert not one.within(1.0)
    assert "latency_seconds" not in one.plain()


def test_rows_to_time_with_are_spread_and_of_the_asked_size(pictures: Any) -> None:
    bench = pictures()
    found = sample_rows(bench.batches(), bench.rows, ["picture"], 12)
    assert {array.shape[0] for name, array in found.items() if name.startswith("one")} == {1}
    assert {array.shape[0] for name, array in found.items() if name.startswith("many")} == {12}


# The folder ---------------------------------------------------------------------------------------------------------


def test_the_folder_answers_like_a_run(
    kept: tuple[Path, dict[str, Any]], run: Any, digits: dict[str, list[Any]]
) -> None:
    out, _ = kept
    small = zx.load(out)
    pictures = digits["picture"][:50]
    answers, original = small.predict(pictures, coverage=0.9), run.predict(pictures, coverage=0.9)
    assert answers.column_names == original.column_names
    same = np.mean(np.array(answers["label"].to_pylist()) == np.array(original["label"].to_pylist()))
    assert same > 0.9
    with pytest.raises(UsageError, match="only predicts"):
        small.embed(pictures)
    with pytest.raises(UsageError, match="only predicts"):
        small.explain(pictures)


@pytest.mark.parametrize("name", ["model.onnx", "columns.json", "form.json", "calibration.json"])
def test_a_damaged_folder_is_refused(kept: tuple[Path, dict[str, Any]], tmp_path: Path, name: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(kept[0], folder)
    files = json.loads((folder / "form.json").read_text())["files"]
    path = folder / (files[0] if name == "model.onnx" else name)
    content = path.read_bytes()
    path.write_bytes(content + b" ")  # of the same meaning, and yet not what was written
    with pytest.raises(RunError):
        zx.load(folder)


def test_a_form_that_names_files_elsewhere_is_refused(kept: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(kept[0], folder)
    form = json.loads((folder / "form.json").read_text()) | {"files": ["../model.onnx"]}
    (folder / "form.json").write_text(json.dumps(form))
    with pytest.raises(RunError, match="elsewhere"):
        Compressed(folder, *open_compressed(kept[0])[:2])


def test_what_cannot_be_compressed_is_told_before_anything_is_done(run: Any, tmp_path: Path, bench: Any) -> None:
    parts = (run.path, run.settings, run.fitted, run.model)
    with pytest.raises(UsageError, match="Did you mean 'onnx'"):
        compress(*parts, Ask(methods=("onxn",)), device=CPU, console=QUIET)
    with pytest.raises(UsageError, match="only in memory"):
        compress(*parts, Ask(methods=("onnx",)), out=tmp_path / "o", device=CPU, console=QUIET)
    (tmp_path / "form.json").write_text("{}")
    with pytest.raises(UsageError, match="compressed already"):
        compress(tmp_path, *parts[1:], Ask(), device=CPU, console=QUIET)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="something else"):
        compress(*parts, Ask(methods=("onnx",)), out=tmp_path / "full", device=CPU, console=QUIET)
    writer = bench({"a": ["x y", "y x"], "b": ["p q", "q p"]}, {"a": {"type": "text"}}, {"b": {"type": "text"}})
    with pytest.raises(UsageError, match="not answered in one pass"):
        compress(tmp_path / "full", writer.recipe, writer.columns, writer.model(), device=CPU, console=QUIET)


def test_changed_data_are_refused(run: Any, digits: dict[str, list[Any]]) -> None:
    other = {"picture": digits["picture"], "label": digits["label"][::-1]}
    with pytest.raises(RunError, match="changed"):
        compress(run.path, run.settings, run.fitted, run.model, Ask(), source=other, device=CPU, console=QUIET)


# The page -----------------------------------------------------------------------------------------------------------


def test_the_page_shows_what_was_measured_and_says_what_was_not(kept: tuple[Path, dict[str, Any]]) -> None:
    out, told = kept
    page = (out / "compressed.html").read_text("utf-8")
    assert "<script" not in page
    assert 'class="mark">chosen' in page
    assert page.count("<svg") == 4
    failed = {"name": "<b>odd</b>", "model": "original", "form": "odd", "parameters": None, "bytes": None,
              "validation": {}, "drop": None, "not_measured": "Error: <i>no</i>"}  # fmt: skip
    more = render(told | {"candidates": [*told["candidates"], failed]})
    assert "Error: &lt;i&gt;no&lt;/i&gt;" in more
    assert "<b>odd</b>" not in more
    assert "busy" in render(told | {"candidates": [one | {"processor_share": 0.5} for one in told["candidates"]]})
    assert more.count("<circle") == str(render(told)).count("<circle")  # no dot for what has no figure


def test_the_command_lists_every_method() -> None:
    from click.testing import CliRunner

    from zhixing.commands.compress import compress as command

    told = " ".join(CliRunner().invoke(command, ["--help"]).output.split())
    assert all(name in told for name in METHODS if name != "eager")
    assert set(FORMS) <= set(METHODS)


# Real libraries, real rows ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_method_on_a_small_run(run: Any, digits: dict[str, list[Any]], tmp_path: Path) -> None:
    ask = Ask(max_drop=1.0, rounds=1, epochs=5, aim="size")
    told = compress(
        run.path,
        run.settings,
        run.fitted,
        run.model,
        ask,
        source=digits,
        out=tmp_path / "all",
        device=CPU,
        console=QUIET,
    )
    by_form = {one["form"]: one for one in told["candidates"] if one["model"] == "original"}
    assert set(by_form) == set(FORMS)
    assert {one["model"] for one in told["candidates"]} == {"original", "low rank", "pruned", "distilled"}
    for one in told["candidates"]:
        assert one["not_measured"] or one["latency_seconds"] > 0
        if one["form"] in ("eager", "onnx", "openvino") and one["model"] == "original":
            assert one["drop"] == pytest.approx(0.0)
    assert by_form["bf16"]["bytes"] < 0.6 * by_form["eager"]["bytes"]
    sizes = [one["bytes"] for one in told["candidates"] if not one["not_measured"]]
    assert next(one["bytes"] for one in told["candidates"] if one["name"] == told["chosen"]) == min(sizes)
    assert len(zx.load(tmp_path / "all").predict(digits["picture"][:3])) == 3
