"""The report and the model card: everything measured is there, nothing from a file is markup, no case breaks it."""

from __future__ import annotations

import base64
import doctest
import importlib
import io
import json
import math
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_diabetes, load_digits
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from zhixing.errors import RunError
from zhixing.report import write_card, write_report
from zhixing.report.axes import Scale
from zhixing.report.card import BEGIN, END, TO_FILL
from zhixing.report.charts import Line, histogram, line_chart, reliability, scatter, thin
from zhixing.report.files import read_run
from zhixing.report.summary import confused_pairs, findings, interval

RECIPE = """\
data: {source: digits, split: {train: 0.8, test: 0.2, by: stratified}}
inputs:
  image: {type: image, encoder: {name: lenet}}
outputs:
  label: {type: category, loss: cross_entropy}
training:
  epochs: 10
  optimizer: {name: adamw, lr: 0.001}
seed: 7
"""


def data_uri(pixels: np.ndarray) -> str:
    """A grey picture with values in [0, 1] as a PNG data URI."""
    file = io.BytesIO()
    Image.fromarray((255 * np.clip(pixels, 0, 1)).astype(np.uint8)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def category_figures(truth: np.ndarray, probability: np.ndarray, classes: list[str]) -> dict[str, Any]:
    """What an evaluation writes for a category, computed by scikit-learn and numpy."""
    predicted, confidence = probability.argmax(1), probability.max(1)
    labels = range(len(classes))
    p, r, f, n = precision_recall_fscore_support(truth, predicted, labels=labels, zero_division=0)
    bins = np.minimum((confidence * 10).astype(int), 9)
    curve: dict[str, list[Any]] = {"confidence": [], "accuracy": [], "rows": []}
    for b in range(10):
        inside = bins == b
        curve["rows"].append(int(inside.sum()))
        curve["confidence"].append(float(confidence[inside].mean()) if inside.any() else None)
        curve["accuracy"].append(float((predicted == truth)[inside].mean()) if inside.any() else None)
    gaps = [abs(c - a) * w for c, a, w in zip(*curve.values(), strict=True) if c is not None]
    loss = -np.log(np.clip(probability[np.arange(len(truth)), truth], 1e-12, 1))
    return {
        "type": "category",
        "metrics": {
            "accuracy": float((predicted == truth).mean()),
            "macro_f1": float(f.mean()),
            "log_loss": float(loss.mean()),
            "ece": sum(gaps) / len(truth),
        },
        "classes": classes,
        "confusion": confusion_matrix(truth, predicted, labels=labels).tolist(),
        "per_class": [
            {"class": c, "precision": p[i], "recall": r[i], "f1": f[i], "rows": int(n[i])}
            for i, c in enumerate(classes)
        ],
        "reliability": curve,
        "worst": [
            {
                "row": int(i),
                "place": f"digits, row {i}",
                "truth": classes[truth[i]],
                "prediction": classes[predicted[i]],
                "probability": float(confidence[i]),
                "loss": float(loss[i]),
            }
            for i in np.argsort(-loss)[:12]
        ],
    }


def curves(steps: int, output: str, metric: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Lines of metrics.jsonl and timings.jsonl in the shape that a training run gives."""
    noise, lines, timings = np.random.default_rng(0), [], []
    for step in range(10, steps + 1, 10):
        loss = 2.3 * math.exp(-step / (steps / 6)) + 0.02 + 0.03 * float(noise.random())
        epoch, rate = 10 * step / steps, 1e-3 * math.sin(math.pi * step / (steps + 10))
        lines.append({"kind": "train", "step": step, "epoch": epoch, "loss": loss, "lr": rate, "skipped": 0})
        speed = 8000 + 600 * float(noise.standard_normal())
        timings.append({"step": step, "seconds": step * 0.02, "rows_per_second": speed, "waiting": 0.01})
        if step % (steps // 10) == 0:
            loss = 1.5 * math.exp(-step / (steps / 6)) + 0.08 + 0.0004 * (step / steps * 10) ** 2
            metrics = {output: {metric: 1 - loss / 3, "macro_f1": 1 - loss / 2.8}}
            lines.append({"kind": "validation", "step": step, "epoch": epoch, "loss": loss, "metrics": metrics})
    return lines, timings


def write_run(folder: Path, *, recipe: str = RECIPE, **files: Any) -> Path:
    """A run folder. ``metrics`` and ``timings`` are lines, other files one object each."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    for name, content in files.items():
        if isinstance(content, list):
            text = "".join(json.dumps(line) + "\n" for line in content)
            (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
        else:
            (folder / f"{name}.json").write_text(json.dumps(content, ensure_ascii=True), encoding="utf-8")
    return folder


ENVIRONMENT = {
    "versions": {"python": "3.11.7", "torch": "2.13.0", "zhixing": "0.1.0"},
    "hardware": {"cpu": "some processor", "cores": 2, "accelerator": None},
    "precision": "float32: no accelerator",
    "parameters": 61706,
    "seed": 7,
}


def digits_run(folder: Path) -> Path:
    """A run on scikit-learn's real digits, with the figures of a real (linear, under-trained) model."""
    bunch = load_digits()
    pictures, flat, target = bunch.images / 16, bunch.data / 16, bunch.target
    model = LogisticRegression(C=0.3, max_iter=300).fit(flat[:1300], target[:1300])
    classes = [str(digit) for digit in range(10)]
    result = category_figures(target[1300:], model.predict_proba(flat[1300:]), classes)
    for row in result["worst"]:
        row["inputs"] = {"image": {"picture": data_uri(pictures[1300 + row["row"]])}}
    counts = {
        name: {c: int((target[part] == int(c)).sum()) for c in classes}
        for name, part in (("train", slice(0, 1300)), ("test", slice(1300, None)))
    }
    metrics, timings = curves(2000, "label", "accuracy")
    examples = [{"picture": data_uri(pictures[i]), "label": str(target[i])} for i in range(12)]
    problem = {"place": "digits, row 5", "row": 5, "column": "image", "reason": "the picture is empty", "fatal": True}
    data = {
        "source": "digits",
        "rows": 1797,
        "splits": {"train": 1300, "test": 497},
        "problems": {"fatal": 1, "kept": 0, "listed": [problem]},
        "columns": {
            "image": {
                "role": "input",
                "type": "image",
                "reason": "arrays of one fixed shape, 8 x 8",
                "summary": {"height": 8, "width": 8, "mean": 0.3053},
                "examples": examples,
            },
            "label": {
                "role": "output",
                "type": "category",
                "reason": "10 different whole numbers in 1,300 rows",
                "counts": counts,
            },
        },
    }
    evaluation = {"split": "test", "rows": 497, "outputs": {"label": result}}
    return write_run(
        folder, metrics=metrics, timings=timings, environment=ENVIRONMENT, data=data, evaluation=evaluation
    )


def number_and_tags_run(folder: Path) -> Path:
    """Two outputs: real diabetes progression by a real linear model, and tags with texts as inputs."""
    bunch = load_diabetes()
    fitted = LinearRegression().fit(bunch.data[:300], bunch.target[:300])
    truth, said = bunch.target[300:], fitted.predict(bunch.data[300:])
    errors = said - truth
    rows, edges = np.histogram(errors, 16)
    number = {
        "type": "number",
        "metrics": {
            "mae": float(abs(errors).mean()),
            "rmse": float((errors**2).mean() ** 0.5),
            "r2": float(1 - (errors**2).sum() / ((truth - truth.mean()) ** 2).sum()),
        },
        "scatter": {"truth": truth.tolist(), "prediction": said.tolist()},
        "residuals": {"edges": edges.tolist(), "rows": rows.tolist()},
        "worst": [
            {
                "row": int(i),
                "place": f"diabetes, row {i}",
                "truth": float(truth[i]),
                "prediction": float(said[i]),
                "inputs": {"bmi": {"text": f"{bunch.data[300 + i, 2]:.3f}"}, "note": {"text": "腰围偏大，家族史"}},
            }
            for i in np.argsort(-abs(errors))[:5]
        ],
    }
    tags = {
        "type": "tags",
        "metrics": {"micro_f1": 0.81, "macro_f1": 0.64, "subset_accuracy": 0.5, "unheard_of": None},
        "per_class": [
            {"class": "心脏", "precision": 0.9, "recall": 0.7, "f1": 0.7875, "rows": 210},
            {"class": "eye", "precision": None, "recall": 0.0, "f1": None, "rows": 0},
            {"class": "kidney", "precision": 0.5, "recall": 0.3, "f1": 0.375, "rows": 12},
        ],
        "worst": [
            {
                "row": 9,
                "truth": ["eye", "kidney"],
                "prediction": [],
                "loss": 5.25,
                "inputs": {"note": {"text": "A long history of poor sight. " * 12}},
            }
        ],
    }
    values, bounds = np.histogram(bunch.target, 20)
    columns = {
        "bmi": {"role": "input", "type": "number", "reason": "numbers throughout", "summary": {"mean": 0.0}},
        "note": {"role": "input", "type": "text", "reason": "long strings", "examples": [{"text": "שלום עולם, 你好"}]},
        "unused id": {"role": "unused", "type": "", "reason": "different in every row"},
        "progression": {
            "role": "output",
            "type": "number",
            "reason": "numbers with many values",
            "histogram": {"edges": bounds.tolist(), "rows": values.tolist()},
        },
        "organs": {
            "role": "output",
            "type": "tags",
            "reason": "lists",
            "counts": {"train": {"心脏": 900, "eye": 4, "kidney": 60}},
        },
    }
    metrics, timings = curves(300, "progression", "mae")
    for line in timings[15:]:
        line["seconds"] -= 2.5  # resumed: the clock started again
    data = {"source": "diabetes.csv", "rows": 442, "splits": {"train": 300, "test": 142}, "columns": columns}
    evaluation = {"split": "test", "rows": 142, "outputs": {"progression": number, "organs": tags}}
    return write_run(
        folder,
        recipe="outputs: {progression: number, organs: tags}\n",
        metrics=metrics,
        timings=timings,
        environment=ENVIRONMENT,
        data=data,
        evaluation=evaluation,
    )


def many_classes_run(folder: Path, count: int = 100) -> Path:
    """A hundred classes with long and foreign names, predicted by noisy scores."""
    noise = np.random.default_rng(1)
    truth = noise.integers(0, count, 3000)
    scores = noise.standard_normal((3000, count)) + 5 * np.eye(count)[truth]
    scores[truth == 3, 7] += 5  # one class is often taken for another
    probability = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    classes = [f"种类 {i}: " + "a rather long name of a kind of flower " * (i % 3) for i in range(count)]
    result = category_figures(truth, probability, classes)
    for row in result["worst"]:
        row["inputs"] = {"photo": {"picture": data_uri(noise.random((80, 120)))}}
    counts = {"train": {c: 1000 // (i + 1) for i, c in enumerate(classes)}}
    column = {"role": "output", "type": "category", "reason": "few different values", "counts": counts}
    data = {"source": "flowers/", "rows": 3000, "splits": {"train": 2000, "test": 1000}, "columns": {"kind": column}}
    evaluation = {"split": "test", "rows": 3000, "outputs": {"kind": result}}
    metrics, _ = curves(20000, "kind", "accuracy")
    return write_run(folder, recipe="outputs: {kind: category}\n", metrics=metrics, data=data, evaluation=evaluation)


def empty_run(folder: Path) -> Path:
    """A recipe, one logged step, and nothing else."""
    line = {"kind": "train", "step": 1, "epoch": 0.1, "loss": 0.7, "lr": 0.001, "skipped": 0}
    return write_run(folder, recipe="outputs: {y: category}\n", metrics=[line])


def front_matter(card: str) -> dict[str, Any]:
    _, front, _ = card.split("---\n", 2)
    return yaml.safe_load(front)


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "שלום עולם",
    "\u202eabc right to left override",
    "很长的名字" * 80,
    "a" * 400,
    "lone \ud800 surrogate and \x00 control",
    "| pipe\n# heading `code` <!-- owner: to here are kept -->",
    "",
    "&amp; {{ template }} ${x}",
]


def hostile_run(folder: Path) -> Path:
    """Names and texts that try to be markup, everywhere that a name or text can stand."""
    n = len(HOSTILE)
    figures: dict[str, Any] = {
        "type": HOSTILE[0],
        "metrics": {"accuracy": 0.5, HOSTILE[0]: 0.25, HOSTILE[7]: 1.5},
        "classes": HOSTILE,
        "confusion": [[5 if i == j else 1 for j in range(n)] for i in range(n)],
        "per_class": [{"class": c, "precision": 0.5, "recall": 0.5, "f1": 0.5, "rows": 40} for c in HOSTILE],
        "worst": [
            {
                "row": 1,
                "place": HOSTILE[0],
                "truth": HOSTILE[1],
                "prediction": [HOSTILE[0], HOSTILE[4]],
                "inputs": {HOSTILE[0]: {"text": HOSTILE[1]}, "p": {"picture": 'data:image/png;base64,AA" onload="x'}},
            },
            {"inputs": {"p": {"picture": "https://example.org/spy.png"}, "q": {"picture": "data:text/html,<b>"}}},
            {"inputs": {"p": {"picture": "data:image/svg+xml;base64,AAAA"}}},
        ],
    }
    columns: dict[str, Any] = {
        c: {
            "role": "output" if i else "input",
            "type": c,
            "reason": c,
            "summary": {c: c},
            "examples": [{"text": c}, c, 3],
        }
        for i, c in enumerate(HOSTILE)
    }
    columns[HOSTILE[0]]["counts"] = {HOSTILE[0]: dict.fromkeys(HOSTILE, 3)}
    problem = {"place": HOSTILE[0], "row": 1, "column": HOSTILE[1], "reason": HOSTILE[7], "fatal": False}
    data = {"source": HOSTILE[0], "rows": 9, "splits": {HOSTILE[1]: 9}, "columns": columns,
            "problems": {"fatal": 0, "kept": 1, "listed": [problem]}}  # fmt: skip
    metrics = [{"kind": "validation", "step": 1, "epoch": 1, "loss": 1, "metrics": {HOSTILE[0]: {HOSTILE[1]: 0.5}}}]
    return write_run(
        folder,
        recipe=f"# {HOSTILE[0]} {HOSTILE[1]}\ndata: {{source: '<b>'}}\n",
        metrics=metrics,
        environment={HOSTILE[0]: {HOSTILE[1]: HOSTILE[7]}},
        data=data,
        evaluation={"split": HOSTILE[0], "rows": 10, "outputs": dict.fromkeys(HOSTILE[:2], figures)},
    )


RUNS = [digits_run, number_and_tags_run, many_classes_run, empty_run, hostile_run]
VOID = {"meta", "img", "br", "link", "input", "hr"}
KNOWN_TAGS = set(
    re.findall(
        r"\w+",
        """html head meta title style body header nav main section article div p span b i bdi a code pre ul li dl dt dd
        h1 h2 h3 h4 table caption thead tbody tr th td figure figcaption details summary img br
        svg line polyline circle rect text""",
    )
)
ALLOWED = set(
    re.findall(
        r"\S+",
        """class style id scope title alt src href role tabindex lang dir name content charset http-equiv aria-label
        viewbox width height x y cx cy r x1 x2 y1 y2 points text-anchor transform""",
    )
)


class Page(HTMLParser):
    """Reads a page strictly: every tag known, closed in its turn; keeps elements, texts and headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in KNOWN_TAGS, tag
        assert len({key for key, _ in attrs}) == len(attrs), f"an attribute twice: {attrs}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ("line", "polyline", "circle", "rect"), tag
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each kind of run once, with its report and its card written."""
    folder = tmp_path_factory.mktemp("runs")
    runs = {build.__name__: build(folder / build.__name__) for build in RUNS}
    for run in runs.values():
        assert write_report(run) == run / "report.html"
        assert write_card(run) == run / "README.md"
    return runs


every_run = pytest.mark.parametrize("run", [build.__name__ for build in RUNS])


@every_run
def test_page_is_balanced_safe_and_self_contained(pages: dict[str, Path], run: str) -> None:
    page = read(pages[run] / "report.html")
    policy = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert page.all("html") == [{"lang": "en"}]
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    for tag, attributes in page.elements:
        assert set(attributes) <= ALLOWED, (tag, attributes)
        if "style" in attributes:
            assert re.fullmatch(r"width:[\d.]+%|background:rgba\([\d,.]+\)", attributes["style"] or ""), attributes
        if "src" in attributes:
            assert re.fullmatch(r"data:image/(png|jpeg|webp|gif);base64,[A-Za-z0-9+/=]+", attributes["src"] or "")
        if "href" in attributes:
            assert (attributes["href"] or "").lstrip("#") in ids
    style = (pages[run] / "report.html").read_text(encoding="utf-8").partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


@every_run
def test_page_can_be_used_without_seeing_it(pages: dict[str, Path], run: str) -> None:
    page = read(pages[run] / "report.html")
    assert all(attributes.get("scope") in ("row", "col") for attributes in page.all("th"))
    assert all(attributes.get("alt") for attributes in page.all("img"))
    assert all(attributes.get("role") == "img" for attributes in page.all("svg"))
    order = [tag for tag, _ in page.elements]
    assert all(order[i + 1] == "title" for i, tag in enumerate(order) if tag == "svg")
    assert order.count("h1") == 1
    assert all("tabindex" in a and a.get("aria-label") for a in page.all("div") if a.get("class") == "wide")


@every_run
def test_same_files_give_same_bytes_and_nothing_is_left_behind(pages: dict[str, Path], run: str) -> None:
    before = {name: (pages[run] / name).read_bytes() for name in ("report.html", "README.md")}
    names = sorted(path.name for path in pages[run].iterdir())
    write_report(pages[run])
    write_card(pages[run])
    assert {name: (pages[run] / name).read_bytes() for name in before} == before
    assert sorted(path.name for path in pages[run].iterdir()) == names


def test_digits_page_has_every_figure(pages: dict[str, Path]) -> None:
    run = pages["digits_run"]
    page = read(run / "report.html")
    evaluation = json.loads((run / "evaluation.json").read_text())
    figures = evaluation["outputs"]["label"]
    heads = ("What to notice", "Curves Loss", "Results Measured", "Data Source:", "Speed Rows", "Environment", "Recipe")
    body = page.text[page.text.index("What to notice") :]
    places = [body.index(head) for head in heads]
    assert places == sorted(places)
    accuracy = figures["metrics"]["accuracy"]
    assert f"{100 * accuracy:.2f} %" in page.text
    assert all(f"{value:.4f}" in page.text for value in figures["metrics"].values())
    for line in figures["per_class"]:
        assert f"{line['f1']:.4f} {line['precision']:.4f} {line['recall']:.4f} {line['rows']}" in page.text
    rows = [" ".join([str(i), *map(str, row)]) for i, row in enumerate(figures["confusion"])]
    assert all(row in page.text for row in rows)
    assert all(f"{row['loss']:.4f}" in page.text and row["place"] in page.text for row in figures["worst"])
    assert len(page.all("img")) == 12 + len(figures["worst"])
    assert "the picture is empty" in page.text
    assert "10 different whole numbers in 1,300 rows" in page.text
    assert "ECE" in page.text
    assert "name: lenet" in page.text
    assert "Missing from this run" not in page.text


def test_confusion_is_shaded_by_share_of_the_row(pages: dict[str, Path]) -> None:
    run = pages["digits_run"]
    matrix = json.loads((run / "evaluation.json").read_text())["outputs"]["label"]["confusion"]
    page = read(run / "report.html")
    cells = [a.get("style") or "" for a in page.all("td") if "rgba" in (a.get("style") or "")]
    expected = [
        f"background:rgba(0,114,178,{count / sum(row):.2f})"
        if i == j
        else f"background:rgba(230,120,0,{math.sqrt(count / sum(row)):.2f})"
        for i, row in enumerate(matrix)
        for j, count in enumerate(row)
        if count
    ]
    assert cells == expected


def test_other_outputs_have_their_figures(pages: dict[str, Path]) -> None:
    run = pages["number_and_tags_run"]
    page = read(run / "report.html")
    figures = json.loads((run / "evaluation.json").read_text())["outputs"]["progression"]
    assert f"{figures['metrics']['mae']:.2f}" in page.text
    dots = [a for a in page.all("circle") if a.get("class") == "cloud"]
    assert len(dots) == 142
    bars = [a for a in page.all("rect") if a.get("class") == "bar"]
    assert len(bars) == 16 + 20
    assert "kidney 0.3750 0.5000 0.3000 12 心脏 0.7875 0.9000 0.7000 210 eye – – 0 0" in page.text
    assert "(no tags)" in page.text
    assert "שלום עולם, 你好" in page.text
    # The clock started again on resuming, so time is no axis.
    assert "Rows per second by step" in page.text


def test_a_hundred_classes_stay_readable(pages: dict[str, Path]) -> None:
    run = pages["many_classes_run"]
    page = read(run / "report.html")
    assert not any(a.get("class") == "confusion" for a in page.all("table"))
    assert "Most confused pairs of 100 classes" in page.text
    first = page.text.index("Most confused pairs of 100 classes")
    assert page.text[first:].startswith(
        "Most confused pairs of 100 classes truth predicted rows share of the truth's rows 种类 3: 种类 7: a rather"
    )
    assert "50 more classes" in page.text  # per class, 50 shown
    assert "70 more classes" in page.text  # rows of each class, 30 shown
    f1 = [line["f1"] for line in json.loads((run / "evaluation.json").read_text())["outputs"]["kind"]["per_class"]]
    table = page.text[page.text.index("Classes, weakest first") :]
    shown = [float(x) for x in re.findall(r"(\d\.\d{4}) \d\.\d{4} \d\.\d{4} \d+", table)]
    assert shown[:50] == [round(value, 4) for value in sorted(f1)[:50]]
    assert (run / "report.html").stat().st_size < 500_000


def test_empty_run_says_what_is_missing(pages: dict[str, Path]) -> None:
    page = read(pages["empty_run"] / "report.html")
    for name in ("timings.jsonl", "environment.json", "data.json", "evaluation.json"):
        assert name in page.text
    assert "metrics.jsonl:" not in page.text
    assert "nothing was measured" in page.text
    assert "not been evaluated" in page.text


def test_only_a_recipe_is_needed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", recipe="outputs: {y: number}\n")
    assert "metrics.jsonl" in read(write_report(run)).text
    assert "not evaluated" in write_card(run).read_text()


def test_hostile_names_are_shown_as_text(pages: dict[str, Path]) -> None:
    page = read(pages["hostile_run"] / "report.html")
    assert page.all("script") == []
    assert page.all("img") == []  # none of its four pictures is a raster data URI
    assert page.text.count("(picture cannot be shown)") == 8
    assert "<script>alert(1)</script>" in page.text
    assert "\ufffd surrogate and \ufffd control" in page.text
    longest = max(page.texts, key=len)
    assert len(longest) < 1000
    assert any(a.get("title") == "很长的名字" * 80 for a in page.all("bdi"))


ODD = [None, float("nan"), float("inf"), -1e308, 10**400, 0, -1, "text", True, [], {}]


def odd_files(value: Any) -> dict[str, Any]:
    """Every file of a run with one odd value at every place where a figure can stand."""
    lines = [
        {"kind": kind, "step": i, "metrics": {"y": {"accuracy": odd}}}
        | dict.fromkeys(("epoch", "loss", "lr", "skipped"), odd)
        for kind in ("train", "validation")
        for i, odd in enumerate([*ODD, value])
    ]
    result = {
        "type": value,
        "metrics": dict.fromkeys(("accuracy", "ece", "mae", "rmse", "r2"), value),
        "classes": value,
        "confusion": [[value, value]],
        "per_class": [{"class": value, "f1": value}, value],
        "reliability": {"confidence": [value], "accuracy": [value], "rows": [value]},
        "scatter": {"truth": ODD, "prediction": [value] * len(ODD)},
        "residuals": {"edges": ODD, "rows": ODD},
        "worst": [value, {"truth": value, "prediction": value, "loss": value, "inputs": {"a": value}}],
    }
    column = {
        "role": value,
        "type": value,
        "summary": {"a": value},
        "counts": {"train": {"b": value}},
        "histogram": {"edges": [0, value], "rows": [value]},
        "examples": [value],
    }
    problems = {"fatal": value, "kept": value, "listed": [value]}
    columns = {"y": column, "z": value}
    return {
        "metrics": [*lines, {"kind": "train", "step": value, "loss": 1}],
        "timings": [{"step": i} | dict.fromkeys(("seconds", "rows_per_second", "waiting"), value) for i in range(2)],
        "environment": {"parameters": value},
        "data": {"source": value, "rows": value, "splits": {"train": value}, "columns": columns, "problems": problems},
        "evaluation": {"split": value, "rows": value, "outputs": {"y": result, "z": value}},
    }


@pytest.mark.parametrize("value", ODD, ids=[repr(value)[:12] for value in ODD])
def test_odd_values_do_not_break_the_page(tmp_path: Path, value: Any) -> None:
    run = write_run(tmp_path / "r", **odd_files(value))
    read(write_report(run))
    assert_inside_all(run / "report.html")
    front_matter(write_card(run).read_text(encoding="utf-8"))


def test_a_resumed_log_counts_each_step_once_and_a_torn_line_is_left_out(tmp_path: Path) -> None:
    line = {"kind": "train", "step": 1, "epoch": 0.1, "loss": 5.0}
    run = write_run(tmp_path / "r", metrics=[line, {**line, "step": 2, "loss": 4.0}, {**line, "step": 2, "loss": 3.0}])
    with open(run / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"kind": "train", "step": 3, "lo')
    found = read_run(run)
    assert [entry["loss"] for entry in found.training] == [5.0, 3.0]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("data.json", b"{", "data.json"),
        ("data.json", b"[1]", "one JSON object"),
        ("evaluation.json", b"\xff{}", "not UTF-8"),
        ("metrics.jsonl", b'{"kind": "train"}\n{oops}\n{}\n', "metrics.jsonl, line 2"),
        ("recipe.yaml", b"a: [", "recipe.yaml"),
        ("recipe.yaml", b"- 1", "mapping"),
        ("recipe.yaml", b"!!python/object/apply:os.system ['true']", "recipe.yaml"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    run = write_run(tmp_path / "r")
    (run / name).write_bytes(content)
    for write in (write_report, write_card):
        with pytest.raises(RunError, match=told):
            write(run)
    assert not (run / "report.html").exists()
    assert not (run / "README.md").exists()


def test_no_run_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run folder"):
        write_report(tmp_path / "nothing")
    with pytest.raises(RunError, match=r"recipe\.yaml"):
        write_report(tmp_path)


@pytest.mark.parametrize("stage", ["os.fsync", "os.replace"])
def test_a_failed_write_keeps_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    run = empty_run(tmp_path / "r")
    before = write_report(run).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stage, full)
    (run / "metrics.jsonl").unlink()
    with pytest.raises(RunError, match="No space left"):
        write_report(run)
    assert (run / "report.html").read_bytes() == before
    assert sorted(path.name for path in run.iterdir()) == ["recipe.yaml", "report.html"]


def test_reading_runs_no_code(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    command = f"!!python/object/apply:os.mkdir ['{marker}']"
    run = write_run(tmp_path / "r", recipe=f"data: {command}\n")
    with pytest.raises(RunError):
        write_report(run)
    run = empty_run(tmp_path / "s")
    (run / "README.md").write_text(f"---\na: {command}\n---\n{BEGIN}\n{END}\n")
    with pytest.raises(RunError):
        write_card(run)
    assert not marker.exists()


# The charts


def assert_inside(drawing: str) -> ElementTree.Element:
    """Every coordinate of the chart is a finite number and within the view box."""
    root = ElementTree.fromstring(drawing)
    _, _, width, height = map(float, root.attrib["viewBox"].split())

    def within(x: float, y: float) -> None:
        assert -1e-6 <= x <= width + 1e-6, (x, width)
        assert -1e-6 <= y <= height + 1e-6, (y, height)

    for element in root.iter():
        a = element.attrib
        if element.tag == "line":
            within(float(a["x1"]), float(a["y1"]))
            within(float(a["x2"]), float(a["y2"]))
        elif element.tag == "circle":
            radius = float(a["r"])
            within(float(a["cx"]) - radius, float(a["cy"]) - radius)
            within(float(a["cx"]) + radius, float(a["cy"]) + radius)
        elif element.tag == "rect":
            assert float(a["width"]) >= 0
            assert float(a["height"]) >= 0
            within(float(a["x"]), float(a["y"]))
            within(float(a["x"]) + float(a["width"]), float(a["y"]) + float(a["height"]))
        elif element.tag == "text":
            within(float(a["x"]), float(a["y"]))
        elif element.tag == "polyline":
            points = [tuple(map(float, pair.split(","))) for pair in a["points"].split()]
            assert len(points) <= 500
            for x, y in points:
                within(x, y)
    return root


def assert_inside_all(path: Path) -> None:
    for drawing in re.findall(r"<svg.*?</svg>", path.read_text(encoding="utf-8"), re.DOTALL):
        assert_inside(drawing)


@every_run
def test_charts_of_whole_runs_are_inside_their_boxes(pages: dict[str, Path], run: str) -> None:
    assert_inside_all(pages[run] / "report.html")


values = st.one_of(st.none(), st.floats(), st.integers(-(10**20), 10**20), st.floats(-1e-300, 1e-300), st.booleans())
few = settings(max_examples=80, deadline=None)


@few
@given(
    st.lists(st.tuples(values, values), max_size=40),
    st.lists(st.tuples(values, values), max_size=40),
    st.one_of(st.none(), st.booleans()),
    st.one_of(st.none(), st.floats(0, 1e6)),
)
def test_any_lines_stay_inside(a: list[Any], b: list[Any], log: bool | None, epochs: float | None) -> None:
    lines = [Line("a", [x for x, _ in a], [y for _, y in a]), Line("b", [x for x, _ in b], [y for _, y in b], "b")]
    assert_inside(line_chart("t", lines, x_label="x", y_label="y", log=log, epochs=epochs))


@few
@given(st.lists(st.floats(1e-29, 1e140), min_size=1, max_size=30))
def test_any_logarithmic_line_stays_inside(y: list[float]) -> None:
    root = assert_inside(line_chart("t", [Line("a", range(len(y)), y)], x_label="x", y_label="y", log=True))
    assert any("(log)" in (text.text or "") for text in root.iter("text"))


@few
@given(st.lists(values, max_size=30), st.lists(values, max_size=30))
def test_any_points_bars_and_bins_stay_inside(a: list[Any], b: list[Any]) -> None:
    assert_inside(scatter("t", a, b))
    assert_inside(histogram("t", a, b, x_label="x"))
    assert_inside(histogram("t", sorted({x for x in a if isinstance(x, float) and math.isfinite(x)}), b, x_label="x"))
    assert_inside(reliability("t", a, b, a))


@few
@given(st.floats(-1e12, 1e12), st.floats(1e-6, 1e12), st.integers(3, 8))
def test_ticks_are_round_and_told_apart(low: float, width: float, count: int) -> None:
    scale = Scale.around([low, low + width], 0, 100)
    found, slack = scale.ticks(count), 1e-6 * (scale.high - scale.low)
    assert 1 <= len(found) <= 2 * count + 2
    assert all(scale.low - slack <= value <= scale.high + slack for value, _ in found)
    assert len({label for _, label in found}) == len(found)
    if len(found) > 1:
        step = found[1][0] - found[0][0]
        assert f"{step:.0e}"[0] in "125"


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0, 1, ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0, 30000, ["0", "5000", "10k", "15k", "20k", "25k", "30k"]),
        (-0.3, 0.3, ["-0.3", "-0.2", "-0.1", "0", "0.1", "0.2", "0.3"]),
        (1e6, 3e6, ["1.0M", "1.5M", "2.0M", "2.5M", "3.0M"]),
        (0, 2e-5, ["0", "5e-6", "1e-5", "1.5e-5", "2e-5"]),
    ],
)
def test_labels_of_ticks(low: float, high: float, labels: list[str]) -> None:
    assert [label for _, label in Scale(low, high, 0, 1).ticks()] == labels


def test_a_loss_over_many_magnitudes_is_logarithmic() -> None:
    steps = list(range(1, 50))
    wide = line_chart("t", [Line("a", steps, [10 ** (-s / 4) for s in steps])], x_label="step", y_label="loss")
    narrow = line_chart("t", [Line("a", steps, [1.0 / s for s in steps])], x_label="step", y_label="loss")
    assert "loss (log)" in wide
    assert "(log)" not in narrow
    zero = line_chart(
        "t", [Line("a", steps, [*(10 ** (-s / 4) for s in steps[1:]), 0.0])], x_label="step", y_label="loss"
    )
    assert "loss (log; 0 at the foot)" in zero
    assert "(log" not in line_chart("t", [Line("a", [1, 2, 3], [100, 0.1, -1])], x_label="step", y_label="loss")


def test_a_scale_is_the_affine_map_it_says() -> None:
    scale = Scale(10, 20, 100, 300)
    assert [scale(v) for v in (10, 15, 20, 5, 25)] == [100, 200, 300, 100, 300]
    log = Scale(1, 100, 0, 2, log=True)
    assert [log(v) for v in (1, 10, 100, -3)] == pytest.approx([0, 1, 2, 0])


@few
@given(st.integers(501, 3000), st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_thinning_keeps_ends_extremes_and_order(count: int, seed: int, digits: int) -> None:
    y = np.random.default_rng(seed).standard_normal(count).round(digits).tolist()
    points = [(float(i), value) for i, value in enumerate(y)]
    kept = thin(points)
    assert len(kept) <= 500
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    assert min(b for _, b in kept) == min(y)
    assert max(b for _, b in kept) == max(y)
    assert kept == sorted(set(kept))
    assert set(kept) <= set(points)


@pytest.mark.parametrize("y", [[8000.0, 9000.0], [0.0, 0.0], [0.01], [-1.0, 2.0]])
def test_an_axis_from_zero(y: list[float]) -> None:
    root = assert_inside(line_chart("t", [Line("a", range(len(y)), y)], x_label="", y_label="", log=False, zero=True))
    ticks = [
        float((text.text or "").replace("k", "e3")) for text in root.iter("text") if text.get("text-anchor") == "end"
    ]
    assert 0 in ticks
    assert min(ticks) >= min(0.0, *y)


def test_a_missing_value_breaks_the_line() -> None:
    y = [1.0, 2.0, None, 3.0, 4.0, math.nan, 5.0]
    root = assert_inside(line_chart("t", [Line("a", range(7), y)], x_label="x", y_label="y"))
    assert [len(line.attrib["points"].split()) for line in root.iter("polyline")] == [2, 2]
    assert len(list(root.iter("circle"))) == 1


# What the figures come to


@pytest.mark.parametrize(
    ("share", "rows", "low", "high"),
    # From the closed form of Wilson (1927) in Brown, Cai, DasGupta (2001), by hand to four places.
    [(0.0, 10, 0.0, 0.2775), (0.5, 100, 0.4038, 0.5962), (0.9, 10000, 0.8940, 0.9057)],
)
def test_interval(share: float, rows: int, low: float, high: float) -> None:
    assert interval(share, rows) == pytest.approx((low, high), abs=1e-4)


def test_findings_follow_from_the_figures(pages: dict[str, Path]) -> None:
    digits = findings(read_run(pages["digits_run"]))
    figures = json.loads((pages["digits_run"] / "evaluation.json").read_text())["outputs"]["label"]
    weakest = min(figures["per_class"], key=lambda line: line["f1"])["class"]
    assert any(text.startswith(f"label: weakest classes by F1: {weakest} (") for text in digits)
    pairs = confused_pairs(figures)
    matrix = np.array(figures["confusion"])
    np.fill_diagonal(matrix, 0)
    assert pairs[0][2] == matrix.max()
    assert sum(rows for _, _, rows, _ in confused_pairs(figures, 100)) == matrix.sum()
    assert any("not sure enough" in text for text in digits)
    others = findings(read_run(pages["number_and_tags_run"]))
    assert "organs: the training rows are uneven: 900 of 心脏, 4 of eye." in others
    assert any("fewer than 30 rows: 2" in text for text in others)


def test_overfitting_and_a_useless_regression_are_told(tmp_path: Path) -> None:
    losses = [1.0, 0.5, 0.9]
    metrics = [
        {"kind": "validation", "step": i, "epoch": i, "loss": loss, "metrics": {}} for i, loss in enumerate(losses)
    ]
    result = {"type": "number", "metrics": {"mae": 1.0, "rmse": 5.0, "r2": -0.2}}
    run = write_run(tmp_path / "r", metrics=metrics, evaluation={"split": "test", "rows": 5, "outputs": {"y": result}})
    found = " ".join(findings(read_run(run)))
    assert "lowest at step 1 (0.5000) and ended at 0.9000" in found
    assert "no better than predicting the mean" in found
    assert "a few large errors dominate" in found


# The card


def test_card_front_matter(pages: dict[str, Path]) -> None:
    run = pages["digits_run"]
    front = front_matter((run / "README.md").read_text(encoding="utf-8"))
    assert front["library_name"] == "zhixing"
    assert front["tags"] == ["zhixing", "image", "category"]
    assert front["pipeline_tag"] == "image-classification"
    assert "license" not in front
    (entry,) = front["model-index"]
    (result,) = entry["results"]
    assert result["task"] == {"type": "image-classification"}
    assert result["dataset"] == {"name": "digits", "type": "digits", "split": "test"}
    metrics = json.loads((run / "evaluation.json").read_text())["outputs"]["label"]["metrics"]
    assert {metric["type"]: metric["value"] for metric in result["metrics"]} == metrics


@every_run
def test_card_has_every_section_and_no_markup_of_others(pages: dict[str, Path], run: str) -> None:
    text = (pages[run] / "README.md").read_text(encoding="utf-8")
    heads = ["Intended use", "Data", "Training", "Results", "Limitations", "Environment", "How to use"]
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == heads
    body = text.split("---\n", 2)[2]
    assert set(re.findall(r"<[^>]*>", body)) == {BEGIN, END}
    assert f"zhixing predict {pages[run]} new.csv" in body
    front_matter(text)
    for table in re.findall(r"(?:^\|.*\n)+", body, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table


def test_card_quotes_the_folder_for_the_shell(tmp_path: Path) -> None:
    run = empty_run(tmp_path / "my run; rm -rf `x`")
    line = next(line for line in write_card(run).read_text().splitlines() if line.startswith("zhixing predict"))
    assert shlex.split(line) == ["zhixing", "predict", str(run), "new.csv"]


def test_the_owners_words_survive(tmp_path: Path) -> None:
    run = digits_run(tmp_path / "r")
    card = write_card(run)
    text = card.read_text(encoding="utf-8")
    text = text.replace(TO_FILL, "For reading post codes.\n\n## And a heading, <b>bold</b>")
    text = text.replace("library_name: zhixing\n", "library_name: zhixing\nlicense: mit\n").replace(
        "- zhixing\n", "- zhixing\n- 邮编\n"
    )
    card.write_text(text, encoding="utf-8")
    (run / "evaluation.json").unlink()
    again = write_card(run).read_text(encoding="utf-8")
    assert "For reading post codes.\n\n## And a heading, <b>bold</b>" in again
    assert front_matter(again)["license"] == "mit"
    assert "邮编" in front_matter(again)["tags"]
    assert "model-index" not in front_matter(again)  # measured anew: there is nothing now
    assert write_card(run).read_text(encoding="utf-8") == again


@pytest.mark.parametrize("text", ["# My own notes\n", "---\na: [\n---\n", "---\nlicense: mit\n---\nno marks\n"])
def test_a_foreign_readme_is_not_overwritten(tmp_path: Path, text: str) -> None:
    run = empty_run(tmp_path / "r")
    (run / "README.md").write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match=r"README\.md"):
        write_card(run)
    assert (run / "README.md").read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("recipe", "tag"),
    [
        ("inputs: {t: {type: text}}\noutputs: {y: {type: category}}", "text-classification"),
        ("inputs: {a: number, b: category}\noutputs: {y: number}", "tabular-regression"),
        ("inputs: {s: series}\noutputs: {y: number}", "time-series-forecasting"),
        ("outputs: {t: text}", "text-generation"),
        ("inputs: {a: image, b: text}\noutputs: {y: category}", None),
        ("inputs: {a: image}\noutputs: {y: category, z: number}", None),
    ],
)
def test_pipeline_tag(tmp_path: Path, recipe: str, tag: str | None) -> None:
    card = write_card(write_run(tmp_path / "r", recipe=recipe)).read_text(encoding="utf-8")
    assert front_matter(card).get("pipeline_tag") == tag


@pytest.mark.parametrize("module", ["files", "markup", "charts", "axes", "curves", "summary", "card"])
def test_examples_in_docstrings(module: str) -> None:
    assert doctest.testmod(importlib.import_module(f"zhixing.report.{module}")).failed == 0
