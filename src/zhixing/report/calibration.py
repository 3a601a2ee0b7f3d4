"""The part of the report on whether an output's probabilities, sets and intervals can be believed."""

from __future__ import annotations

from typing import Any

from .charts import reliability
from .files import mapping, sequence
from .markup import Html, figure, figure_text, join, note, table

__all__ = ["calibration_part"]


def calibration_part(title: str, result: dict[str, Any]) -> Html:
    """What was fitted on validation rows, and what it came to on the rows that were measured; else nothing."""
    told = mapping(result.get("calibration"))
    if not told:
        return Html("")
    parts = [Html("<h4>Calibration</h4>"), note(said(told))]
    if "ece_before" in told:
        lines = [
            ("expected calibration error", told.get("ece_before"), told.get("ece_after")),
            ("log loss", told.get("log_loss_before"), told.get("log_loss_after")),
        ]
        parts.append(table(("figure", "before", "after"), lines, caption="Before and after temperature scaling"))
    if curve := mapping(told.get("reliability_before")):
        confidence, accuracy, rows = (sequence(curve.get(key)) for key in ("confidence", "accuracy", "rows"))
        chart = reliability(f"Reliability diagram of {title} before calibration", confidence, accuracy, rows)
        parts.append(figure("Reliability before calibration", chart))
    asked = figure_text(told.get("asked"))
    if sets := mapping(told.get("sets")):
        rows_of = [
            (name, one.get("coverage"), one.get("mean_size"), one.get("empty"))
            for name, one in ((name, mapping(one)) for name, one in sets.items())
        ]
        heads = ("sets", "hold the truth", "mean size", "share of empty ones")
        parts.append(table(heads, rows_of, caption=f"Sets of classes, asked to hold {asked} of all truths"))
    if intervals := mapping(told.get("intervals")):
        line = ("intervals", intervals.get("coverage"), intervals.get("mean_width"))
        caption = f"Intervals, asked to hold {asked} of all truths"
        parts.append(table(("", "hold the truth", "mean width"), [line], caption=caption))
    return join(parts)


def said(told: dict[str, Any]) -> str:
    rows = figure_text(told.get("calibration_rows"))
    text = f"Fitted on {rows} validation rows, which have also chosen the weights that were kept."
    if "temperature" in told:
        text += f" The temperature is {figure_text(told['temperature'])}: above 1, the model was too sure of itself."
    return text
