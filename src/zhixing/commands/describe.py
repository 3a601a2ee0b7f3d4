"""``zhixing describe``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..console import Console
from .options import SetCommand, as_json, device, raw_recipe, recipe_flags, result

__all__ = ["describe"]


@click.command(cls=SetCommand)
@click.argument("subject")
@recipe_flags
@device
@as_json
def describe(subject: str, device: str, json_: bool, encoder: str | None, **flags: Any) -> None:
    """Say what SUBJECT holds and needs: data (or a recipe), or a run. Types, sizes, parameters, memory, operations."""
    from ..api import source_of
    from ..verbs.describe import describe as describe_verb
    from ..verbs.describe import show

    data: str | None = subject
    if Path(subject).suffix in (".yaml", ".yml"):
        if flags["recipe"]:
            raise click.UsageError(f"{subject} is a recipe, so --recipe cannot be given with it")
        flags["recipe"], data = subject, None
    raw = raw_recipe(**flags)
    if data is None:
        source_of(raw)
    facts = describe_verb(data, raw, encoder=encoder, device=device, console=Console(quiet=json_))
    if not json_:
        show(facts)
    result(json_, facts)
