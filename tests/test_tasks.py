"""Tasks from end to end: a task is its columns and nothing else, and each of these trains, tells and answers."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import zhixing as zx
from zhixing.cli import main
from zhixing.errors import DataError, RecipeError, UsageError, ZhixingError

ROWS = 40
SMALL = {"width": 8, "depth": 1, "heads": 2}
TRANSFORMER = {"name": "transformer", **SMALL}
WORDS = ("sun", "rain", "snow", "wind", "fog", "hail")


@dataclass
class Task:
    """A small table, what is asked for, and one row that is wrong: its column, its cell and what is said of it."""

    data: dict[str, list[Any]]
    recipe: dict[str, Any]
    metric: str
    bad: tuple[str, Any, str]
    reads: list[str] = field(default_factory=list)  # open: all but what is predicted

    @property
    def output(self) -> str:
        return str(next(iter(self.recipe["outputs"])))


def sentences(seed: int = 0, rows: int = ROWS) -> list[list[str]]:
    draw = np.random.default_rng(seed)
    return [draw.choice(WORDS, draw.integers(2, 7)).tolist() for _ in range(rows)]


def tone(row: int) -> bytes:
    time = np.arange(800 + 80 * (row % 7)) / 8000
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.2 * np.sin(2 * np.pi * (200 + 300 * (row % 2)) * time), 8000, format="WAV")
    return buffer.getvalue()


def text_to_category() -> Task:
    lines = [" ".join(words) for words in sentences()]
    return Task(
        {"review": lines, "kind": ["wet" if "rain" in line or "hail" in line else "dry" for line in lines]},
        {"inputs": {"review": {"type": "text", "encoder": TRANSFORMER}}, "outputs": {"kind": {"type": "category"}}},
        "accuracy",
        ("kind", None, "the cell is empty"),
    )


def text_to_text() -> Task:
    lines = sentences()
    source = {"type": "text", "encoder": {"name": "gru", "width": 8, "embedding": 8}}
    target = {"type": "text", "tokenizer": "word", "decoder": TRANSFORMER, "search": {"most": 5, "beams": 2}}
    return Task(
        {"en": [" ".join(words) for words in lines], "ne": [" ".join(words[::-1]) for words in lines]},
        {"inputs": {"en": source}, "outputs": {"ne": target}},
        "bleu",
        ("ne", None, "the cell is empty"),
    )


def nothing_to_text() -> Task:
    return Task(
        {"line": [" ".join(words) + "." for words in sentences()]},
        {"outputs": {"line": {"type": "text", "length": 16, "decoder": TRANSFORMER}}},
        "perplexity",
        ("line", None, "the cell is empty"),
        reads=["line"],
    )


def words_to_labels() -> Task:
    lines = sentences()
    return Task(
        {"words": lines, "tags": [["B-wet" if word in ("rain", "hail") else "O" for word in line] for line in lines]},
        {
            "inputs": {"words": {"type": "text", "encoder": {"name": "lstm", "width": 8, "embedding": 8}}},
            "outputs": {"tags": {"type": "labels"}},
        },
        "entity_f1",
        ("tags", ["B-wet", None], "label 2 is empty"),
    )


def series_to_category() -> Task:
    draw = np.random.default_rng(1)
    way = draw.choice([-1.0, 1.0], ROWS)
    steps = [
        (np.arange(n) * w + draw.normal(size=n)).tolist() for n, w in zip(draw.integers(3, 9, ROWS), way, strict=True)
    ]
    return Task(
        {"curve": steps, "way": ["up" if w > 0 else "down" for w in way]},
        {
            "inputs": {"curve": {"type": "series", "encoder": {"name": "tcn", "width": 8}}},
            "outputs": {"way": {"type": "category"}},
        },
        "accuracy",
        ("curve", [1.0, math.inf], "step 1: not finite"),
    )


def windows_to_series() -> Task:
    days = np.arange(90)
    sales = (10 + 3 * np.sin(days / 7)).tolist()
    reshape = {"name": "windows", "time": "day", "values": ["sales"], "past": 8, "future": 3, "split": [0.6, 0.2, 0.2]}
    return Task(
        {"day": days.tolist(), "sales": sales},
        {
            "data": {"reshape": reshape},
            "inputs": {"past": {"type": "series", "encoder": {"name": "gru", "width": 8}}},
            "outputs": {"future": {"type": "series"}},
        },
        "mase",
        ("day", 4, "the time of a row before it"),
        reads=["past"],
    )


def log_to_next_item() -> Task:
    draw = np.random.default_rng(2)
    who = np.repeat(np.arange(12), 6)
    first = np.repeat(draw.integers(0, 6, 12), 6)
    what = [WORDS[(start + place % 6) % 6] for place, start in enumerate(first.tolist())]
    reshape = {"name": "history", "user": "who", "item": "what", "time": "day"}
    return Task(
        {"who": [f"u{one}" for one in who], "what": what, "day": list(range(len(who)))},
        {
            "data": {"reshape": reshape},
            "inputs": {"history": {"type": "history", "encoder": {"name": "sasrec", "width": 8}}},
            "outputs": {"what": {"type": "category"}},
        },
        "accuracy",
        ("who", None, "the cell is empty"),
        reads=["history"],
    )


def ratings(fusion: dict[str, Any]) -> Task:
    draw = np.random.default_rng(3)
    users, items = draw.integers(0, 6, ROWS), draw.integers(0, 5, ROWS)
    both = zip(users.tolist(), items.tolist(), strict=True)
    embedding = {"type": "category", "encoder": {"name": "embedding", "width": 4}}
    return Task(
        {
            "user": [f"u{u}" for u in users],
            "item": [f"i{i}" for i in items],
            "stars": [u % 3 + i % 2 + 1.0 for u, i in both],
        },
        {"inputs": {"user": embedding, "item": embedding}, "outputs": {"stars": {"type": "number"}}, "fusion": fusion},
        "rmse",
        ("stars", "many", "not a number: 'many'"),
    )


def sound_to_text() -> Task:
    encoder = {"name": "conformer", "width": 8, "depth": 1, "heads": 2, "kernel": 3, "subsample": 2}
    return Task(
        {"clip": [tone(row) for row in range(ROWS)], "said": [["la", "lo"][row % 2] for row in range(ROWS)]},
        {
            "inputs": {"clip": {"type": "audio", "rate": 8000, "bands": 8, "encoder": encoder}},
            "outputs": {"said": {"type": "text", "decoder": "ctc"}},
        },
        "cer",
        ("clip", b"not a sound", "not a sound in any known format"),
    )


def picture_to_text() -> Task:
    draw = np.random.default_rng(4)
    bright = draw.integers(0, 2, ROWS)
    pictures = [(200 * b + draw.integers(0, 30, (12, 12))).astype(np.uint8) for b in bright]
    return Task(
        {"photo": pictures, "said": [["a dark one", "a bright one"][b] for b in bright]},
        {
            "inputs": {"photo": {"type": "image", "encoder": {"name": "cnn", "layers": [4, "pool"], "dense": [8]}}},
            "outputs": {"said": {"type": "text", "decoder": {"name": "gru", "width": 8}, "search": {"most": 12}}},
        },
        "chrf",
        ("said", None, "the cell is empty"),
    )


TASKS: dict[str, Callable[[], Task]] = {
    "text to category": text_to_category,
    "text to text": text_to_text,
    "nothing to text": nothing_to_text,
    "words to labels": words_to_labels,
    "series to category": series_to_category,
    "windows to series": windows_to_series,
    "log to next item": log_to_next_item,
    "factors to number": lambda: ratings({"name": "factorised"}),
    "crosses to number": lambda: ratings({"name": "deep_cross", "depth": 1, "widths": [8]}),
    "sound to text": sound_to_text,
    "picture to text": picture_to_text,
}
BAD = 5  # the row that is wrong


def trained(task: Task, out: Path, **options: Any) -> zx.Run:
    recipe = {**task.recipe, "training": {"batch_size": 8, "threads": 1, "optimizer": {"name": "adamw", "lr": 0.01}}}
    return zx.train(task.data, recipe=recipe, epochs=2, out=out, device="cpu", **options)


@dataclass
class Done:
    task: Task
    run: zx.Run


@pytest.fixture(scope="module", params=list(TASKS))
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Each task, trained with one row that is wrong."""
    task = TASKS[request.param]()
    name, cell, _ = task.bad
    task.data[name][BAD] = cell
    return Done(task, trained(task, tmp_path_factory.mktemp("runs") / "run", on_error="skip"))


