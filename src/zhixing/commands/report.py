"""``zhixing report``."""

from __future__ import annotations

from pathlib import Path

import click

from .options import RUN, as_json, result

__all__ = ["report"]


@click.command()
@click.argument("run", type=RUN)
@as_json
def report(run: Path, json_: bool) -> None:
    """Write the report and the model card of RUN anew from what it holds."""
    from ..report import write_card, write_report
    from ..run import RunFolder

    folder = RunFolder(run)
    card, page = write_card(folder.path), write_report(folder.path)
    if not json_:
        click.echo(str(page))
    result(json_, {"report": str(page), "card": str(card)})
