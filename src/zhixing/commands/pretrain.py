"""``zhixing pretrain``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..console import Console
from .options import RUN, SetCommand, as_json, device, figures, raw_recipe, recipe_flags, result

__all__ = ["pretrain"]


@click.command(cls=SetCommand)
@click.argument("data")
@click.option(
    "--column", "columns", multiple=True, required=True, metavar="NAME", help="What to learn of; two that are pairs."
)
@click.option("--objective", metavar="NAME", help="masked_tokens, next_token, views, …; open: by column.")
@recipe_flags
@click.option("--out", type=RUN, help="The run folder; by default the next free runs/NAME-1.")
@device
@as_json
def pretrain(
    data: str,
    columns: tuple[str, ...],
    objective: str | None,
    out: Path | None,
    device: str,
    json_: bool,
    encoder: str | None,
    target: tuple[str, ...],
    **flags: Any,
) -> None:
    """Train the encoder of a column of DATA without labels: text, photo, audio or history.

    What is learned is to tell what was hidden (masked tokens, patches, frames, items), to know two views of a picture
    for one, to find the other half of a pair (--column A --column B), or to write the next token. The result is a run,
    whose encoder another takes up by name: zhixing train DATA --target label --encoder runs/NAME-1. One that was
    killed goes on with zhixing train --resume.
    """
    from ..verbs.pretrain import pretrain as pretrain_verb

    if target:
        raise click.UsageError("pretraining learns without labels: there is no --target. Name a --column")
    run = pretrain_verb(
        data, raw_recipe(target=(), **flags), columns, objective=objective, encoder=encoder, out=out, device=device,
        console=Console(quiet=json_),
    )  # fmt: skip
    evaluation = run.read_json("evaluation.json") or {"outputs": {}}
    metrics = {name: entry["metrics"] for name, entry in evaluation["outputs"].items()}
    if not json_:
        figures(metrics)
    result(json_, {"run": str(run.path), "metrics": metrics})