def asked_of(done: Done) -> dict[str, list[Any]]:
    """What the model reads, of rows that can be read."""
    task = done.task
    if done.task.output == "line":  # a language model goes on from beginnings
        return {"line": ["sun", "", "rain s", "fog"]}
    if done.run.settings.data.reshape is None:
        reads = task.reads or [name for name in task.data if name != task.output]
        return {name: [cell for row, cell in enumerate(task.data[name]) if row != BAD] for name in reads}
    if "past" in task.reads:
        return {"past": [[[10 + row + step / 3] for step in range(8 - row)] for row in range(5)]}
    return {"history": [["rain", "snow"], [], ["fog"], ["hail"] * 60, ["never seen", "sun"]]}


def test_it_learns_and_is_measured(done: Done) -> None:
    lines = [json.loads(line) for line in (done.run.path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["kind"] == "validation"]
    assert len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses)
    measured = json.loads((done.run.path / "evaluation.json").read_text("utf-8"))
    figures = measured["outputs"][done.task.output]["metrics"]
    assert done.task.metric in figures
    assert all(math.isfinite(value) for value in figures.values())
    again = done.run.evaluate()[done.task.output]
    assert again == pytest.approx(figures, rel=1e-5, abs=1e-6)
    everything = done.run.evaluate(done.task.data)[done.task.output]
    assert everything.keys() >= {done.task.metric}


