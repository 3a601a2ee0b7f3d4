"""The model card: ``README.md`` in the form that the Hugging Face hub reads.

What the owner writes stays: the text between the two owner marks, and entries of the front matter that are not
measured here, like ``license``, are carried over when the card is written again.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ..errors import RunError
from .files import RunFiles, flatten, mapping, number, read_run, sequence, write_atomically
from .markup import clean, figure_text, shorten
from .summary import MEANINGS, findings, headlines, weakest

__all__ = ["write_card"]

BEGIN, END = "<!-- owner: your words from here -->", "<!-- owner: to here are kept -->"
TO_FILL = """\
**To be filled in by the owner of this model:** for what and for whom it is meant, what it must not be used for, and
what a wrong answer costs. The figures below do not answer that."""
MEASURED = ("library_name", "pipeline_tag", "model-index")
FEW = 10  # classes in the card; the report has all
PIPELINES = {
    ("image", "category"): "image-classification",
    ("image", "tags"): "image-classification",
    ("text", "category"): "text-classification",
    ("text", "tags"): "text-classification",
    ("audio", "category"): "audio-classification",
    ("audio", "text"): "automatic-speech-recognition",
    ("image", "text"): "image-to-text",
    ("", "text"): "text-generation",
    ("series", "number"): "time-series-forecasting",
    ("table", "category"): "tabular-classification",
    ("table", "number"): "tabular-regression",
}


def write_card(run: Path) -> Path:
    """Write ``README.md``, the model card, into a run folder and return its path.

    Raises:
        RunError: the folder or its recipe is missing, a file is damaged, the card cannot be written, or there is a
            ``README.md`` that is no card of this kind and would be lost.
    """
    found = read_run(run)
    kept, words = _owners(run / "README.md")
    measured = _front(found)
    measured["tags"] += [tag for tag in sequence(kept.pop("tags", [])) if tag not in measured["tags"]]
    front = yaml.safe_dump({**measured, **kept}, allow_unicode=True, sort_keys=False, width=1000)
    body = "\n\n".join(part for part in _body(found, words) if part)
    return write_atomically(run / "README.md", f"---\n{front}---\n\n{body}\n")


def _owners(path: Path) -> tuple[dict[str, Any], str]:
    """What the owner added to a card written before: entries of the front matter, and the words between the marks."""
    if not path.exists():
        return {}, TO_FILL
    try:
        text = path.read_text(encoding="utf-8")
        match = re.match(r"---\n(.*?\n)---\n", text, re.DOTALL)
        front = yaml.safe_load(match[1]) if match else None
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise RunError(
            f"the model card there cannot be read ({reason})",
            place=path,
            mend="Mend its front matter, or move it away to have a new one.",
        ) from error
    _, begin, rest = text[match.end() if match else 0 :].partition(BEGIN)
    words, end, _ = rest.partition(END)
    if not isinstance(front, dict) or not (begin and end):
        raise RunError(
            "the file there is not a card that was written here, and would be lost",
            place=path,
            mend="Move it away to have a new one.",
        )
    return {key: value for key, value in front.items() if key not in MEASURED}, words.strip()


def _front(run: RunFiles) -> dict[str, Any]:
    inputs, outputs = run.columns("input"), run.columns("output")
    kinds = dict.fromkeys([*inputs.values(), *outputs.values()])
    tags = ["zhixing", *(kind for kind in kinds if re.fullmatch(r"[a-z][a-z0-9_-]*", kind))]
    front: dict[str, Any] = {"library_name": "zhixing", "tags": tags}
    pipeline = _pipeline(inputs, outputs)
    if pipeline:
        front["pipeline_tag"] = pipeline
    metrics = [
        {"type": clean(metric), "name": shorten(f"{metric} of {output}", 100), "value": value}
        for output, result in mapping(run.evaluation.get("outputs")).items()
        for metric, value in mapping(mapping(result).get("metrics")).items()
        if number(value) is not None
    ]
    if metrics:
        source = _source(run)
        slug = re.sub(r"[^\w.-]+", "-", source).strip("-") or "unknown"
        dataset = {"name": source, "type": slug, "split": clean(run.evaluation.get("split") or "unnamed")}
        result = {"task": {"type": pipeline or "other"}, "dataset": dataset, "metrics": metrics}
        front["model-index"] = [{"name": clean(run.name), "results": [result]}]
    return front


def _pipeline(inputs: dict[str, str], outputs: dict[str, str]) -> str | None:
    """The hub's name of the task, where one output and inputs of one kind make it plain."""
    kinds = set(inputs.values()) or {""}
    if kinds <= {"number", "category", "tags"}:
        kinds = {"table"}
    if len(outputs) != 1 or len(kinds) != 1:
        return None
    return PIPELINES.get((kinds.pop(), next(iter(outputs.values()))))


def _source(run: RunFiles) -> str:
    return shorten(run.data.get("source") or mapping(run.recipe.get("data")).get("source") or "unknown", 200)


