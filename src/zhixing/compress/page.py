"""The page of what was tried: a table, and pictures of accuracy against speed, size and memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..report.axes import HEIGHT, WIDTH, Scale, axes, dot, empty, left_of, stroke, svg, words
from ..report.markup import Html, esc, figure, figure_text, join, name, note, table
from ..report.shell import whole_page

__all__ = ["render", "trade"]

STYLE = """
.chart .chosen { fill: none; stroke: var(--orange); stroke-width: 2; }
.chart .limit { stroke: var(--orange); stroke-width: 1; stroke-dasharray: 4 3; }
.headlines article:first-child .figure { font-size: 1.5rem; }
td .ends { display: block; color: var(--soft); font-size: .78rem; white-space: nowrap; }
tr .mark { color: var(--orange); font-weight: 650; }
"""

QUIET = 0.9  # share of its time in which a process has a processor, on a machine that does nothing else

FAR = 4.0  # times the limit: what loses more stands at the edge of the pictures

Figure = Callable[[Mapping[str, Any]], Any]


def scaled(key: str, factor: float) -> Figure:
    def of(one: Mapping[str, Any]) -> float | None:
        value = one.get(key)
        return None if value is None else float(value) * factor

    return of


SIDES: list[tuple[str, str, Figure]] = [
    ("Latency", "milliseconds a row, batch 1", scaled("latency_seconds", 1e3)),
    ("Throughput", "rows a second, batch {batch}", scaled("throughput_rows_per_second", 1.0)),
    ("File size", "megabytes", scaled("bytes", 1e-6)),
    ("Memory", "megabytes of the process", scaled("memory_bytes", 1e-6)),
]


def render(told: Mapping[str, Any]) -> Html:
    """The whole page, of what ``compressed.json`` holds."""
    output, goal = next(iter(told["measured"]["goals"].items()))
    sections = {
        "Pictures": pictures(told, output, goal["metric"]),
        "Candidates": candidates(told, output, goal["metric"]),
        "Measured": method(told),
    }
    return whole_page("compressed model", told["run"], top(told, output, goal["metric"]), sections, style=STYLE)


def chosen_of(told: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The original and the chosen one."""
    return told["candidates"][0], next(one for one in told["candidates"] if one["name"] == told["chosen"])


def top(told: Mapping[str, Any], output: str, metric: str) -> Html:
    original, chosen = chosen_of(told)
    faster = original["latency_seconds"] / chosen["latency_seconds"]
    test = told["test"]
    cards = [
        (
            "Chosen",
            name(told["chosen"], 60),
            f"of {len(told['candidates'])} forms, best in {told['asked']['aim']}",
        ),
        ("Faster", esc(f"{faster:.2f} ×"), f"{ms(original)} to {ms(chosen)} a row at batch 1, one thread"),
        ("File", esc(size(chosen)), f"was {size(original)}"),
    ]
    if test["rows"]:
        lost = f"was {figure_text(test['original'][output])}, on {test['rows']:,} test rows, read once"
        cards.append((f"{metric} ({output})", esc(figure_text(test["chosen"][output])), lost))
    made = join(
        Html(f'<article><h2>{esc(head)}</h2><p class="figure">{figure}</p><p>{esc(text)}</p></article>')
        for head, figure, text in cards
    )
    return Html(f'<div class="headlines">{made}</div>')


def size(one: Mapping[str, Any]) -> str:
    return f"{one['bytes'] / 1e3:,.0f} kB" if one["bytes"] < 1e6 else f"{one['bytes'] / 1e6:,.3g} MB"


def ms(one: Mapping[str, Any]) -> str:
    return f"{one['latency_seconds'] * 1e3:.3g} ms"


def pictures(told: Mapping[str, Any], output: str, metric: str) -> Html:
    limit = told["asked"]["max_drop"]
    plots = []
    for title, unit, side in SIDES:
        label = unit.format(batch=told["asked"]["batch"])
        drawing = trade(told, output, metric, label, side)
        plots.append(figure(f"{metric} and {title.lower()}", drawing))
    text = (
        f"A dot for each candidate that was measured; the bold one is chosen, the pale ring the original. "
        f"Beyond the dashed line a form loses more than {limit:g} on validation rows; what loses far more stands at "
        f"the edge."
    )
    return Html(f'{note(text)}<div class="plots">{join(plots)}</div>')