def test_the_report_is_written(done: Done) -> None:
    page = (done.run.path / "report.html").read_text("utf-8")
    assert len(page) > 3000
    assert done.task.output in page
    assert done.task.metric.split("_")[0] in page.lower()
    assert (done.run.path / "README.md").stat().st_size > 300


def test_a_row_that_is_wrong_is_named(done: Done) -> None:
    name, _, reason = done.task.bad
    lines = [json.loads(line) for line in (done.run.path / "problems.jsonl").read_text("utf-8").splitlines()]
    told = [line for line in lines if line["fatal"]]
    assert len(told) == 1, told
    assert told[0]["column"] == name
    assert told[0]["place"].endswith(f"row {BAD}")
    assert reason in told[0]["reason"]


def test_it_stops_where_rows_are_wrong_and_nobody_said_to_go_on(done: Done, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"row {BAD}\b.*{done.task.bad[2]}"):
        trained(done.task, tmp_path / "run", on_error="stop")
    assert not (tmp_path / "run").exists()


def test_answers_come_in_the_order_of_what_was_asked(done: Done) -> None:
    asked = asked_of(done)
    name, rows = done.task.output, len(next(iter(asked.values())))
    answers = done.run.predict(asked)[name].to_pylist()
    assert len(answers) == rows
    back = done.run.predict({key: cells[::-1] for key, cells in asked.items()})[name].to_pylist()
    assert_near(back[::-1], answers)
    for row in (0, rows - 1):  # a row alone, whatever came beside it
        alone = done.run.predict({key: [cells[row]] for key, cells in asked.items()})[name].to_pylist()
        assert_near(alone, answers[row : row + 1])
    loaded = zx.load(done.run.path, device="cpu").predict(asked)[name].to_pylist()
    assert loaded == answers
    kinds = {"text": str, "category": str, "number": float, "labels": list, "series": list}
    assert all(isinstance(cell, kinds[done.run.settings.outputs[name].type]) for cell in answers)


def assert_near(one: list[Any], other: list[Any]) -> None:
    """Numbers may differ in their last digits: sums of other batches are taken in another order."""
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        if isinstance(left, float):
            assert left == pytest.approx(right, rel=1e-4, abs=1e-5)
        elif isinstance(left, list):
            assert_near(left, right)
        else:
            assert left == right


# What is particular to some ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> zx.Run:
    return trained(nothing_to_text(), tmp_path_factory.mktemp("runs") / "run")


def test_a_language_model_goes_on_from_beginnings(speaker: zx.Run) -> None:
    beginnings = ["sun", "", "rain s", "fog"]
    answers = speaker.predict(beginnings)["line"].to_pylist()
    assert len(answers) == 4
    assert speaker.predict(["sun"])["line"].to_pylist() == answers[:1]
    assert speaker.predict({"line": beginnings})["line"].to_pylist() == answers
    shown = json.loads((speaker.path / "evaluation.json").read_text())["outputs"]["line"]["samples"]
    assert shown
    assert all(set(one) == {"prompt", "text"} and len(one["prompt"]) <= 8 for one in shown)
    assert "texts" not in speaker.settings.inputs
    assert speaker.settings.outputs["line"].packed


