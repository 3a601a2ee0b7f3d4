"""``zhixing estimate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..console import Console
from .options import SetCommand, as_json, device, raw_recipe, recipe_flags, result

__all__ = ["estimate"]


@click.command(cls=SetCommand)
@click.argument("subject", required=False)
@recipe_flags
@click.option("--no-trial", is_flag=True, help="Take no steps: tell the time from operations alone.")
@click.option("--watts", type=click.FloatRange(min=0, min_open=True), help="Drawn while training; else a stated model.")
@click.option("--price", type=click.FloatRange(min=0), help="Of an hour of this machine, in any currency.")
@click.option("--carbon", type=click.FloatRange(min=0), help="Grams of CO2 for a kilowatt-hour.")
@device
@as_json
def estimate(
    subject: str | None,
    no_trial: bool,
    watts: float | None,
    price: float | None,
    carbon: float | None,
    device: str,
    json_: bool,
    encoder: str | None,
    **flags: Any,
) -> None:
    """Say what training on SUBJECT will take, before anything is trained: memory, time, energy, the largest batch.

    SUBJECT is a recipe's file, data, or a run, whose recipe is then taken; without one, the source that --recipe names.
    """
    from ..api import source_of
    from ..training.surroundings import torch_device
    from ..verbs.estimate.estimate import estimate as estimate_verb
    from ..verbs.estimate.table import show

    data = subject
    if subject is not None and Path(subject).suffix in (".yaml", ".yml"):
        if flags["recipe"]:
            raise click.UsageError(f"{subject} is a recipe, so --recipe cannot be given with it")
        flags["recipe"], data = subject, None
    raw = raw_recipe(**flags)
    if data is None:
        source_of(raw)
    told = estimate_verb(
        data, raw, encoder=encoder, device=torch_device(device), trial=not no_trial, watts=watts, price=price,
        carbon=carbon, console=Console(quiet=json_),
    )  # fmt: skip
    if not json_:
        show(told)
    result(json_, told)