def trade(told: Mapping[str, Any], output: str, metric: str, label: str, side: Figure) -> str:
    """Accuracy against one other figure, a dot for each candidate that has both."""
    title = f"{metric} against {label}"
    points = [(side(one), one["validation"].get(output), one) for one in told["candidates"] if not one["not_measured"]]
    known = [(float(x), float(y), one) for x, y, one in points if x is not None and y is not None]
    if not known:
        return empty(title)
    original = known[0][1]
    higher = told["measured"]["goals"][output]["higher"]
    room = told["asked"]["max_drop"] * (1.0 if higher else -original)
    bound, worst = original - room, original - FAR * room
    wide = max(x for x, _, _ in known) / max(min(x for x, _, _ in known), 1e-12) > 8
    shown = [max(y, worst) if higher else min(y, worst) for _, y, _ in known] if room else [y for _, y, _ in known]
    y = Scale.around([*shown, bound], HEIGHT - 40, 12.0, pad=0.2)
    x = Scale.around([x for x, _, _ in known], left_of(y), WIDTH - 16, log=wide, pad=0.06)
    parts = axes(x, y, label + (" (log)" if wide else ""), metric, HEIGHT)
    parts.append(stroke("limit", x.start, y(bound), x.stop, y(bound)))
    for across, up, one in known:
        chosen = one["name"] == told["chosen"]
        said = f"{one['name']}: {figure_text(up)}, {figure_text(across)} {label}"
        parts.append(dot("dot b" if chosen else "cloud", x(across), y(up), 4.5 if chosen else 3.2, said))
        if one is told["candidates"][0]:
            parts.append(f'<circle class="guide" fill="none" cx="{x(across):.1f}" cy="{y(up):.1f}" r="6"/>')
        if chosen:
            anchor = "end" if x(across) > WIDTH / 2 else "start"
            shift = -9 if anchor == "end" else 9
            parts.append(words(x(across) + shift, max(y(up) - 7, 12), one["name"], anchor))
    return svg(title, parts, HEIGHT)


def candidates(told: Mapping[str, Any], output: str, metric: str) -> Html:
    """A row for each candidate that was measured, and one with the reason for each that was not."""
    batch, original = told["asked"]["batch"], told["candidates"][0]
    heads = ("form", metric, "lost", "ms a row", "faster", f"rows/s at {batch}", "MB of files", "MB of memory",
             "parameters")  # fmt: skip
    rows: list[Sequence[object]] = [
        (
            label(one, told), one["validation"].get(output), one["drop"],
            spread(one["latency_seconds"], one["latency_spread"], 1e3),
            esc(f"{original['latency_seconds'] / one['latency_seconds']:.2f} ×"),
            spread(one["throughput_rows_per_second"], one["throughput_spread"], 1.0), one["bytes"] / 1e6,
            one["memory_bytes"] / 1e6, one["parameters"],
        )
        for one in told["candidates"] if not one["not_measured"]
    ]  # fmt: skip
    goal = f"{metric} of {output}: {told['measured']['validation_rows']:,} validation rows."
    note_ = note(f"{goal} Small: the lowest and the highest round.")
    lacking = [(label(one, told), one["not_measured"]) for one in told["candidates"] if one["not_measured"]]
    missing = table(("form", "not measured, since"), lacking, caption="Not measured") if lacking else ""
    return Html(f"{table(heads, rows, caption='Measured')}{note_}{missing}")


def label(one: Mapping[str, Any], told: Mapping[str, Any]) -> Html:
    mark = ' <span class="mark">chosen</span>' if one["name"] == told["chosen"] else ""
    return Html(f"{name(one['name'], 80)}{mark}")


def spread(value: float, ends: Sequence[float], factor: float) -> Html:
    low, high = (figure_text(end * factor) for end in ends)
    return Html(f'{esc(figure_text(value * factor))}<span class="ends">{esc(f"{low} – {high}")}</span>')


def method(told: Mapping[str, Any]) -> Html:
    """How, so that it can be judged and repeated."""
    asked, seen = told["asked"], told["measured"]
    said = (
        f"Each form ran in a process of its own on one thread of {seen['machine']['processor']}; all took turns in "
        f"{asked['rounds']} rounds, each time in another order. A figure is the median of the rounds' medians. Latency "
        f"is that of single rows as the model stores them, to predictions; decoding files comes on top for all alike. "
        f"Memory is what the process holds when it has answered. Forms were chosen by validation rows; test rows were "
        f"read once, for the original and the chosen one. In int8 dynamic a row's answer depends a little on the rows "
        f"that it comes with: what is shown is the worse of rows one by one and rows in batches."
    )
    versions = join(
        Html(f"<div><dt>{esc(key)}</dt><dd>{esc(value)}</dd></div>") for key, value in seen["versions"].items()
    )
    share = min(one["processor_share"] for one in told["candidates"] if not one["not_measured"])
    if share < QUIET:
        said += (
            f" The machine was busy: one of the processes had a processor for {share:.0%} of its time only. Measure "
            f"again when it is quiet."
        )
    return Html(f'<p>{esc(said)}</p><dl class="facts">{versions}</dl>')