def test_a_beginning_that_is_too_long_is_told(speaker: zx.Run) -> None:
    with pytest.raises(
        DataError, match=r"1 rows .* row 1\b.*'line': a beginning of 12 tokens, more than half of the 16"
    ):
        speaker.predict(["sun", "snow and sun", "fog"])


def test_a_beginning_that_is_too_long_has_no_answer_on_the_command_line(
    speaker: zx.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, out = tmp_path / "asked.jsonl", tmp_path / "answers.jsonl"
    asked.write_text("".join(json.dumps({"line": line}) + "\n" for line in ("sun", "snow and sun", "fog")), "utf-8")
    main(["predict", str(speaker.path), str(asked), "--out", str(out), "--device", "cpu"])
    assert "a beginning of 12 tokens" in capsys.readouterr().err
    answers = [json.loads(line)["line"] for line in out.read_text("utf-8").splitlines()]
    assert [answer is None for answer in answers] == [False, True, False]
    assert [answers[0], answers[2]] == speaker.predict(["sun", "fog"])["line"].to_pylist()


@pytest.mark.parametrize("length", [1, 2, 3, 8])
def test_language_models_of_short_blocks_train(length: int, tmp_path: Path) -> None:
    task = nothing_to_text()
    task.recipe["outputs"]["line"] = {**task.recipe["outputs"]["line"], "length": length}
    run = trained(task, tmp_path / "run")
    assert math.isfinite(run.evaluate()["line"]["perplexity"])
    assert len(run.predict([""])["line"].to_pylist()) == 1


def test_tokens_in_place_of_epochs(tmp_path: Path) -> None:
    task = nothing_to_text()
    task.recipe = {**task.recipe, "training": {"tokens": 2000, "batch_size": 4, "threads": 1}}
    run = zx.train(task.data, recipe=task.recipe, out=tmp_path / "run", device="cpu")
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    steps = max(line["step"] for line in lines)
    assert steps * 4 * 16 == pytest.approx(2000, rel=0.1)


def test_labels_are_one_for_each_word(tmp_path: Path) -> None:
    task = words_to_labels()
    run = trained(task, tmp_path / "run")
    asked = [["rain"], ["snow", "never seen", "hail", "sun"], ["fog"] * 6]
    answers = run.predict({"words": asked})["tags"].to_pylist()
    assert [len(tags) for tags in answers] == [1, 4, 6]
    assert {tag for tags in answers for tag in tags} <= {"B-wet", "O"}


def test_labels_that_stand_beside_no_word_are_told(tmp_path: Path) -> None:
    """Words and labels of another number would be paired wrongly from there on, and nobody would see it."""
    task = words_to_labels()
    task.data["tags"][BAD] = [*task.data["tags"][BAD], "O"]
    words, tags = len(task.data["words"][BAD]), len(task.data["tags"][BAD])
    with pytest.raises(DataError, match=rf"row {BAD}\b.*{tags} labels beside {words} tokens"):
        trained(task, tmp_path / "run", on_error="stop")
    run = trained(task, tmp_path / "run", on_error="skip")
    told = [json.loads(line) for line in (run.path / "problems.jsonl").read_text().splitlines()]
    (wrong,) = [one for one in told if one["fatal"]]
    assert (wrong["row"], wrong["column"]) == (BAD, "tags")
    assert wrong["reason"] == f"{tags} labels beside {words} tokens"


def test_labels_beside_text_that_is_cut_otherwise_are_refused(tmp_path: Path) -> None:
    task = words_to_labels()
    task.data["words"] = [" ".join(words) for words in task.data["words"]]
    task.recipe["inputs"]["words"] = {"type": "text", "tokenizer": "character", "encoder": TRANSFORMER}
    with pytest.raises(DataError, match=r"of 40 rows .* cannot be used:(.|\n)* labels beside .* tokens"):
        trained(task, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    task.recipe["inputs"]["words"]["tokenizer"] = "word"  # the same words
    run = trained(task, tmp_path / "other")
    assert [len(tags) for tags in run.predict(["rain sun", "fog"])["tags"].to_pylist()] == [2, 1]


def test_forecasts_are_in_their_own_units(tmp_path: Path) -> None:
    run = trained(windows_to_series(), tmp_path / "run")
    past = [[[10.0 + math.sin(step / 7)] for step in range(8)]]
    (answer,) = run.predict({"past": past})["future"].to_pylist()
    assert len(answer) == 3
    assert all(5 < float(np.ravel(step)[0]) < 15 for step in answer)
    figures = run.evaluate()["future"]
    assert figures.keys() >= {"mae", "rmse", "mase"}


def test_texts_that_ctc_cannot_say_are_told(tmp_path: Path) -> None:
    task = sound_to_text()
    task.data["said"][BAD] = "l" * 99
    with pytest.raises(DataError, match=rf"row {BAD}\b.*takes 197 steps to say"):
        trained(task, tmp_path / "run", on_error="stop")
    run = trained(task, tmp_path / "run", on_error="skip")
    told = [json.loads(line) for line in (run.path / "problems.jsonl").read_text().splitlines()]
    assert [(one["row"], one["column"]) for one in told if one["fatal"]] == [(BAD, "said")]
    task.data["said"] = ["l" * 99] * ROWS
    with pytest.raises(DataError, match="no usable row is left to learn from"):
        trained(task, tmp_path / "other", on_error="skip")


# On the command line -------------------------------------------------------------------------------------------------


def test_predicting_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(text_to_text(), tmp_path / "run")
    rows = [{"en": line} for line in ("rain sun", "", "snow snow fog", "hail")]
    path = tmp_path / "asked.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    out = tmp_path / "answers.jsonl"
    main(["predict", str(run.path), str(path), "--out", str(out), "--device", "cpu"])
    capsys.readouterr()
    written = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert [row["en"] for row in written] == [row["en"] for row in rows]
    answers = run.predict({"en": [row["en"] for row in rows]})["ne"].to_pylist()
    assert [row["ne"] for row in written] == answers


def test_training_from_files_and_speaking_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder of sounds beside a table that names them; then a text file for a language model."""
    lines = ["clip,said"]
    for row in range(16):
        (tmp_path / f"{row}.wav").write_bytes(tone(row))
        lines.append(f"{row}.wav,{['la', 'lo'][row % 2]}")
    table = tmp_path / "clips.csv"
    table.write_text("\n".join(lines) + "\n", "utf-8")
    sounds = sound_to_text()
    sounds.recipe["outputs"]["said"] = {"type": "category"}
    recipe = {**sounds.recipe, "training": {"batch_size": 8, "threads": 1}}
    run = zx.train(table, recipe=recipe, epochs=1, out=tmp_path / "sounds", device="cpu")
    assert set(run.predict(table)["said"].to_pylist()) <= {"la", "lo"}
    (tmp_path / "3.wav").write_bytes(b"RIFF....WAVE")
    with pytest.raises(DataError, match=r"3\.wav"):
        run.predict(table)
    prose = tmp_path / "poem.txt"
    prose.write_text("".join(" ".join(words) + ".\n" for words in sentences()), "utf-8")
    outputs = {"text": {"type": "text", "length": 12, "decoder": TRANSFORMER}}
    run = zx.train(prose, recipe={"outputs": outputs, "training": recipe["training"]}, epochs=1, out=tmp_path / "lm")
    asked = tmp_path / "asked.csv"
    asked.write_text("text\nsun\nfog\n", "utf-8")
    main(["predict", str(run.path), str(asked), "--format", "csv", "--device", "cpu"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].replace('"', "") == "text_given,text"
    assert len(printed) >= 3


# Wrong use -----------------------------------------------------------------------------------------------------------


def refused(task: Task, tmp_path: Path, kind: type[ZhixingError], pattern: str) -> None:
    with pytest.raises(kind, match=pattern):
        trained(task, tmp_path / "run")
    assert not (tmp_path / "run").exists()  # nothing was written


def test_labels_of_two_inputs_are_refused(tmp_path: Path) -> None:
    task = words_to_labels()
    task.data["size"] = list(range(ROWS))
    task.recipe["inputs"]["size"] = {"type": "number"}
    refused(task, tmp_path, UsageError, "labels stand beside the tokens of one input, and there are 2 inputs")


@pytest.mark.parametrize(
    ("kind", "cells", "encoder"),
    [
        ("number", list(range(ROWS)), {"name": "mlp"}),
        ("category", ["a", "b"] * (ROWS // 2), {"name": "embedding"}),
        ("series", [[1.0, 2.0 + n] for n in range(ROWS)], {"name": "conformer", **SMALL}),
    ],
)
def test_labels_of_what_has_no_tokens_are_refused(
    tmp_path: Path, kind: str, cells: list[Any], encoder: dict[str, Any]
) -> None:
    task = words_to_labels()
    task.data = {"words": cells, "tags": [["a", "b"]] * ROWS}
    task.recipe["inputs"]["words"] = {"type": kind, "encoder": encoder}
    refused(task, tmp_path, UsageError, "labels need an encoder with a token for each step")


@pytest.mark.parametrize("decoder", ["ctc", "gru"])
def test_decoders_that_need_an_input_are_refused_without_one(tmp_path: Path, decoder: str) -> None:
    task = nothing_to_text()
    task.recipe["outputs"]["line"] = {"type": "text", "decoder": decoder}
    refused(task, tmp_path, UsageError, "Take the transformer decoder")


def test_numbers_that_are_asked_of_a_text_are_refused(tmp_path: Path) -> None:
    task = ratings({"name": "concat"})
    task.data["stars"] = [" ".join(words) for words in sentences()]
    refused(task, tmp_path, DataError, "column 'stars', an output of type number: no training row holds a number")


def test_a_text_that_is_asked_of_pictures_is_refused(tmp_path: Path) -> None:
    task = picture_to_text()
    task.recipe["inputs"]["photo"] = {"type": "text", "encoder": TRANSFORMER}
    refused(task, tmp_path, DataError, "column 'photo', .*hold no text")


def test_a_text_of_numbers_is_that_of_their_digits(tmp_path: Path) -> None:
    task = text_to_category()
    task.data["review"] = [row % 7 for row in range(ROWS)]
    run = trained(task, tmp_path / "run")
    assert run.predict([3])["kind"].to_pylist() == run.predict(["3"])["kind"].to_pylist()


def test_what_an_encoder_does_not_take_is_refused(tmp_path: Path) -> None:
    task = text_to_category()
    task.recipe["inputs"]["review"] = {"type": "text", "encoder": "mlp"}
    refused(task, tmp_path, RecipeError, r"inputs\.review\.encoder: 'mlp' is not known")


@pytest.mark.parametrize("name", ["windows to series", "log to next item"])
def test_a_reshape_that_names_a_missing_column_is_refused(tmp_path: Path, name: str) -> None:
    task = TASKS[name]()
    reshape = task.recipe["data"]["reshape"]
    key = "time"
    reshape[key] = "dya"
    refused(task, tmp_path, DataError, "no column is called 'dya'. Did you mean 'day'?")


def test_a_reshape_that_is_not_known_and_settings_of_another(tmp_path: Path) -> None:
    task = windows_to_series()
    task.recipe["data"]["reshape"]["name"] = "window"
    refused(task, tmp_path, RecipeError, "data.reshape: 'window' is not known. Did you mean 'windows'?")
    task = windows_to_series()
    task.recipe["data"]["reshape"]["user"] = "who"
    refused(task, tmp_path, RecipeError, r"data\.reshape\.user: there is no such setting")


def test_tokens_are_asked_for_where_no_text_is_learned(tmp_path: Path) -> None:
    task = text_to_category()
    with pytest.raises(RecipeError, match=r"training\.tokens: no output is a text"):
        zx.train(task.data, recipe={**task.recipe, "training": {"tokens": 100}}, out=tmp_path / "run", device="cpu")


def test_a_text_of_several_inputs_is_written_from_the_tokens_of_all(tmp_path: Path) -> None:
    rows = {"word": ["abc", "bca", "cab", "acb"] * 6, "way": ["there", "back"] * 12, "said": ["a b c", "c b a"] * 12}
    word = {"type": "text", "tokenizer": "character", "encoder": {"name": "gru", "width": 8}}
    said = {"type": "text", "tokenizer": "word", "decoder": {"name": "transformer", "width": 8, "depth": 1, "heads": 2}}
    raw: dict[str, Any] = {"inputs": {"word": word, "way": "category"}, "outputs": {"said": said}}
    run = zx.train(rows, recipe=raw, epochs=1, out=tmp_path / "run")
    assert run.model.fusion.tokens is not None
    again = zx.load(tmp_path / "run")
    assert again.predict(rows)["said"].equals(run.predict(rows)["said"])
    raw["outputs"]["said"]["decoder"] = "ctc"
    with pytest.raises(UsageError, match="ctc aligns the text with the steps of one input, and there are 2"):
        zx.train(rows, recipe=raw, epochs=1, out=tmp_path / "other")
