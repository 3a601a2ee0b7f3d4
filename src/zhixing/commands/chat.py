"""``zhixing chat``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ..console import Console
from .generate import open_writer, plan_of, search_flags
from .options import as_json, device, result

__all__ = ["chat"]


@click.command()
@click.argument("model", metavar="RUN|FOLDER", type=click.Path(path_type=Path))
@search_flags
@click.option("--system", default="", help="Said before everything else, and never forgotten.")
@click.option("--template", type=click.Choice(["chatml", "plain"]), help="How turns are spelled; open: as it fits.")
@device
@as_json
def chat(model: Path, system: str, template: str | None, device: str, json_: bool, **flags: Any) -> None:
    """Talk with a language model: a run, or a published one (its folder, or a .gguf file). An empty line ends it.

    What is said is read from standard input, a turn a line, so that a file of questions can be given too.
    """
    from ..errors import DataError
    from ..verbs.chat import Chat

    console = Console(quiet=json_)
    talk, plan = Chat(open_writer(model, device, flags), template=template, system=system), plan_of(flags)
    typed, rates = sys.stdin.isatty(), []
    while text := asked(typed):
        forgotten = talk.forgotten
        try:
            for piece in talk.say(text, plan):
                if not json_:
                    click.echo(piece.text, nl=piece.ended is not None)
        except DataError as error:
            if not typed:
                raise
            console.warn(str(error))
            continue
        if talk.forgotten > forgotten:
            console.warn(f"the window is full: the oldest {talk.forgotten} turns are forgotten")
        console.say(str(talk.writer.rates))
        rates.append(talk.writer.rates.per_second)
    turns = [turn._asdict() for turn in talk.turns]
    result(json_, {"turns": turns, "forgotten": talk.forgotten, "tokens_per_second": rates})


def asked(typed: bool) -> str:
    """The next turn; nothing at the end."""
    if not typed:
        return sys.stdin.readline().strip()
    try:
        return input("> ").strip()
    except EOFError:
        return ""
