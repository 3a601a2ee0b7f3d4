"""The part of the report on the data: splits, columns and why they are what they are, classes, examples, problems."""

from __future__ import annotations

from typing import Any

from .charts import histogram
from .files import RunFiles, flatten, mapping, number, sequence
from .markup import Html, bar, cut_table, esc, figure, figure_text, join, name, note, table
from .results import cards

__all__ = ["data_section"]

OPEN_COLUMNS = 8  # with more columns than this, each folds away
SHOWN_COLUMNS = 200
SHOWN_PROBLEMS = 20
SHOWN_COUNTS = 30
SHOWN_EXAMPLES = 24


def data_section(run: RunFiles) -> Html:
    if not run.data:
        return note("What the data looked like was not written.")
    splits = mapping(run.data.get("splits"))
    total = sum(number(rows) or 0.0 for rows in splits.values())
    parts = [Html(f"<p>Source: {name(run.data.get('source') or 'not told', 200)}</p>")]
    if splits:
        parts.append(
            table(("split", "rows"), [(name(key), bar(rows, total)) for key, rows in splits.items()], caption="Splits")
        )
    columns = mapping(run.data.get("columns"))
    rows = [
        (name(key, 80), *(str(mapping(column).get(part) or "–") for part in ("role", "type", "reason")))
        for key, column in columns.items()
    ]
    if rows:
        parts.append(
            cut_table(("column", "role", "type", "why this type"), rows, limit=50, what="columns", caption="Columns")
        )
    folded = len(columns) > OPEN_COLUMNS
    parts += [_column_section(key, mapping(column), folded) for key, column in list(columns.items())[:SHOWN_COLUMNS]]
    parts.append(_problems(mapping(run.data.get("problems"))))
    return join(parts)


def _column_section(key: str, column: dict[str, Any], folded: bool) -> Html:
    """What one column holds; nothing where there is nothing to tell."""
    parts = []
    summary = flatten(mapping(column.get("summary")))
    if summary:
        told = join(
            Html(f"<div><dt>{name(fact, 40)}</dt><dd>{_fact(value)}</dd></div>") for fact, value in summary.items()
        )
        parts.append(Html(f'<dl class="facts">{told}</dl>'))
    if bins := mapping(column.get("histogram")):
        drawn = histogram(f"Values of {key}", sequence(bins.get("edges")), sequence(bins.get("rows")), x_label="value")
        parts.append(Html(f'<div class="plots">{figure("Values", drawn)}</div>'))
    if counts := mapping(column.get("counts")):
        parts.append(_counts(counts))
    if examples := sequence(column.get("examples")):
        parts.append(cards(examples[:SHOWN_EXAMPLES], f"column {key[:40]}"))
    if not parts:
        return Html("")
    if folded:
        return Html(f'<details class="column"><summary>{name(key, 80)}</summary>{join(parts)}</details>')
    return Html(f'<section class="column"><h3>{name(key, 120)}</h3>{join(parts)}</section>')


def _fact(value: object) -> Html:
    return esc(figure_text(value)) if value is None or number(value) is not None else name(value, 200)


def _counts(counts: dict[str, Any]) -> Html:
    """Rows of each class in each split, the first split as bars."""
    splits = {key: mapping(value) for key, value in counts.items()}
    classes = list(dict.fromkeys(key for split in splits.values() for key in split))
    first = next(iter(splits.values()))
    largest = max((number(rows) or 0.0 for rows in first.values()), default=0.0)
    if len(classes) > SHOWN_COUNTS:
        classes.sort(key=lambda key: -(number(first.get(key)) or 0.0))
    others = list(splits.values())[1:]
    rows = [
        (name(key, 80), bar(first.get(key, 0), largest), *(split.get(key, 0) for split in others)) for key in classes
    ]
    return cut_table(("class", *splits), rows, limit=SHOWN_COUNTS, what="classes", caption="Rows of each class")


def _problems(problems: dict[str, Any]) -> Html:
    fatal, kept = (number(problems.get(key)) or 0.0 for key in ("fatal", "kept"))
    if not problems:
        return Html("")
    told = f"Rows left out because they cannot be used: {fatal:,.0f}. Kept as they are: {kept:,.0f}."
    listed = [mapping(problem) for problem in sequence(problems.get("listed"))]
    rows = [
        (
            name(p.get("place") or "", 120),
            p.get("row"),
            str(p.get("column") or ""),
            str(p.get("reason") or ""),
            "left out" if p.get("fatal") else "kept",
        )
        for p in listed
    ]
    heads = ("place", "row", "column", "reason", "the row was")
    shown = cut_table(heads, rows, limit=SHOWN_PROBLEMS, what="problems", caption="Problems listed") if rows else ""
    return Html(f"<h3>Problems</h3><p>{told}</p>{shown}")
