"""``zhixing evaluate``."""

from __future__ import annotations

from pathlib import Path

import click

from ..console import Console
from .options import RUN, arrow_alone, as_json, device, figures, result

__all__ = ["evaluate"]


@click.command()
@click.argument("run", type=RUN)
@click.argument("data", required=False)
@click.option("--split", "part", help="train, validation, test or all; else test of its own data, all of other DATA.")
@device
@as_json
def evaluate(run: Path, data: str | None, part: str | None, device: str, json_: bool) -> None:
    """Measure RUN on its test rows, or on all rows of DATA."""
    arrow_alone()
    from ..api import load

    console = Console(quiet=json_)
    found = load(run, device=device).examine(data, part, console)
    console.say(f"{found['split']}: {found['rows']:,} rows")
    metrics = {name: entry["metrics"] for name, entry in found["outputs"].items()}
    if not json_:
        figures(metrics)
    result(json_, metrics)
