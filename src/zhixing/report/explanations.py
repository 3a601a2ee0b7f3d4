"""Explanations for people: heat maps, coloured tokens, curves with what speaks for and against below, bars.

They are drawn from facts, as ``zhixing explain`` writes them into ``explanations.json``; for the report, and as a page
of their own. Orange speaks for the answer that is explained, blue against it.
"""

from __future__ import annotations

from typing import Any

from .axes import WIDTH, stroke, svg, words
from .files import RunFiles, mapping, number, read_object, sequence
from .markup import Html, esc, figure, figure_text, join, name, note, picture, shorten, table
from .shell import whole_page

__all__ = ["explanations_section", "page", "said"]

SHOWN_IN_REPORT = 12
SHOWN_PARTS = 30
MOST_PIECES = 2000
MEANING = "Orange speaks for the answer, blue against it; the deeper, the more."
STYLE = """
.for { background: rgba(230,120,0,.75); } .against { background: rgba(0,114,178,.75); }
.tokens { font-size: .92rem; line-height: 1.75; white-space: pre-wrap; max-width: 75ch; margin: .3rem 0; }
.tokens span { border-radius: 3px; padding: .08em 0; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.explained { border-top: 1px solid var(--rule); padding: .9rem 0; break-inside: avoid; }
.means { display: flex; flex-wrap: wrap; gap: 0 2rem; }
.means > div { max-width: 100%; min-width: 0; }
.explained .maps { display: flex; flex-wrap: wrap; gap: 1rem 2rem; align-items: flex-start; }
.explained .maps > div { min-width: 0; max-width: 100%; }
.explained h5 { margin: .3rem 0; font-size: .85rem; font-weight: 600; }
.explained img { display: block; max-width: 100%; border-radius: 4px; }
.explained img.small { image-rendering: pixelated; width: 11rem; height: auto; }
.explained .bands img { image-rendering: pixelated; width: 24rem; }
.chart .up { fill: rgb(230,120,0); } .chart .down { fill: rgb(0,114,178); }
.chart .thin { fill: none; stroke: var(--ink); stroke-width: 1.3; stroke-linejoin: round; }
"""


def explanations_section(run: RunFiles) -> dict[str, Html]:
    """The section of a report under its title; none where the run has not been explained."""
    facts = read_object(run.folder / "explanations.json")
    if not facts:
        return {}
    return {"Explanations": Html(f"<style>{STYLE}</style>{body(facts, SHOWN_IN_REPORT)}")}


def page(facts: dict[str, Any], title: str) -> Html:
    """Explanations as one page that opens anywhere, offline, without scripts."""
    return whole_page("explanations", title, body(facts, len(sequence(facts.get("rows")))), style=STYLE)


def body(facts: dict[str, Any], most: int) -> Html:
    """What was explained and how, the means by class, and some rows."""
    rows = [mapping(row) for row in sequence(facts.get("rows"))]
    classes = [mapping(one) for one in sequence(facts.get("classes"))]
    methods = [str(method) for method in sequence(facts.get("methods"))]
    told = (
        f"What the output <b>{name(facts.get('output'), 60)}</b> hangs on in "
        f"{figure_text(facts.get('explained'))} rows of {name(facts.get('source'), 80)}: "
        f"attribution of the {esc(facts.get('unit') or 'score')}, by {esc(', '.join(map(plain, methods)))}."
    )
    parts = [Html(f"<p>{told} {MEANING}</p>"), note(f"Compared with: {facts.get('baseline') or 'nothing'}.")]
    gap = number(facts.get("gap"))
    if gap is not None:
        parts.append(note(f"Integrated gradients miss the difference that they explain by at most {gap:.2%}."))
    parts += [note(f"{plain(method)} was left out: {why}.") for method, why in mapping(facts.get("skipped")).items()]
    if len(rows) > 1 or (number(facts.get("explained")) or 0) > 1:
        parts.append(_means(classes, methods))
    parts.append(Html(f"<h4>{'Rows' if len(rows) > 1 else 'The row'}</h4>"))
    parts += [_row(row, str(facts.get("unit") or "score")) for row in rows[:most]]
    if len(rows) > most:
        parts.append(note(f"{len(rows) - most:,} more are on the page explanations.html of the run."))
    return join(parts)


def plain(method: object) -> str:
    """A method's name in words."""
    return str(method).replace("_x_", " × ").replace("_", " ")


