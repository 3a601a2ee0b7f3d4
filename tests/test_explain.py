"""Explaining rows from end to end: what is explained, how it is shown, what is near, what would flip it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import zhixing as zx
from zhixing.cli import main
from zhixing.console import Console
from zhixing.errors import DataError, UsageError
from zhixing.explain.context import before
from zhixing.explain.goals import Ask
from zhixing.explain.methods import METHODS
from zhixing.explain.pictures import as_uri, heat, overlay, uri_picture
from zhixing.explain.rows import given_rows
from zhixing.explain.spans import pieces_of, spans
from zhixing.explain.subject import NotApplicableError, Subject
from zhixing.model import blank_encoding

CPU = torch.device("cpu")


def subject_of(run: zx.Run, source: Any, output: str, ask: Ask | None = None) -> Subject:
    found = given_rows(run.settings, run.fitted, run.model, source, Console(quiet=True))
    batch, _ = next(found.batches(CPU))
    return Subject(run.model, run.fitted, batch, output, ask)


@pytest.fixture(scope="module")
def table() -> dict[str, Any]:
    """A label that follows from two columns of several; other outputs beside it."""
    rng = np.random.default_rng(0)
    n = 800
    x, y, shop = rng.normal(50, 10, n), rng.normal(size=n), rng.choice(["north", "south", "west"], n)
    marks = [[tag for tag, flag in zip("mn", rng.integers(0, 2, 2), strict=True) if flag] for _ in range(n)]
    return {
        "x": x.tolist(),
        "y": [None if i % 7 == 0 else float(v) for i, v in enumerate(y)],
        "shop": shop.tolist(),
        "marks": marks,
        "when": [f"2026-{rng.integers(1, 13):02}-{rng.integers(1, 28):02}" for _ in range(n)],
        "series": [rng.normal(size=rng.integers(3, 7)).round(3).tolist() for _ in range(n)],
        "label": ["high" if a > 50 + 8 * (s == "north") else "low" for a, s in zip(x, shop, strict=True)],
        "price": (2 * x + 5).tolist(),
        "next": [[float(a), float(-a)] for a in x],
        "kinds": marks,
    }


@pytest.fixture(scope="module")
def run(table: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> zx.Run:
    folder = tmp_path_factory.mktemp("table")
    (folder / "table.json").write_text(
        json.dumps([dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)])
    )
    raw = {
        "inputs": {name: {} for name in ("x", "y", "shop", "marks", "when", "series")},
        "outputs": {"label": {}, "price": {}, "next": {"type": "series"}, "kinds": {"type": "tags"}},
        "training": {"epochs": 10, "batch_size": 32, "optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.1}},
    }
    raw["inputs"]["marks"] = {"type": "tags"}
    return zx.train(str(folder / "table.json"), recipe=raw, out=folder / "run")


def some(table: dict[str, Any], count: int = 6) -> dict[str, Any]:
    return {name: cells[:count] for name, cells in table.items()}


# What is explained ---------------------------------------------------------------------------------------------------


def test_scores_are_what_the_model_predicts(run: zx.Run, table: dict[str, Any]) -> None:
    said = run.predict(some(table), probabilities=True)
    for output in run.model.outputs:
        subject = subject_of(run, some(table), output)
        encoding = subject.encode(subject.points)
        prediction = run.model.head(output)(encoding)
        score = subject.score(subject.points)
        if output == "label":
            torch.testing.assert_close(score, prediction.amax(1))
            order = [said["label"][i].as_py() for i in range(6)]
            assert sorted(subject.goal.names) == sorted(order)
        elif output == "kinds":
            torch.testing.assert_close(score, prediction.amax(1))
        else:
            torch.testing.assert_close(score, prediction.flatten(1).mean(1))


def test_a_class_and_a_step_can_be_asked_for(run: zx.Run, table: dict[str, Any]) -> None:
    low = subject_of(run, some(table), "label", Ask(label="low"))
    assert low.goal.names == ["low"] * 6
    classes: Any = run.fitted["label"]
    torch.testing.assert_close(
        low.score(low.points), run.model.head("label")(low.encode(low.points))[:, classes.classes.index("low")]
    )
    second = subject_of(run, some(table), "next", Ask(step=1))
    torch.testing.assert_close(
        second.score(second.points), run.model.head("next")(second.encode(second.points))[:, 1, 0]
    )
    for output, ask, told in (
        ("label", Ask(label="lo"), "Did you mean 'low'"),
        ("label", Ask(step=0), "no step to choose"),
        ("next", Ask(step=2), "from 0 to 1"),
        ("price", Ask(label="low"), "no class to choose"),
    ):
        with pytest.raises(UsageError, match=told):
            subject_of(run, some(table), output, ask)


WORDS = ["one", "two", "three", "four", "five", "six"]


@pytest.mark.parametrize("decoder", ["transformer", "gru", "ctc"])
def test_a_text_is_explained_by_the_probability_of_what_was_written(decoder: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    given = [" ".join(rng.permutation(WORDS)[: rng.integers(2, 5)]) for _ in range(120)]  # none twice: CTC has no room
    small = {"name": decoder} if decoder == "ctc" else {"name": decoder, "width": 16}
    if decoder == "transformer":
        small |= {"depth": 1, "heads": 2}
    raw = {
        "inputs": {"given": {"type": "text", "tokenizer": "word", "encoder": {"name": "gru", "width": 16}}},
        "outputs": {"said": {"type": "text", "tokenizer": "word", "decoder": small}},
        "training": {"epochs": 2, "batch_size": 32},
    }
    run = zx.train({"given": given, "said": given}, recipe=raw, out=tmp_path / "run")
    subject = subject_of(run, {"given": given[:4]}, "said")
    head: Any = run.model.head("said")
    with torch.no_grad():
        encoding = subject.encode(subject.points)
        target, score = subject.goal.target, subject.score(subject.points)
        assert torch.equal(target, head.answer(encoding))
        if decoder == "ctc":
            chances = head(encoding)
            lengths = (target > 0).sum(1)
            wanted = -torch.nn.functional.ctc_loss(
                chances.transpose(0, 1), target, subject.entries[0].real.sum(1), lengths, reduction="none"
            )
        else:
            each = head(encoding, target).log_softmax(-1).gather(2, target[..., None])[..., 0]
            wanted = (each * (target > 0)).sum(1)
    torch.testing.assert_close(score, wanted, rtol=1e-4, atol=1e-4)
    found = run.explain({"given": given[:4]}, methods=["integrated_gradients", "occlusion"])
    assert all(row["maps"]["occlusion"]["columns"][0]["shown"]["kind"] == "tokens" for row in found.rows)
    assert found.facts["gap"] <= 0.01


def test_labels_of_words_are_explained(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    words = [list(rng.choice(WORDS, rng.integers(2, 6))) for _ in range(150)]
    labels = [["odd" if word in ("one", "three", "five") else "even" for word in row] for row in words]
    raw = {
        "inputs": {"words": {"type": "text", "encoder": {"name": "transformer", "width": 16, "depth": 1}}},
        "outputs": {"labels": {"type": "labels"}},
        "training": {"epochs": 8, "batch_size": 16, "optimizer": {"name": "adamw", "lr": 0.01}},
    }
    run = zx.train({"words": words, "labels": labels}, recipe=raw, out=tmp_path / "run")
    row = ["six", "one", "two", "five"]
    for step in (0, 2):  # of the even ones, since padding alone is called odd
        subject = subject_of(run, {"words": [row]}, "labels", Ask(step=step))
        assert subject.goal.names == ["even"]
        cells = METHODS["integrated_gradients"](subject).cells[0]
        assert cells is not None
        assert int(cells[0].abs().argmax()) == step  # a word's label hangs on the word


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> zx.Run:
    """A language model of five-word lines in which the last word is the second one again."""
    random = np.random.default_rng(0)
    words = random.choice(["ant", "bee", "cat", "dog"], size=(600, 3))
    texts = [f"{a} {b} {c} so {b}" for a, b, c in words]
    decoder = {"name": "transformer", "width": 32, "depth": 2, "heads": 2, "dropout": 0.0}
    column = {"type": "text", "tokenizer": "word", "length": 8, "packed": False, "decoder": decoder}
    recipe = {"outputs": {"text": column}, "training": {"optimizer": {"name": "adamw", "lr": 0.005}}}
    settings = {"epochs": 20, "batch_size": 32}
    return zx.train({"text": texts}, recipe=recipe, out=tmp_path_factory.mktemp("writer") / "run", **settings)


def test_a_language_model_is_explained_by_its_own_text(writer: zx.Run) -> None:
    told = writer.explain({"text": ["ant bee cat so", "dog cat ant so"]}, methods=["all"], nearest=2)
    assert [row["answer"] for row in told.rows] == ["bee", "cat"]
    assert all(row["probability"] > 0.9 for row in told.rows)
    assert set(told.facts["methods"]) == set(METHODS) - set(told.facts["skipped"])
    assert {"integrated_gradients", "gradient_x_input", "occlusion", "attention_rollout", "shapley"} <= set(
        told.facts["methods"]
    )
    assert told.facts["gap"] < 0.02
    for row, word in zip(told.rows, ("bee", "cat"), strict=True):
        for method in ("integrated_gradients", "occlusion"):
            (one,) = row["maps"][method]["columns"]
            pieces = [piece for piece in one["shown"]["pieces"] if piece[1] is not None]
            assert len(pieces) == 4
            animals = {text: abs(value) for text, value in pieces if text != "so"}  # that one says when, not which
            assert max(animals, key=animals.__getitem__) == word
        assert len(row["nearest"]) == 2


def test_a_token_within_a_text_is_explained_by_those_before_it(writer: zx.Run) -> None:
    texts = ["ant bee cat so bee", "dog cat"]
    told = writer.explain({"text": texts}, ask=Ask(step=4))
    assert [row["answer"] for row in told.rows] == ["bee", "cat"]  # of a shorter text the last
    pieces = [row["maps"]["integrated_gradients"]["columns"][0]["shown"]["pieces"] for row in told.rows]
    assert [[piece[0] for piece in row if piece[1] is not None] for row in pieces] == [
        ["ant", "bee", "cat", "so"],
        ["dog"],
    ]
    other = writer.explain({"text": texts[:1]}, ask=Ask(step=4, label="dog")).rows[0]
    assert other["answer"] == "dog"
    assert other["score"] < told.rows[0]["score"]
    with pytest.raises(UsageError, match=r"knows no token 'dig'.*dog"):
        writer.explain({"text": texts}, ask=Ask(label="dig"))


def test_what_a_language_model_is_explained_by_is_what_it_scores(writer: zx.Run) -> None:
    """The scores of the next token are those of the training forward."""
    column = writer.fitted["text"]
    ids = column.tensorize(pa.array(["ant bee cat so bee"]), lambda i: "").values
    values = torch.as_tensor(np.asarray(ids))[None, :].long()
    head = writer.model.head("text")
    whole = head(blank_encoding(1, torch.device("cpu")), values)
    for step in range(5):
        encoder, read, mask, there = before(head, values, step)
        found = head.decoder.scores(encoder(read, mask).pooled)
        torch.testing.assert_close(found, whole[:, step], rtol=1e-5, atol=1e-5)
        assert there is not None
        assert int(there) == int(values[0, step])


# How it is shown -----------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.text("aéb. \n中", min_size=1, max_size=4), st.booleans()), max_size=12),
    st.text(" a", max_size=3),
)
def test_spans_are_the_whole_text(parts: list[tuple[str, bool]], tail: str) -> None:
    text = "".join(part for part, _ in parts) + tail
    surfaces = [part if known else None for part, known in parts]
    values = [float(i + 1) for i in range(len(parts))]
    found = spans(text, surfaces, values)
    assert "".join(piece for piece, _ in found) == text
    if text and values:
        assert sum(value for _, value in found if value is not None) == pytest.approx(sum(values))


@pytest.mark.parametrize("tokenizer", ["word", "character", "byte", "bpe", "wordpiece", "sentencepiece"])
def test_pieces_of_every_tokenizer_are_the_text_and_keep_the_sum(tokenizer: str) -> None:
    import pyarrow as pa

    from zhixing.columns.text import Text

    texts = ["Ein schöner Tag, 中文 and naïve cafés.", "the cat sat on the mat", "unknown words: Übermut!"] * 20
    column = Text(tokenizer=tokenizer, vocabulary=300)  # type: ignore[arg-type]
    column.fit(pa.chunked_array([texts[:2] * 20]), Path)
    for text in texts[:3]:
        ids = column.tensorize(pa.array([text]), Path).values.tolist()
        values = [float(i + 1) for i in range(len(ids))]
        pieces = pieces_of(column, text, ids, values)
        assert "".join(piece for piece, _ in pieces) == text
        assert sum(value or 0.0 for _, value in pieces) == pytest.approx(sum(values))


def test_pieces_of_lists_and_histories() -> None:
    import pyarrow as pa

    from zhixing.columns.history import History

    column = History()
    column.fit(pa.chunked_array([[["tea", "milk"], ["bread"]]]), Path)
    ids = column.tensorize(pa.array([["bread", "wine", "tea"]]), Path).values.tolist()
    assert pieces_of(column, ["bread", "wine", "tea"], ids, [1.0, 2.0, 3.0]) == [
        ("bread", 1.0), (" ", None), ("unknown", 2.0), (" ", None), ("tea", 3.0),
    ]  # fmt: skip


def test_heat_is_orange_for_blue_against_and_clear_where_nothing_is() -> None:
    pixels = np.asarray(heat(np.array([[1.0, -1.0, 0.0, 0.5]])))[0].astype(int)
    assert pixels[0][0] > 200 > pixels[0][2]
    assert pixels[1][2] > 150 > pixels[1][0]
    assert pixels[2][3] == 0
    assert 0 < pixels[3][3] < pixels[0][3]
    plain = Image.fromarray(np.full((1, 4), 128, np.uint8))
    drawn = overlay(np.array([[0.0, 0.0, 0.0, 1.0]]), plain)
    assert np.ptp(np.asarray(drawn)[0, 0].astype(int)) == 0
    assert np.asarray(uri_picture(as_uri(drawn))).tolist() == np.asarray(drawn).tolist()


def test_facts_name_the_parts_and_add_up(run: zx.Run, table: dict[str, Any]) -> None:
    found = run.explain(some(table), methods=["integrated_gradients", "shapley"])
    for row in found.rows:
        for maps in row["maps"].values():
            totals = {one["name"]: one["total"] for one in maps["columns"]}
            assert list(totals) == run.model.inputs
            change = row["score"] - row["baseline_score"]
            assert sum(totals.values()) == pytest.approx(change, rel=0.011, abs=1e-4)
            assert sum(one["share"] for one in maps["columns"]) == pytest.approx(1.0)
    cells = {part["name"]: part["cell"] for one in found.rows[0]["maps"]["integrated_gradients"]["columns"]
             for part in one["shown"].get("parts", [])}  # fmt: skip
    assert cells["y"] == "empty"
    assert cells["shop"] == table["shop"][0]
    assert cells["when"] == table["when"][0]
    assert found.rows[0]["truth"] == table["label"][0]
    assert found.rows[0]["answer"] == run.predict(some(table))["label"][0].as_py()


def test_columns_that_matter_have_most(run: zx.Run, table: dict[str, Any]) -> None:
    for method in ("integrated_gradients", "shapley"):
        found = run.explain(some(table, 120), methods=[method])
        hits = [
            sum(one["share"] for one in row["maps"][method]["columns"] if one["name"] in ("x", "shop")) > 0.5
            for row in found.rows
        ]
        assert np.mean(hits) >= 0.95


def test_means_by_class_are_means_of_rows(run: zx.Run) -> None:
    found = run.explain(rows=None)
    means = found.facts["classes"]
    rows = rows_of_test(run)
    assert found.facts["explained"] == sum(one["rows"] for one in means) == len(rows)
    assert {one["class"] for one in means} == {"high", "low"}
    assert len(found.rows) <= 24
    everything = run.explain({name: [row[name] for row in rows] for name in rows[0]})
    for group in means:
        own = [row for row in everything.rows if row["answer"] == group["class"]]
        maps = [row["maps"]["integrated_gradients"]["columns"][0] for row in own]
        x = [part["attribution"] for one in maps for part in one["shown"]["parts"]]
        (said,) = group["columns"][0]["shown"]["parts"]
        assert said["attribution"] == pytest.approx(np.mean(x), rel=1e-3)


def rows_of_test(run: zx.Run) -> list[dict[str, Any]]:
    from zhixing.explain.rows import split_rows

    found = split_rows(run.settings, run.fitted, run.model, "test", Console(quiet=True))
    return [{name: found.cell(name, int(row)) for name in found.table.columns} for row in found.rows]


# What is near, what would flip it ------------------------------------------------------------------------------------


def test_the_nearest_training_row_of_a_training_row_is_itself(run: zx.Run) -> None:
    found = run.explain(part="train", nearest=3, rows=20)
    for row in found.rows:
        first = row["nearest"][0]
        assert first["cosine"] == pytest.approx(1.0, abs=1e-5)
        cosines = [one["cosine"] for one in row["nearest"]]
        assert cosines == sorted(cosines, reverse=True)
        assert row["row"] in [one["row"] for one in row["nearest"] if one["cosine"] > 1 - 1e-5]
        assert first["truth"].keys() == set(run.model.outputs)
        assert "table.json" in first["place"]


def test_nearest_says_when_the_training_data_are_gone(run: zx.Run, table: dict[str, Any]) -> None:
    source = Path(run.settings.data.source)
    hidden = source.with_suffix(".hidden")
    source.rename(hidden)
    try:
        with pytest.raises(DataError, match="nearest training examples need the data"):
            run.explain(some(table), nearest=2)
    finally:
        hidden.rename(source)


def test_a_flip_is_verified_and_small(run: zx.Run, table: dict[str, Any]) -> None:
    found = run.explain(some(table), flips=True)
    first = run.predict(some(table))["label"].to_pylist()
    for i, row in enumerate(found.rows):
        flip = row["flip"]
        assert flip["from"] == first[i] != flip["to"]
        changed = {name: [cells[i]] for name, cells in some(table).items()}
        for one in flip["changes"]:
            changed[one["column"]] = [one["becomes"]]
        assert run.predict(changed)["label"][0].as_py() == flip["to"]
        assert flip["cost"] == pytest.approx(sum(one["cost"] for one in flip["changes"]))


def test_a_flip_of_a_line_is_the_nearest_along_an_axis(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(3, 2, 300), rng.normal(-1, 5, 300)
    label = ["up" if (x - 3) / 2 + (y + 1) / 10 > 0 else "down" for x, y in zip(a, b, strict=True)]
    data = {"a": a.tolist(), "b": b.tolist(), "label": label}
    recipe = {"fusion": {"name": "concat", "widths": []}, "training": {"epochs": 40, "batch_size": 32}}
    run = zx.train(data, target="label", recipe=recipe, lr=0.02, out=tmp_path / "run")
    head: Any = run.model.head("label")
    slope = (head.linear.weight[1] - head.linear.weight[0]).detach().double().numpy()
    offset = float((head.linear.bias[1] - head.linear.bias[0]).detach())
    found = run.explain({name: cells[:8] for name, cells in data.items()}, flips=True)
    for i, row in enumerate(found.rows):
        scaled = [(data[name][i] - run.fitted[name].mean[0]) / run.fitted[name].std[0] for name in "ab"]  # type: ignore[attr-defined]
        nearest = abs(float(slope @ np.array(scaled)) + offset) / np.abs(slope).max()
        assert row["flip"]["cost"] == pytest.approx(nearest, rel=0.02, abs=2e-3)
        assert row["flip"]["cost"] >= nearest - 1e-3


def test_no_flip_is_told_of_and_other_outputs_have_none(run: zx.Run, table: dict[str, Any], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=80).tolist(), "label": ["a", "b"] * 40}
    other = zx.train(data, target="label", epochs=1, out=tmp_path / "run")
    head: Any = other.model.head("label")
    with torch.no_grad():
        head.linear.weight.zero_()
        head.linear.bias.copy_(torch.tensor([1.0, 0.0]))
    assert other.explain({"x": [0.3]}, flips=True).rows[0]["flip"] is None
    with pytest.raises(UsageError, match="no class that could flip"):
        run.explain(some(table), output="price", flips=True)


# The command ---------------------------------------------------------------------------------------------------------


def call(capsys: pytest.CaptureFixture[str], *arguments: Any, status: int = 0) -> tuple[str, str]:
    code: Any = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        code = end.code or 0
    said = capsys.readouterr()
    assert code == status, said.err
    return said


@pytest.fixture(scope="module")
def rows_file(table: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.json"
    cells = some(table, 3)
    path.write_text(json.dumps([dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]))
    return path


def test_the_command_writes_a_page_numbers_and_pictures(
    run: zx.Run, rows_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "why"
    said, _ = call(
        capsys, "explain", run.path, rows_file, "--method", "all", "--nearest", 1, "--flip", "--out", out, "--json"
    )
    told = json.loads(said.splitlines()[-1])
    assert told["explained"] == 3
    assert set(told["skipped"]) == {"attention_rollout", "grad_cam"}
    page = (out / "explanations.html").read_text("utf-8")
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "Nearest training examples" in page
    assert "smallest change" in page
    numbers = json.loads((out / "explanations.json").read_text("utf-8"))
    assert len(numbers["rows"]) == 3
    for path in out.glob("*.png"):
        with Image.open(path) as picture:
            assert np.ptp(np.asarray(picture.convert("L")).astype(int)) > 0
    assert {path.name for path in out.glob("row-0-occlusion-*.png")} == {
        "row-0-occlusion-columns.png", "row-0-occlusion-series.png",
    }  # fmt: skip


def test_without_inputs_it_explains_test_rows_and_the_report_shows_it(
    run: zx.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run.path / "report.html").read_text("utf-8")
    assert "Explanations" not in before
    said, _ = call(capsys, "explain", run.path, "--rows", "30", "--json")
    assert json.loads(said.splitlines()[-1])["explained"] == 30
    after = (run.path / "report.html").read_text("utf-8")
    assert 'id="explanations"' in after
    assert "Mean by predicted class" in after
    assert "<script" not in after
    one = (run.path / "explanations.json").read_bytes()
    call(capsys, "explain", run.path, "--rows", "30", "--json")
    assert (run.path / "explanations.json").read_bytes() == one


def test_predict_explains_what_it_predicts(
    run: zx.Run, rows_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said, _ = call(capsys, "predict", run.path, rows_file, "--explain", tmp_path / "why.json", "--json")
    *answers, summary = map(json.loads, said.splitlines())
    told = json.loads((tmp_path / "why.json").read_text("utf-8"))
    assert [row["answer"] for row in told["rows"]] == [row["label"] for row in answers]
    chances = [row["probability"] for row in told["rows"]]
    np.testing.assert_allclose(chances, [row["label_probability"] for row in answers], atol=1e-4)
    assert summary["explanations"] == [str(tmp_path / "why.json")]
    piped = subprocess.run(
        [sys.executable, "-m", "zhixing", "predict", str(run.path), "-", "--explain", str(tmp_path / "piped.json")],
        input=rows_file.read_bytes(), capture_output=True, check=False,
    )  # fmt: skip
    assert piped.returncode == 0, piped.stderr
    other = json.loads((tmp_path / "piped.json").read_text("utf-8"))
    assert [row["score"] for row in other["rows"]] == [row["score"] for row in told["rows"]]


def test_what_cannot_be_done_is_said_before_any_work(
    run: zx.Run, rows_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, words in (
        (["--method", "gradcam"], "Did you mean 'grad_cam'"),
        (["--method", "attention_rollout"], "needs attention among tokens"),
        (["--out", tmp_path / "a.png"], "Use .html, .json, or a folder"),
        (["--out", tmp_path / "none" / "a.html"], "no such folder"),
        (["--output", "lable"], "Did you mean 'label'"),
        (["--class", "hig"], "Did you mean 'high'"),
        (["--rows", "some"], "a number from 1, or all"),
    ):
        _, told = call(capsys, "explain", run.path, rows_file, *arguments, status=2)
        assert words in told
    _, told = call(capsys, "explain", run.path, "--split", "tset", status=2)
    assert "is not a split" in told


def test_help_is_light() -> None:
    code = "from zhixing.cli import main\ntry: main(['explain', '--help'])\nexcept SystemExit: pass\n"
    code += "import sys; assert not {'torch', 'numpy', 'pyarrow', 'captum'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--nearest" in done.stdout


def test_an_encoder_of_ones_own_without_a_table_says_so(tmp_path: Path) -> None:
    from zhixing.models.encoding import Encoding

    class Counts(torch.nn.Module):
        width = 8

        def forward(self, values: torch.Tensor, mask: torch.Tensor | None = None) -> Encoding:
            pooled = torch.nn.functional.one_hot(values % 8, 8).float().sum(1)
            return Encoding(pooled, pooled.unsqueeze(1))

    data = {"text": ["one two three", "four five six"] * 20, "label": ["a", "b"] * 20}
    recipe = {"inputs": {"text": {"type": "text"}}}
    run = zx.train(data, target="label", recipe=recipe, encoder=Counts(), epochs=1, out=tmp_path / "run")
    with pytest.raises(NotApplicableError, match=r"looks its .* ids up in no table"):
        run.explain({"text": ["one two"]})