def _body(run: RunFiles, words: str) -> list[str]:
    return [
        f"# {plain(run.name)}",
        _what(run),
        f"## Intended use\n\n{BEGIN}\n{words}\n{END}",
        f"## Data\n\n{_data(run)}",
        f"## Training\n\n{_training(run)}",
        f"## Results\n\n{_results(run)}",
        f"## Limitations\n\n{_limitations(run)}",
        f"## Environment\n\n{_environment(run)}",
        f"## How to use\n\n{_usage(run)}",
    ]


def plain(text: object, limit: int = 120) -> str:
    """A text of a user's as one line of Markdown that is nothing but text.

    >>> plain("a|b <i>*x*")
    'a&#124;b &lt;i&gt;\\\\*x\\\\*'
    """
    line = re.sub(r"([\\`*_{}\[\]#~!$])", r"\\\1", shorten(text, limit))
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "&#124;")


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _columns(columns: dict[str, str]) -> str:
    listed = [f"{plain(key, 60)} ({plain(kind)})" if kind else plain(key, 60) for key, kind in columns.items()]
    more = [f"{len(listed) - 20} more"] if len(listed) > 20 else []
    return ", ".join(listed[:20] + more) or "nothing"


def _what(run: RunFiles) -> str:
    lines = [
        f"A model that gives {_columns(run.columns('output'))} from {_columns(run.columns('input'))}, "
        "trained with Zhixing."
    ]
    parameters = number(run.environment.get("parameters"))
    if parameters is not None:
        lines.append(f"It has {parameters:,.0f} parameters.")
    lines = [" ".join(lines)]
    for line in headlines(run):
        if line.metric:
            likely = f" ({line.likely})" if line.likely else ""
            measured = f"{plain(line.metric)} **{line.figure}**{likely}, {plain(line.where)}"
            lines.append(f"- {plain(line.output)}: {measured}")
    return "\n\n".join([lines[0], "\n".join(lines[1:])]).strip()


def _data(run: RunFiles) -> str:
    lines = [f"Source: {plain(_source(run), 200)}."]
    splits = mapping(run.data.get("splits"))
    if splits:
        lines.append(_table(("split", "rows"), [(plain(key), figure_text(rows)) for key, rows in splits.items()]))
    columns = [
        tuple(plain(part) for part in (key, mapping(column).get("role") or "", mapping(column).get("type") or ""))
        for key, column in list(mapping(run.data.get("columns")).items())[:50]
    ]
    if columns:
        lines.append(_table(("column", "role", "type"), columns))
    if not run.data:
        lines.append("What the data looked like was not written.")
    return "\n\n".join(lines)


def _training(run: RunFiles) -> str:
    """The settings that a reader asks for first; the recipe holds all of them."""
    settings = flatten({key: run.recipe[key] for key in ("inputs", "fusion", "training", "seed") if key in run.recipe})
    rows = [(f"{plain(key)}", plain(value)) for key, value in settings.items()]
    last = max((number(line.get("step")) or 0.0 for line in [*run.training, *run.validation]), default=None)
    lines = [f"Trained for {last:,.0f} steps." if last is not None else "No losses were logged."]
    if rows:
        lines.append(_table(("setting", "value"), rows[:60]))
    lines.append("All settings are in `recipe.yaml`; the curves are in `report.html`.")
    return "\n\n".join(lines)


def _results(run: RunFiles) -> str:
    outputs = mapping(run.evaluation.get("outputs"))
    if not outputs:
        return "The model was not evaluated on rows kept apart for that."
    rows, split = figure_text(run.evaluation.get("rows")), plain(run.evaluation.get("split") or "unnamed")
    parts = [f"Measured on {rows} rows of the {split} split."]
    for output, result in outputs.items():
        metrics = mapping(mapping(result).get("metrics"))
        measured = [(plain(key), figure_text(value), MEANINGS.get(key, "")) for key, value in metrics.items()]
        parts += [f"### {plain(output)}", _table(("metric", "value", "meaning"), measured)]
        classes = weakest(mapping(result))
        if classes:
            keys = ("f1", "precision", "recall", "rows")
            lines = [
                (plain(line.get("class"), 80), *(figure_text(line.get(key)) for key in keys)) for line in classes[:FEW]
            ]
            parts += [f"The weakest {len(lines)} of {len(classes):,} classes:", _table(("class", *keys), lines)]
    return "\n\n".join(parts)


def _limitations(run: RunFiles) -> str:
    listed = "\n".join(f"- {plain(text, 1000)}" for text in findings(run))
    scope = "Rows unlike those it was trained on may be answered wrongly, and with confidence."
    return f"{listed}\n- {scope}" if listed else f"- {scope}"


def _environment(run: RunFiles) -> str:
    rows = [
        (plain(key), plain("–" if value is None else value, 200)) for key, value in flatten(run.environment).items()
    ]
    return _table(("what", "value"), rows) if rows else "Versions and hardware were not written."


def _usage(run: RunFiles) -> str:
    folder = shlex.quote(clean(run.folder))
    inputs = run.columns("input")
    lines = [f"zhixing predict {folder} new.csv", f"zhixing evaluate {folder}", f"zhixing report {folder}"]
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", folder)), default=0))
    head = f"`new.csv` stands for any table with these columns: {_columns(inputs)}." if inputs else ""
    return f"{head}\n\n{fence}bash\n" + "\n".join(lines) + f"\n{fence}"