def _means(classes: list[dict[str, Any]], methods: list[str]) -> Html:
    shown = []
    for one in classes:
        drawn = _columns([mapping(column) for column in sequence(one.get("columns"))])
        if not drawn:
            continue
        rows = int(number(one.get("rows")) or 0)
        head = f"<h5>{name(one.get('class'), 60)} ({rows:,} row{'s' if rows != 1 else ''})</h5>"
        shown.append(Html(f'<div class="explained">{head}{drawn}</div>'))
    head = f"Mean by predicted class, by {plain(methods[0])}" if methods else "Mean by predicted class"
    return Html(f'<h4>{esc(head)}</h4><div class="means">{join(shown)}</div>') if shown else Html("")


def _row(row: dict[str, Any], unit: str) -> Html:
    answer = f"<b>{name(row.get('answer'), 200)}</b>"
    truth = f", truth {name(row['truth'], 200)}" if row.get("truth") is not None else ""
    chance = number(row.get("probability"))
    figures = f"{esc(unit)} {figure_text(row.get('score'))}, {figure_text(row.get('baseline_score'))} at the baseline"
    sure = f", probability {chance:.3g}" if chance is not None else ""
    head = f"<p>{answer}{truth} <span class='note'>({figures}{sure}; {name(row.get('place'), 90)})</span></p>"
    maps = []
    for method, found in mapping(row.get("maps")).items():
        columns = [mapping(column) for column in sequence(mapping(found).get("columns"))]
        maps.append(Html(f"<div><h5>{esc(plain(method))}</h5>{_columns(columns)}</div>"))
    tail = _nearest(row) + _flip(row)
    return Html(f'<div class="explained">{head}<div class="maps">{join(maps)}</div>{tail}</div>')


def _columns(columns: list[dict[str, Any]]) -> Html:
    """The attribution of all columns: drawings of what can be drawn, then bars, for whole columns and plain parts."""
    drawings, bars = [], []
    for column in columns:
        shown = mapping(column.get("shown"))
        if shown.get("kind") == "parts":
            bars += [mapping(part) for part in sequence(shown.get("parts"))]
            continue
        titled = len(columns) > 1 and shown.get("kind") != "curve"  # whose figures have their own titles
        title = f"<h5>{name(column.get('name'), 60)}</h5>" if titled else ""
        drawings.append(Html(f"<div>{title}{_drawing(column, shown)}</div>"))
        if len(columns) > 1 and "total" in column:
            bars.append({"name": column.get("name"), "cell": "all of it", "attribution": column["total"]})
    return Html(join(drawings) + _bars(bars))


def _drawing(column: dict[str, Any], shown: dict[str, Any]) -> Html:
    title = f"attribution in {shorten(column.get('name'), 60)}"
    kind = shown.get("kind")
    if kind == "tokens":
        return _tokens(sequence(shown.get("pieces")))
    if kind == "curve":
        features = [mapping(one) for one in sequence(shown.get("features"))]
        return join(_curve(one) for one in features)
    drawn = picture(shown.get("picture"), title)
    if kind != "bands":
        return drawn
    return Html(f'<div class="bands">{drawn}{note("Time to the right, low bands below.")}</div>')


def _tokens(pieces: list[Any]) -> Html:
    values = [number(sequence(piece)[1]) if len(sequence(piece)) == 2 else None for piece in pieces]
    scale = max((abs(value) for value in values if value is not None), default=0.0) or 1.0
    out = []
    for piece, value in zip(pieces[:MOST_PIECES], values, strict=False):
        text = esc(sequence(piece)[0])
        if value is None or abs(value) < 0.01 * scale:
            out.append(text)
            continue
        colour, share = ("230,120,0" if value > 0 else "0,114,178"), 0.75 * min(abs(value) / scale, 1.0)
        out.append(Html(f'<span style="background:rgba({colour},{share:.2f})" title="{value:+.3g}">{text}</span>'))
    return Html(f'<p class="tokens" dir="auto">{join(out)}</p>')


