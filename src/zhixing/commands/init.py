"""``zhixing init``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import SetCommand, as_json, raw_recipe, recipe_flags, result

__all__ = ["init"]


@click.command(cls=SetCommand)
@click.argument("data")
@recipe_flags
@click.option("--out", type=click.Path(path_type=Path), help="Write the recipe to this file; else print it.")
@as_json
def init(data: str, out: Path | None, json_: bool, encoder: str | None, **flags: Any) -> None:
    """Write a commented recipe for DATA: every setting with its default and what it is for."""
    from ..verbs.init import write_recipe

    if out is not None and out.exists():
        raise click.UsageError(f"{out} exists; name another file")
    text = write_recipe(data, raw_recipe(**flags), encoder=encoder)
    if out is not None:
        out.write_text(text, "utf-8")
        click.echo(f"{out}: now `zhixing train --recipe {out}`", err=True)
    elif not json_:
        click.echo(text, nl=False)
    result(json_, {"out": None if out is None else str(out), "recipe": text})
