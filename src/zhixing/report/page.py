"""The report: one HTML file that opens anywhere, offline, without scripts."""

from __future__ import annotations

from pathlib import Path

from .curves import curves_section, speed_section
from .dataset import data_section
from .estimates import estimates_section
from .explanations import explanations_section
from .files import RunFiles, flatten, mapping, number, read_run, write_atomically
from .health import health_section
from .markup import Html, cut_table, esc, figure_text, join, name, note
from .results import output_section
from .shell import whole_page
from .summary import Headline, findings, headlines

__all__ = ["render", "write_report"]

MENDS = {
    "metrics.jsonl": "the curves of losses and metrics; training writes it",
    "timings.jsonl": "the speed; training writes it",
    "environment.json": "versions and hardware; training writes it",
    "data.json": "what the data looked like; training writes it",
    "evaluation.json": "the results on rows kept apart; zhixing evaluate writes it",
}
SHOWN_COLUMNS = 6  # at the head of the page; the data section has all


def write_report(run: Path) -> Path:
    """Write ``report.html`` into a run folder and return its path.

    The page is made from the run's files alone, so the same files give the same bytes. Files that are missing are
    named in the page.

    Raises:
        RunError: the folder or its recipe is missing, a file is damaged, or the page cannot be written.
    """
    return write_atomically(run / "report.html", render(read_run(run)))


def render(run: RunFiles) -> Html:
    """The whole page."""
    sections = {
        "Curves": curves_section(run),
        "Results": _results(run),
        **explanations_section(run),
        **health_section(run),
        "Data": data_section(run),
        "Speed": speed_section(run),
        **estimates_section(run),
        "Environment": _environment(run),
        "Recipe": _recipe(run),
    }
    return whole_page("training report", run.name, _top(run), sections, facts=_facts(run))


def _facts(run: RunFiles) -> Html:
    """One line on what was trained, on what, for how long."""
    facts: list[tuple[str, str]] = []
    for role in ("input", "output"):
        columns = run.columns(role)
        listed = [
            Html(f"{name(key, 40)} ({name(kind, 20)})") if kind else name(key, 40)
            for key, kind in list(columns.items())[:SHOWN_COLUMNS]
        ]
        more = [Html(f"{len(columns) - SHOWN_COLUMNS} more")] if len(columns) > SHOWN_COLUMNS else []
        facts.append((f"{role}s", join(listed + more, ", ")))
    rows = number(run.data.get("rows"))
    facts.append(("rows", figure_text(int(rows)) if rows is not None else ""))
    log = [*run.training, *run.validation]
    steps = max((number(line.get("step")) or 0.0 for line in log), default=None)
    epochs = max((number(line.get("epoch")) or 0.0 for line in log), default=None)
    facts.append(("steps", f"{steps:,.0f}" if steps is not None else ""))
    facts.append(("epochs", f"{epochs:.3g}" if epochs else ""))
    seconds = max((number(line.get("seconds")) or 0.0 for line in run.timings), default=None)
    facts.append(("time", duration(seconds) if seconds else ""))
    parameters = number(run.environment.get("parameters"))
    facts.append(("parameters", f"{parameters:,.0f}" if parameters is not None else ""))
    told = join(Html(f"<div><dt>{key}</dt><dd>{esc(value)}</dd></div>") for key, value in facts if value)
    return Html(f'<dl class="facts">{told}</dl>')


def duration(seconds: float) -> str:
    """A span of time for reading.

    >>> duration(0.51), duration(75), duration(7322)
    ('0.5 s', '1 min 15 s', '2 h 2 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def _top(run: RunFiles) -> Html:
    """The headline figures, what to notice, and what is missing."""
    shown = join(_card(line) for line in headlines(run)) or note("The recipe names no outputs.")
    noticed = findings(run)
    listed = join(Html(f"<li>{esc(text)}</li>") for text in noticed)
    notice = f'<section class="notice"><h2>What to notice</h2><ul>{listed}</ul></section>' if noticed else ""
    absent = join(Html(f"<li><code>{esc(file)}</code>: {MENDS[file]}</li>") for file in run.missing)
    gone = f'<section class="missing"><h2>Missing from this run</h2><ul>{absent}</ul></section>' if absent else ""
    return Html(f'<div class="headlines">{shown}</div>{notice}{gone}')


def _card(line: Headline) -> Html:
    others = join(
        Html(f"<div><dt>{name(key, 30)}</dt><dd>{figure_text(value)}</dd></div>") for key, value in line.others.items()
    )
    measured = f'<p class="figure">{esc(line.figure)}</p><p>{esc(line.metric.replace("_", " "))}</p>'
    likely = f"<p>{line.likely}</p>" if line.likely else ""
    small = f'<dl class="facts">{others}</dl>' if others else ""
    figures = f"{measured}{likely}" if line.metric else ""
    return Html(f"<article><h2>{name(line.output, 60)}</h2>{figures}<p>{esc(line.where)}</p>{small}</article>")


def _results(run: RunFiles) -> Html:
    outputs = mapping(run.evaluation.get("outputs"))
    if not outputs:
        return note("This run has not been evaluated. The command zhixing evaluate measures it on rows kept apart.")
    rows = figure_text(run.evaluation.get("rows"))
    split = esc(run.evaluation.get("split") or "unnamed")
    said = Html(f"<p>Measured on {rows} rows of the <b>{split}</b> split.</p>")
    return join([said, *(output_section(key, mapping(value)) for key, value in outputs.items())])


def _environment(run: RunFiles) -> Html:
    if not run.environment:
        return note("Versions and hardware were not written.")
    rows = [
        (name(key, 80), name("–" if value is None else value, 300)) for key, value in flatten(run.environment).items()
    ]
    return cut_table(("what", "value"), rows, limit=100, what="entries", caption="Versions, hardware, seeds")


def _recipe(run: RunFiles) -> Html:
    text = Html(f'<pre dir="ltr">{esc(run.recipe_text)}</pre>')
    return Html(f"<details><summary>recipe.yaml, as it was resolved</summary>{text}</details>")
