"""The page of a study: one HTML file that opens anywhere, offline, without scripts."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

from ..recipe import dump
from ..report.files import write_atomically
from ..report.markup import Html, bar, cut_table, esc, figure, figure_text, join, name, note, scrolling, table
from ..report.shell import whole_page
from ..run import RunFolder
from .charts import Point, front_chart, history, parallel
from .hyperband import beats
from .journal import Record, optuna_library
from .paths import settings_at
from .space import Dimension
from .study import Study, best_of
from .suggest import observations

__all__ = ["importances", "render", "write_page"]

BOLD = 5  # best trials that stand out in the plot of settings
EDGE = 0.02  # a best value so near to the end of its range would perhaps rather lie beyond


def write_page(study: Study) -> Path:
    """Write ``report.html`` into a study's folder, from what lies there; gives its path."""
    return write_atomically(study.path / "report.html", render(study))


def render(study: Study) -> Html:
    """The whole page."""
    records = study.journal.records()
    found = best_of(study, records)
    sections = {
        "History": history_section(study, records, found),
        "Settings": settings_section(study, records, found),
        "Confirmation": confirm_section(study),
        "Trials": trials_section(study, records),
        "Recipe": recipe_section(study, found),
    }
    title = study.path.resolve().name
    top_part = top(study, records, found)
    return whole_page("study of settings", title, top_part, sections, facts=facts(study, records))


def facts(study: Study, records: Sequence[Record]) -> Html:
    plan = study.plan
    epochs = sum(max((seen["epoch"] for seen in one.seen.values()), default=0.0) for one in records)
    whole = study.base["training"]["epochs"]
    told = {
        "data": plan.source,
        "trials": f"{len(records)} of {plan.trials}",
        "trained to the end": str(sum(one.state == "complete" for one in records)),
        "stopped": str(sum(one.state == "pruned" for one in records)),
        "failed": str(sum(one.state == "failed" for one in records)),
        "epochs in all": f"{epochs:.4g}",
        "rungs": ", ".join(f"{share * whole:.3g}" for share in plan.shares) + " epochs",
        "sampler": plan.sampler,
        "seed": str(plan.seed),
    }
    return Html(
        f'<dl class="facts">{join(Html(f"<div><dt>{k}</dt><dd>{esc(v)}</dd></div>") for k, v in told.items())}</dl>'
    )


def top(study: Study, records: Sequence[Record], found: Sequence[Record]) -> Html:
    """The best trial's figures, and what to notice."""
    if not found:
        return note("No trial has been validated yet.")
    best = found[0]
    values = best.seen[max(best.seen)]["values"]
    cards = join(
        Html(f'<article><h2>{name(one.label, 60)}</h2><p class="figure">{figure_text(value)}</p>'
             f"<p>validation rows, trial {best.number}</p></article>")
        for one, value in zip(study.plan.objectives, values, strict=True)
    )  # fmt: skip
    listed = join(Html(f"<li>{esc(text)}</li>") for text in findings(study, records, best))
    notice = f'<section class="notice"><h2>What to notice</h2><ul>{listed}</ul></section>' if listed else ""
    return Html(f'<div class="headlines">{cards}</div>{notice}')


def findings(study: Study, records: Sequence[Record], best: Record) -> list[str]:
    out = []
    confirmed = RunFolder(study.path).read_json("confirm.json")
    goal = study.plan.objectives[0]
    value = best.seen[max(best.seen)]["values"][0]
    if confirmed and confirmed["trial"] == best.number and goal.label in confirmed["best"]:
        ours, other = confirmed["best"][goal.label]["mean"], confirmed["default"][goal.label]["mean"]
        better = (ours > other) == goal.higher and ours != other
        out.append(
            f"On test rows, with fresh seeds, {goal.label} is {ours:.4f} on average; chosen on validation rows it was "
            f"{value:.4f}. The recipe that the study began with comes to {other:.4f}"
            f"{'.' if better else ': the search has not found anything better.'}"
        )
    else:
        out.append("The best figure of many is flattered; it is not yet confirmed on test rows.")
    edges = [one.path for one in study.space.dimensions(study.base) if at_edge(one, best.settings.get(one.path))]
    if edges:
        out.append(
            f"The best value lies at the end of its range: {', '.join(edges)}. A wider range may hold a better one."
        )
    failed = [one for one in records if one.state == "failed"]
    if failed:
        out.append(f"{len(failed)} trials could not be trained; the first: {failed[0].error}")
    return out


def at_edge(one: Dimension, value: Any) -> bool:
    """Whether a value lies at the end of its range.

    >>> at_edge(Dimension("a", "float", 1e-4, 1e-1, log=True), 0.0999)
    True
    """
    if one.kind != "float" or not isinstance(value, int | float):
        return False
    low, high, here = (log(x) if one.log else x for x in (one.low, one.high, value))
    share = (here - low) / (high - low)
    return share > 1 - EDGE or (share < EDGE and (one.log or one.low != 0))


# Sections -----------------------------------------------------------------------------------------------------------


def points_of(study: Study, records: Sequence[Record], dimensions: Sequence[Dimension] = ()) -> list[Point]:
    """The trials that have been validated, each at the highest rung that it has reached."""
    last = len(study.plan.shares) - 1
    paths = [one.path for one in dimensions]
    base = settings_at(study.base, paths)
    return [
        Point(one.number, tuple(one.seen[max(one.seen)]["values"]), max(one.seen) == last,
              tuple({**base, **one.settings}.get(path) for path in paths))
        for one in records if one.seen and one.state != "failed"
    ]  # fmt: skip


