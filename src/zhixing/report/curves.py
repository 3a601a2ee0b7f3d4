"""The parts of the report on the course of training: losses, learning rate, validation metrics, speed."""

from __future__ import annotations

from typing import Any

from .charts import Line, line_chart
from .files import RunFiles, mapping, number
from .markup import Html, figure, figure_text, join, note

__all__ = ["curves_section", "speed_section"]


def _column(lines: list[dict[str, Any]], key: str) -> list[Any]:
    return [line.get(key) for line in lines]


def curves_section(run: RunFiles) -> Html:
    training, validation = run.training, run.validation
    if not training and not validation:
        return note("No losses were logged.")
    log = [*training, *validation]
    last = max(log, key=lambda line: number(line.get("step")) or 0.0)
    epochs = number(last.get("epoch"))
    lines = [
        Line("training", _column(training, "step"), _column(training, "loss"), "a"),
        Line("validation", _column(validation, "step"), _column(validation, "loss"), "b"),
    ]
    lines = [line for line in lines if line.x]
    plots = [
        figure(
            "Loss", line_chart("Loss by step", lines, x_label="step", y_label="loss", epochs=epochs), text=_best(run)
        )
    ]
    if any("lr" in line for line in training):
        rate = Line("learning rate", _column(training, "step"), _column(training, "lr"))
        plots.append(
            figure(
                "Learning rate", line_chart("Learning rate by step", [rate], x_label="step", y_label="rate", log=False)
            )
        )
    for output, metric in _validated(run):
        values = [mapping(mapping(line.get("metrics")).get(output)).get(metric) for line in validation]
        one = Line(metric, _column(validation, "step"), values, "b")
        title = f"{output}: {metric.replace('_', ' ')}"
        plots.append(
            figure(title, line_chart(f"{title} on validation rows by step", [one], x_label="step", y_label=metric))
        )
    return Html(f'<div class="plots">{join(plots)}</div>')


def _best(run: RunFiles) -> str:
    losses = [(loss, line) for line in run.validation if (loss := number(line.get("loss"))) is not None]
    if not losses:
        return ""
    best, line = min(losses, key=lambda pair: pair[0])
    epoch = number(line.get("epoch"))
    where = f"step {figure_text(int(line['step']))}" + (f" (epoch {epoch:.3g})" if epoch is not None else "")
    return f"Validation loss: lowest {figure_text(best)} at {where}, last {figure_text(losses[-1][0])}."


def _validated(run: RunFiles) -> list[tuple[str, str]]:
    """Every (output, metric) that was measured in validation, in the order of first appearance."""
    seen: dict[tuple[str, str], None] = {}
    for line in run.validation:
        for output, metrics in mapping(line.get("metrics")).items():
            seen.update(dict.fromkeys((output, metric) for metric in mapping(metrics)))
    return list(seen)


def speed_section(run: RunFiles) -> Html:
    if not run.timings:
        return note("No timings were logged.")
    seconds = [number(line.get("seconds")) for line in run.timings]
    known = [value for value in seconds if value is not None]
    # The clock starts again when a run is resumed; steps always grow.
    clock = len(known) == len(seconds) and known == sorted(known)
    x = seconds if clock else _column(run.timings, "step")
    label = "seconds since the start" if clock else "step"
    plots = []
    for key, title, unit in (
        ("rows_per_second", "Rows per second", "rows/s"),
        ("waiting", "Waiting for data", "share of time"),
        ("padding", "Padding in batches", "share of steps"),
    ):
        if key == "padding" and not any(key in line for line in run.timings):
            continue
        values = [number(line.get(key)) for line in run.timings]
        found = sorted(value for value in values if value is not None)
        text = f"Median {figure_text(found[len(found) // 2])}." if found else ""
        chart = line_chart(
            f"{title} by {label}", [Line(title, x, values)], x_label=label, y_label=unit, log=False, zero=True
        )
        plots.append(figure(title, chart, text=text))
    return Html(f'<div class="plots">{join(plots)}</div>')
