"""``zhixing explain``, and ``zhixing predict --explain``."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ..calibration import Calibration
from ..columns import Column
from ..console import Console
from ..model import Model
from ..recipe import Recipe
from ..report import write_report
from ..report.explanations import said
from ..report.markup import shorten
from ..run import write_whole
from ..verbs.predict import table_of
from .explain import Explained, Plan, explain
from .output import check_out, encoded, write

__all__ = ["explain_command", "keep_input"]

SAID = 10  # rows that are told of one by one


def explain_command(
    recipe: Recipe,
    columns: Mapping[str, Column],
    model: Model,
    inputs: Sequence[str],
    plan: Plan | None = None,
    *,
    folder: Path,
    part: str = "test",
    out: Path | None = None,
    calibrations: Mapping[str, Calibration] | None = None,
    device: torch.device,
    console: Console,
) -> dict[str, Any]:
    """Explain inputs, or test rows of the run in ``folder``, and write what comes of it; gives a summary.

    Raises:
        UsageError: ``out`` is no place to write to; also all that :func:`explain` raises.
    """
    if out is not None:
        check_out(out)
    with TemporaryDirectory() as scratch:
        source = table_of(recipe, inputs, Path(scratch)) if inputs else None  # "-" is standard input
        found = explain(
            recipe, columns, model, source, plan=plan or Plan(), part=part, calibrations=calibrations, device=device,
            console=console,
        )  # fmt: skip
    title = folder.resolve().name
    if out is not None:
        paths = write(found, out, title)
    elif inputs:
        paths = []
    else:
        paths = write(found, folder / "explanations.html", title)
        write_whole(folder / "explanations.json", encoded(found.facts, arrays=False))
        paths += [folder / "explanations.json", write_report(folder)]
    tell(found, console)
    for path in paths[:3]:
        console.say(str(path))
    if len(paths) > 3:
        console.say(f"… and {len(paths) - 3} pictures")
    return summary(found, paths)


def summary(found: Explained, paths: list[Path]) -> dict[str, Any]:
    facts = found.facts
    rows = [
        {
            **{key: row[key] for key in ("row", "place", "answer", "score", "baseline_score", "probability")},
            "top": {
                method: [pair for one in maps["columns"] for pair in one["shown"]["top"]]
                for method, maps in row["maps"].items()
            },
            **({"flip": row["flip"]} if "flip" in row else {}),
        }
        for row in facts["rows"]
    ]
    kept = ("output", "unit", "methods", "skipped", "explained", "gap")
    return {**{key: facts[key] for key in kept}, "rows": rows, "out": [str(path) for path in paths]}


def tell(found: Explained, console: Console) -> None:
    """What counts most, a line for each row and method."""
    for method, why in found.facts["skipped"].items():
        console.warn(f"{method} was left out: {why}")
    for row in found.rows[:SAID]:
        for method, maps in row["maps"].items():
            top = sorted(
                (pair for one in maps["columns"] for pair in one["shown"]["top"]), key=lambda one: -abs(one[1])
            )
            words = ", ".join(f"{shorten(text, 40)} {value:+.3g}" for text, value in top[:5])
            console.say(f"{row['place']}: {shorten(row['answer'], 60)} ({method}): {words or 'nothing'}")
        if "flip" in row:
            console.say(f"  {flip_line(row['flip'])}")
    if len(found.rows) > SAID:
        console.say(f"… and {len(found.rows) - SAID} more rows")


def flip_line(flip: dict[str, Any] | None) -> str:
    if flip is None:
        return "no change of numbers, classes, tags or dates was found that flips the answer"
    changes = ", ".join(f"{one['column']} {said(one['was'])} → {said(one['becomes'])}" for one in flip["changes"])
    return f"{flip['to']} instead, at a change of {flip['cost']:.3g}: {changes}"


def keep_input(inputs: Sequence[str]) -> Callable[[], None]:
    """Keep standard input, which can be read but once, for two readers; what is given is called before the second."""
    if (inputs and list(inputs) != ["-"]) or sys.stdin.isatty():
        return lambda: None
    content = sys.stdin.buffer.read()

    def rewind() -> None:
        sys.stdin = io.TextIOWrapper(io.BytesIO(content))

    rewind()
    return rewind