def history_section(study: Study, records: Sequence[Record], found: Sequence[Record]) -> Html:
    goals = study.plan.objectives
    points = points_of(study, records)
    told = "Filled: trained to the end. Pale: stopped at an earlier rung. The line is the best so far."
    plots = [figure("History", history(points, goals[0].label, goals[0].higher), text=told)]
    labels = [one.label for one in goals]
    whole = [point for point in points if point.whole]
    if len(goals) > 1 and whole:
        signs = [1 if one.higher else -1 for one in goals]
        sides = {point.number: [s * v for s, v in zip(signs, point.values, strict=True)] for point in whole}
        front = [number for number, one in sides.items() if not any(beats(other, one) for other in sides.values())]
        pair = [Point(point.number, point.values[:2], True) for point in whole]
        said = f"Trials that no other beats: {', '.join(map(str, front))}."
        plots.append(figure("Front", front_chart(pair, labels, front), text=said))
    return Html(f'<div class="plots">{join(plots)}</div>')


def settings_section(study: Study, records: Sequence[Record], found: Sequence[Record]) -> Html:
    dimensions = study.space.dimensions(study.base)
    shares = importances(study, records)
    largest = max(shares.values(), default=0.0)
    rows = [(name(key, 80), bar(share, largest)) for key, share in shares.items()]
    weight = (
        table(("setting", "share"), rows, caption="How much each setting decides (PED-ANOVA)")
        if rows
        else note("There are too few trials to say which settings matter.")
    )
    bold = [one.number for one in found[:BOLD]]
    drawing = parallel(points_of(study, records, dimensions), dimensions, study.plan.objectives[0].label, bold)
    told = note(
        f"A line for each trial; bold: trials {', '.join(map(str, bold))}, the best of those that came farthest."
    )
    return Html(f"{weight}<h3>Settings and values</h3>{scrolling(drawing, 'settings and values')}{told}")


def importances(study: Study, records: Sequence[Record]) -> dict[str, float]:
    """How much each setting decides of the first objective, the largest share first; empty where that cannot be told.

    PED-ANOVA (Watanabe et al., 2023) of the results that the model of the search is fitted to.
    """
    optuna = optuna_library()
    goals = study.plan.objectives[:1]
    cut = [replaced(one) for one in records]
    seen = [one for one in observations(cut, goals) if one.state.name == "COMPLETE"]
    if len(seen) < 4 or len({one.value for one in seen}) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = optuna.create_study(direction="maximize")
        again.add_trials(seen)
        try:
            found: dict[str, float] = optuna.importance.get_param_importances(again)
        except (ValueError, RuntimeError, ZeroDivisionError):
            return {}
    return {key: share for key, share in found.items() if share == share}


def replaced(one: Record) -> Record:
    """The record with its first value alone."""
    return replace(one, seen={rung: told | {"values": told["values"][:1]} for rung, told in one.seen.items()})


def confirm_section(study: Study) -> Html:
    told = RunFolder(study.path).read_json("confirm.json")
    if told is None:
        return note("The best recipe has not been confirmed on test rows.")
    rows = []
    for metric, best in told["best"].items():
        other = told["default"].get(metric, {"mean": None, "deviation": None})
        rows.append((name(metric, 60), best["mean"], best["deviation"], other["mean"], other["deviation"]))
    heads = ("metric", "best recipe", "± deviation", "as it began", "± deviation")
    said = (
        f"The recipe of trial {told['trial']} and the one that the study began with, each trained with "
        f"{len(told['seeds'])} fresh seeds and measured on {told['rows']:,} test rows that no trial has seen."
    )
    return Html(f"<p>{esc(said)}</p>{table(heads, rows, caption='Test rows')}")


def trials_section(study: Study, records: Sequence[Record]) -> Html:
    labels = [one.label for one in study.plan.objectives]
    rows = []
    for one in records:
        seen = one.seen[max(one.seen)] if one.seen else None
        values = seen["values"] if seen else [None] * len(labels)
        settings = ", ".join(f"{path} = {short(value)}" for path, value in one.settings.items())
        rows.append((esc(one.number), one.state, seen["epoch"] if seen else None, *values,
                     name(one.error or settings or "the recipe as it is", 400)))  # fmt: skip
    heads = ("trial", "state", "epochs", *labels, "settings")
    return cut_table(heads, rows, limit=50, what="trials", caption="All trials")


def short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def recipe_section(study: Study, found: Sequence[Record]) -> Html:
    if not found:
        return note("There is none yet.")
    best = found[0]
    before = settings_at(study.base, best.settings)
    rows = [(name(path, 80), short(before.get(path)), short(value)) for path, value in best.settings.items()]
    changed = (
        table(("setting", "as it began", "best"), rows, caption=f"What trial {best.number} changes")
        if rows
        else note("No trial is better than the recipe as it was.")
    )
    text = Html(f'<pre dir="ltr">{esc(dump(study.recipe_of(best).plain()))}</pre>')
    return Html(f"{changed}<details><summary>best.yaml</summary>{text}</details>")
