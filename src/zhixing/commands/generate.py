"""``zhixing generate``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..console import Console
from .options import as_json, device, result

if TYPE_CHECKING:
    from ..verbs.generate import Piece, Plan, Writer

__all__ = ["generate", "open_writer", "plan_of", "search_flags"]

SEARCH = ("most", "temperature", "top_k", "top_p", "repetition_penalty", "beams", "length_penalty", "seed")


def search_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """How texts are found; what is left out is as the run's recipe has it."""
    for option in (
        click.option("--most", type=click.IntRange(1), help="Most tokens of a text."),
        click.option("--temperature", type=click.FloatRange(0), help="0: the likeliest token; 1: as the model says."),
        click.option("--top-k", type=click.IntRange(1), help="Draw from the likeliest so many tokens."),
        click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), help="… that make up this share."),
        click.option("--repetition-penalty", type=click.FloatRange(1), help="Against tokens that were used; 1: off."),
        click.option("--beams", type=click.IntRange(1), help="Texts that are followed at once."),
        click.option("--length-penalty", type=click.FloatRange(0), help="Beams: how much longer texts are favoured."),
        click.option("--seed", type=click.IntRange(0), help="Of all chance."),
        click.option("--stop", multiple=True, metavar="TEXT", help="Ends a text; may be given again."),
        click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True),
        click.option("--threads", type=click.IntRange(1), help="Of the processor."),
    ):
        command = option(command)
    return command


def plan_of(flags: dict[str, Any]) -> Plan:
    from ..verbs.generate import Plan

    search = {name: flags[name] for name in SEARCH if flags[name] is not None}
    return Plan(search, flags["stop"], flags.get("timestamps", False))


def open_writer(model: Path, device: str, flags: dict[str, Any], output: str | None = None) -> Writer:
    """A run's model, or a published one in its folder or file, made ready to write."""
    import torch

    from ..api import load
    from ..training.surroundings import torch_device
    from ..verbs.generate import Writer, published

    if flags["threads"]:
        torch.set_num_threads(flags["threads"])
    if (model / "recipe.yaml").is_file() or not (model.exists() or "/" in str(model)):
        run = load(model, device=device)
        return Writer(run.settings, run.fitted, run.model, run.device, output=output, precision=flags["precision"])
    recipe, columns, one = published(model)
    where = torch_device(device)
    return Writer(recipe, columns, one.to(where), where, output=output, precision=flags["precision"])


@click.command()
@click.argument("model", metavar="RUN|FOLDER", type=click.Path(path_type=Path))
@click.argument("prompts", nargs=-1)
@search_flags
@click.option("--output", metavar="COLUMN", help="Which text, where the model writes several.")
@click.option("--timestamps", is_flag=True, help="Of recordings: a line for each phrase, with when it is said.")
@device
@as_json
def generate(model: Path, prompts: tuple[str, ...], output: str | None, device: str, json_: bool, **flags: Any) -> None:
    """Write what follows PROMPTS, with a run or a published model (its folder, or a .gguf file).

    With a run that has an input, a prompt is a cell of it: a text to translate, a recording to write down. A single -
    reads prompts from standard input, one a line. One text is shown as it is written; of several, each when it has
    ended.
    """
    console = Console(quiet=json_)
    if list(prompts) == ["-"]:
        prompts = tuple(line.rstrip("\n") for line in sys.stdin)
    writer = open_writer(model, device, flags, output)
    texts, endings = [""] * len(prompts), [""] * len(prompts)
    for piece in writer.stream(prompts, plan_of(flags)):
        texts[piece.row] += piece.text
        endings[piece.row] = piece.ended or ""
        if not json_:
            show(piece, texts, prompts)
    for problem in writer.problems:
        console.warn(str(problem))
    console.say(str(writer.rates))
    rates = writer.rates
    rows = [
        {"prompt": prompt, "text": text, "ended": ending}
        for prompt, text, ending in zip(prompts, texts, endings, strict=True)
    ]
    result(
        json_,
        {
            "texts": rows,
            "tokens": rates.tokens,
            "tokens_per_second": rates.per_second,
            "first_token_seconds": rates.first,
        },
    )


def show(piece: Piece, texts: list[str], prompts: tuple[str, ...]) -> None:
    if len(prompts) == 1:
        click.echo(piece.text, nl=piece.ended is not None)
    elif piece.ended is not None:
        click.echo(f"{prompts[piece.row]}\n  → {texts[piece.row]}\n")
