"""The part of the report on one output: its metrics, its mistakes, whether its probabilities can be believed.

Which parts appear follows from which figures are there, not from the type of the output.
"""

from __future__ import annotations

import math
from typing import Any

from .calibration import calibration_part
from .charts import histogram, reliability, scatter
from .files import mapping, number, sequence
from .markup import Html, bar, cut_table, esc, figure, figure_text, join, name, note, picture, scrolling, shorten, table
from .summary import MEANINGS, confused_pairs, weakest

__all__ = ["cards", "output_section"]

GRID_CLASSES = 30  # with more, a confusion matrix cannot be read
GRID_KEY = "Blue: right. Orange: wrong. The deeper, the larger the share of the row (for mistakes, its square root)."
SHOWN_CLASSES = 50
SHOWN_MISTAKES = 24
SHOWN_TEXT = 300


def output_section(title: str, result: dict[str, Any]) -> Html:
    """Everything that was measured of one output."""
    kind = f' <span class="kind">{esc(result["type"])}</span>' if result.get("type") else ""
    beside = Html(f'<div class="beside">{_confusion(result)}{_plots(title, result)}</div>')
    parts = [_metrics(result), beside, calibration_part(title, result), _classes(result), _mistakes(result)]
    parts += [_samples(result), _attention(result)]
    return Html(f'<section class="output"><h3>{name(title, 120)}{kind}</h3>{join(parts)}</section>')


def _metrics(result: dict[str, Any]) -> Html:
    metrics = mapping(result.get("metrics"))
    if not metrics:
        return note("No metrics were written for this output.")
    rows = [(name(key), value, Html(esc(MEANINGS.get(key, "")))) for key, value in metrics.items()]
    return table(("metric", "value", "meaning"), rows, caption="Metrics")


def _plots(title: str, result: dict[str, Any]) -> Html:
    plots = []
    if mapping(result.get("reliability")):
        plots.append(_reliability(title, result))
    if points := mapping(result.get("scatter")):
        truth, prediction = sequence(points.get("truth")), sequence(points.get("prediction"))
        chart = scatter(f"Predictions of {title} against the truth", truth, prediction)
        plots.append(figure("Prediction against truth", chart, text="On the dashed line the prediction is right."))
    if residuals := mapping(result.get("residuals")):
        edges, rows = sequence(residuals.get("edges")), sequence(residuals.get("rows"))
        plots.append(figure("Errors", histogram(f"Errors of {title}", edges, rows, x_label="prediction − truth")))
    return Html(f'<div class="plots">{join(plots)}</div>') if plots else Html("")


def _reliability(title: str, result: dict[str, Any]) -> Html:
    curve, metrics = mapping(result.get("reliability")), mapping(result.get("metrics"))
    confidence, accuracy, rows = (sequence(curve.get(key)) for key in ("confidence", "accuracy", "rows"))
    chart = reliability(f"Reliability diagram of {title}", confidence, accuracy, rows)
    ece = f"ECE {figure_text(metrics['ece'])}. " if "ece" in metrics else ""
    text = "On the diagonal, confidence can be taken at its word; below it, the model is too sure. Dots grow with rows."
    return figure("Reliability", chart, text=ece + text)


def _confusion(result: dict[str, Any]) -> Html:
    matrix = [sequence(row) for row in sequence(result.get("confusion"))]
    if not matrix:
        return Html("")
    if len(matrix) <= GRID_CLASSES:
        return _grid([str(key) for key in sequence(result.get("classes"))], matrix)
    pairs = confused_pairs(result)
    if not pairs:
        return note(f"No class was taken for another, over {len(matrix):,} classes.")
    return table(
        ("truth", "predicted", "rows", "share of the truth's rows"),
        [(truth, prediction, rows, share) for truth, prediction, rows, share in pairs],
        caption=f"Most confused pairs of {len(matrix):,} classes",
    )


def _grid(classes: list[str], matrix: list[list[Any]]) -> Html:
    """The confusion matrix as a table, blue where right and orange where wrong, the deeper the larger the share."""
    width = max(map(len, matrix))
    names = [*classes, *(f"class {index}" for index in range(len(classes), max(width, len(matrix))))]
    steep = ' class="steep"' if max(map(len, names[:width]), default=0) > 3 else ""
    heads = join(Html(f'<th scope="col"><span>{name(key, 20)}</span></th>') for key in names[:width])
    lines = []
    for i, row in enumerate(matrix):
        total = sum(number(count) or 0.0 for count in row)
        cells = join(_square(number(count), total, right=i == j) for j, count in enumerate(row))
        lines.append(Html(f'<tr><th scope="row">{name(names[i], 20)}</th>{cells}</tr>'))
    corner = '<td class="corner">truth ↓<br>predicted →</td>'
    caption = "Confusion matrix, in rows of data"
    grid = f"<thead><tr{steep}>{corner}{heads}</tr></thead><tbody>{join(lines)}</tbody>"
    whole = Html(f'<table class="confusion"><caption>{caption}</caption>{grid}</table>')
    return Html(f"<div>{scrolling(whole, caption)}{note(GRID_KEY)}</div>")


def _square(count: float | None, total: float, *, right: bool) -> Html:
    share = count / total if count and total > 0 else 0.0
    # Mistakes are few where a model is good: the root makes one in a hundred visible.
    depth = share if right else math.sqrt(share)
    colour = "0,114,178" if right else "230,120,0"
    kind = ' class="deep"' if right and depth > 0.85 else ' class="nil"' if not count else ""
    style = f' style="background:rgba({colour},{depth:.2f})"' if depth >= 0.005 else ""
    text = "–" if count is None else f"{count:,.0f}"
    return Html(f"<td{kind}{style}>{text}</td>")


