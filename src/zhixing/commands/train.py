"""``zhixing train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..console import Console
from .options import RUN, SetCommand, arrow_alone, as_json, device, figures, raw_recipe, recipe_flags, result

__all__ = ["train"]


@click.command(cls=SetCommand)
@click.argument("data", required=False)
@recipe_flags
@click.option("--out", type=RUN, help="The run folder; by default the next free runs/NAME-1.")
@click.option("--resume", "resume_", type=RUN, metavar="RUN", help="Go on with a run that was stopped or killed.")
@device
@as_json
def train(
    data: str | None,
    resume_: Path | None,
    out: Path | None,
    device: str,
    json_: bool,
    encoder: str | None,
    **flags: Any,
) -> None:
    """Train a model on DATA: a folder, a file, or a name of the catalogue such as mnist."""
    arrow_alone()
    from ..verbs.train import resume
    from ..verbs.train import train as train_verb

    console = Console(quiet=json_)
    if resume_ is not None:
        given = [*flags.values(), data, encoder, out]
        if any(value is not None and value != () for value in given):
            raise click.UsageError("--resume goes on with the run's own recipe: no other setting can be given with it")
        run = resume(resume_, device=device, console=console)
    else:
        from ..api import source_of

        raw = raw_recipe(**flags)
        source = data if data is not None else source_of(raw)
        run = train_verb(source, raw, out=out, device=device, encoder=encoder, console=console)
    evaluation = run.read_json("evaluation.json") or {"outputs": {}}
    metrics = {name: entry["metrics"] for name, entry in evaluation["outputs"].items()}
    if not json_:
        figures(metrics)
    result(json_, {"run": str(run.path), "metrics": metrics})
