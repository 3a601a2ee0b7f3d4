"""``zhixing schema``."""

from __future__ import annotations

import json

import click

from .options import as_json

__all__ = ["schema"]


@click.command()
@as_json
def schema(json_: bool) -> None:
    """Print the JSON schema of recipes, for editors that check YAML."""
    from ..recipe import json_schema

    text = json_schema()
    click.echo(json.dumps(json.loads(text), ensure_ascii=False) if json_ else text)