def _classes(result: dict[str, Any]) -> Html:
    lines = weakest(result)
    if not lines:
        return Html("")
    heads = ("class", "F1", "precision", "recall", "rows")
    rows = [
        (
            name(line.get("class"), 60),
            bar(line.get("f1"), 1.0),
            line.get("precision"),
            line.get("recall"),
            line.get("rows"),
        )
        for line in lines
    ]
    return cut_table(heads, rows, limit=SHOWN_CLASSES, what="classes", caption="Classes, weakest first")


def _mistakes(result: dict[str, Any]) -> Html:
    worst = [mapping(row) for row in sequence(result.get("worst"))]
    if not worst:
        return Html("")
    shown = join(_mistake(row) for row in worst[:SHOWN_MISTAKES])
    rest = (
        note(f"{len(worst) - SHOWN_MISTAKES:,} more are in the run's files.")
        if len(worst) > SHOWN_MISTAKES
        else Html("")
    )
    kind = "cards" if "<img" in shown else "cards texts"
    return Html(f'<h4>Worst mistakes</h4><ul class="{kind}">{shown}</ul>{rest}')


def _samples(result: dict[str, Any]) -> Html:
    """What a language model writes after the beginnings of held-out texts."""
    rows = [
        (name(one.get("prompt"), SHOWN_TEXT), name(one.get("text"), SHOWN_TEXT))
        for one in map(mapping, sequence(result.get("samples")))
    ]
    return table(("given", "written"), rows, caption="How the model goes on") if rows else Html("")


def _attention(result: dict[str, Any]) -> Html:
    """Where the model looked in one text as it wrote another: a square for each pair of tokens."""
    looked = mapping(result.get("attention"))
    read, written = (sequence(looked.get(key)) for key in ("read", "written"))
    weights = [sequence(row) for row in sequence(looked.get("weights"))]
    if not weights or len(weights) != len(written):
        return Html("")
    heads = join(Html(f'<th scope="col"><span>{name(token, 20)}</span></th>') for token in read)
    lines = []
    for token, row in zip(written, weights, strict=True):
        shares = [min(max(number(weight) or 0.0, 0.0), 1.0) for weight in row]
        cells = join(Html(f'<td style="background:rgba(0,114,178,{share:.2f})"></td>') for share in shares)
        lines.append(Html(f'<tr><th scope="row">{name(token, 20)}</th>{cells}</tr>'))
    caption = "Attention for one text"
    grid = f'<thead><tr class="steep"><td class="corner">written ↓<br>read →</td>{heads}</tr></thead>'
    whole = Html(f'<table class="confusion"><caption>{caption}</caption>{grid}<tbody>{join(lines)}</tbody></table>')
    told = note("The deeper, the more the last block took from that token of what it read (mean over heads).")
    return Html(f"<div>{scrolling(whole, caption)}{told}</div>")


def _said(value: object) -> Html:
    """A truth or a prediction: a class, a number or the tags of a row."""
    if isinstance(value, list):
        return join((name(tag, 40) for tag in value), ", ") if value else Html('<span class="none">(no tags)</span>')
    return Html(esc(figure_text(value))) if value is None or number(value) is not None else name(value, SHOWN_TEXT)


def _mistake(row: dict[str, Any]) -> Html:
    truth, prediction = _said(row.get("truth")), _said(row.get("prediction"))
    lines = [
        f'<p class="said"><span>truth</span> <b>{truth}</b></p>',
        f'<p class="said"><span>predicted</span> <b class="wrong">{prediction}</b></p>',
    ]
    figures = [f"{key} {figure_text(row[key])}" for key in ("probability", "loss", "error") if row.get(key) is not None]
    place = row.get("place") or (f"row {row['row']}" if "row" in row else "")
    small = f'<p class="note">{esc(", ".join(figures))}</p>' if figures else ""
    small += f'<p class="note">{name(place, 70)}</p>' if place else ""
    return Html(f"<li>{_inputs(mapping(row.get('inputs')), place)}{''.join(lines)}{small}</li>")


def _inputs(inputs: dict[str, Any], place: object) -> Html:
    parts = []
    for column, shown in inputs.items():
        label = Html(f"<span>{name(column, 40)}</span>") if len(inputs) > 1 else Html("")
        parts.append(
            Html(f'<div class="input">{label}{example(shown, f"{shorten(column, 40)} of {shorten(place, 80)}")}</div>')
        )
    return join(parts)


def example(shown: object, alt: str) -> Html:
    """One value as it is shown to a person: a picture or some text, with its label where it has one."""
    if not isinstance(shown, dict):
        return Html(
            f'<p class="text" dir="auto">{name(figure_text(shown) if number(shown) is not None else shown, 300)}</p>'
        )
    parts = []
    if "picture" in shown:
        parts.append(picture(shown["picture"], alt))
    others = [str(value) for key, value in shown.items() if key not in ("picture", "label") and value is not None]
    parts += [Html(f'<p class="text" dir="auto">{name(text, 300)}</p>') for text in others]
    if "label" in shown:
        parts.append(Html(f'<p class="said">{_said(shown["label"])}</p>'))
    return join(parts)


def cards(values: list[Any], alt: str) -> Html:
    """Examples of a column, side by side."""
    shown = join(Html(f"<li>{example(value, f'{alt}, example {index}')}</li>") for index, value in enumerate(values, 1))
    return Html(f'<ul class="{"cards" if "<img" in shown else "cards texts"}">{shown}</ul>')