def _curve(feature: dict[str, Any]) -> Html:
    """A feature's values as a line, and under it the attribution of each step."""
    values = [number(value) for value in sequence(feature.get("values"))]
    given = [number(value) or 0.0 for value in sequence(feature.get("attribution"))]
    count = max(len(values), 1)
    known = [value for value in values if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    scale = max(map(abs, given), default=0.0) or 1.0
    left, right, top, bottom, base = 44.0, WIDTH - 8, 10.0, 92.0, 132.0
    wide = (right - left) / count
    points = [
        (left + (i + 0.5) * wide, bottom - (value - low) / max(high - low, 1e-30) * (bottom - top))
        for i, value in enumerate(values)
        if value is not None
    ]
    parts = [words(left - 4, top + 4, f"{high:.3g}", "end"), words(left - 4, bottom + 4, f"{low:.3g}", "end")]
    parts.append(f'<polyline class="thin" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>')
    if len(points) == 1:
        parts.append(f'<circle cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="2"/>')
    for i, value in enumerate(given):
        tall = 24 * abs(value) / scale
        where = f'x="{left + i * wide:.1f}" y="{base - tall if value > 0 else base:.1f}"'
        size = f'width="{max(wide * 0.9, 0.5):.1f}" height="{tall:.1f}"'
        kind = "up" if value > 0 else "down"
        parts.append(f'<rect class="{kind}" {where} {size}><title>step {i}: {value:+.3g}</title></rect>')
    parts += [stroke("axis", left, base, right, base), words((left + right) / 2, 172, "step", "middle")]
    label = f"{feature.get('name') or ''}"
    return figure(label, svg(f"{label} and the attribution of its steps", parts, 176))


def _bars(parts: list[dict[str, Any]]) -> Html:
    """Parts with a bar to the right for what speaks for the answer, to the left for what speaks against it."""
    if not parts:
        return Html("")
    parts = sorted(parts, key=lambda part: -abs(number(part.get("attribution")) or 0.0))
    scale = max(abs(number(part.get("attribution")) or 0.0) for part in parts) or 1.0
    rows = []
    for part in parts[:SHOWN_PARTS]:
        value = number(part.get("attribution")) or 0.0
        rows.append((name(part.get("name"), 60), name(part.get("cell") or "–", 60), _bar(value / scale), value))
    shown = table(("what", "value", "speaks", "attribution"), rows, caption="Columns and their parts")
    more = len(parts) - SHOWN_PARTS
    return Html(shown + (note(f"{more:,} more have less.") if more > 0 else ""))


def _bar(share: float) -> Html:
    """A bar from the middle of a chart, [-1, 1]."""
    x, kind = (60.0, "up") if share >= 0 else (60 + 58 * share, "down")
    drawn = f'<rect class="{kind}" x="{x:.1f}" y="2" width="{58 * abs(share):.1f}" height="12"/>'
    axis = '<line class="axis" x1="60" y1="0" x2="60" y2="16"/>'
    return Html(
        f'<svg class="chart" viewBox="0 0 120 16" width="120" height="16" style="width:120px">{drawn}{axis}</svg>'
    )


def _nearest(row: dict[str, Any]) -> Html:
    near = [mapping(one) for one in sequence(row.get("nearest"))]
    if not near:
        return Html("")
    rows = []
    for one in near:
        inputs = [mapping(shown) for shown in mapping(one.get("inputs")).values()]
        seen = [
            picture(shown["picture"], "a training example") if "picture" in shown else name(shown.get("text"), 200)
            for shown in inputs
        ]
        truth = ", ".join(str(value) for value in mapping(one.get("truth")).values())
        rows.append((join(seen, " "), name(truth, 100), one.get("cosine"), name(one.get("place"), 90)))
    return table(("training example", "truth", "cosine", "place"), rows, caption="Nearest training examples")


def _flip(row: dict[str, Any]) -> Html:
    if "flip" not in row:
        return Html("")
    flip = mapping(row.get("flip"))
    if not flip:
        return note("No change of numbers, classes, tags or dates was found that flips the answer.")
    rows = [
        (name(change.get("column"), 60), name(said(change.get("was")), 90), name(said(change.get("becomes")), 90),
         change.get("cost"))
        for change in map(mapping, sequence(flip.get("changes")))
    ]  # fmt: skip
    caption = f"The smallest change found that makes it {shorten(flip.get('to'), 60)}"
    return Html(
        table(("column", "is", "would be", "change"), rows, caption=caption)
        + note("Changes of numbers and dates are in standard deviations of training rows; a class or a tag counts 1.")
    )


def said(cell: object) -> str:
    """A cell as a person reads it."""
    if cell is None:
        return "empty"
    return (
        ", ".join(map(said, cell))
        if isinstance(cell, list)
        else f"{cell:.6g}"
        if isinstance(cell, float)
        else str(cell)
    )
