"""The part of the report on what ``zhixing doctor`` found, from the run's ``doctor.json``."""

from __future__ import annotations

from typing import Any

from .charts import Line, line_chart
from .files import RunFiles, flatten, mapping, number, read_object, sequence
from .markup import Html, cut_table, esc, figure, figure_text, join, name, note, picture, table

__all__ = ["health_section"]

SHOWN_ROWS = 10


def health_section(run: RunFiles) -> dict[str, Html]:
    """The section under its title; none where the run has not been examined."""
    facts = read_object(run.folder / "doctor.json")
    if not facts:
        return {}
    findings = [mapping(one) for one in sequence(facts.get("findings"))]
    alarms = [one for one in findings if one.get("severity") != "note"]
    notes = [one for one in findings if one.get("severity") == "note"]
    parts = [_alarm(one) for one in alarms] or [note("No fault and no warning was found.")]
    if notes:
        rows = [(name(str(one.get("check")), 40), str(one.get("found"))) for one in notes]
        parts.append(cut_table(("check", "found"), rows, limit=20, what="notes", caption="Notes"))
    return {"Health": join(parts)}


def _alarm(one: dict[str, Any]) -> Html:
    """One finding with its evidence: numbers, a curve, rows, and the mend."""
    sure = number(one.get("sure"))
    because = f", explained by {one['because']}" if one.get("because") else ""
    head = f"{one.get('severity')}: {one.get('check')}"
    parts = [
        Html(f'<h3>{esc(head)} <span class="kind">{esc(f"sure to {sure or 0:.0%}{because}")}</span></h3>'),
        Html(f"<p>{esc(one.get('found'))}</p>"),
    ]
    mend = mapping(one.get("mend"))
    changes = [f"--set {setting}" for setting in sequence(mend.get("settings"))]
    changes += [f"leave out {column}" for column in sequence(mend.get("drop"))]
    if changes:
        parts.append(Html(f"<p>Mend: {join((Html(f'<code>{esc(change)}</code>') for change in changes), ', ')}</p>"))
    if one.get("advice"):
        parts.append(note(one["advice"]))
    if curve := mapping(one.get("curve")):
        line = Line(str(curve.get("y_label")), sequence(curve.get("x")), sequence(curve.get("y")), "b")
        title = f"{curve.get('y_label')} by {curve.get('x_label')}"
        drawn = line_chart(title, [line], x_label=str(curve.get("x_label")), y_label=str(curve.get("y_label")))
        parts.append(Html(f'<div class="plots">{figure(title, drawn)}</div>'))
    if rows := [mapping(row) for row in sequence(one.get("rows"))]:
        cells = [
            (
                name(str(row.get("place")), 80),
                str(row.get("remark")),
                picture(row["picture"], "the row's picture") if row.get("picture") else "",
            )
            for row in rows
        ]
        caption = f"Rows that show it ({one.get('check')})"
        parts.append(cut_table(("place", "remark", "picture"), cells, limit=SHOWN_ROWS, what="rows", caption=caption))
    if numbers := _numbers(mapping(one.get("evidence"))):
        folded = table(("figure", "value"), numbers, caption="Figures")
        parts.append(Html(f"<details><summary>Figures</summary>{folded}</details>"))
    return Html(f'<section class="column">{join(parts)}</section>')


def _numbers(evidence: dict[str, Any]) -> list[tuple[Html, Html]]:
    found = list(flatten(evidence).items())[:40]
    return [
        (name(key, 80), esc(figure_text(value)) if number(value) is not None else name(str(value), 200))
        for key, value in found
    ]
