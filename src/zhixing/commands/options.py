"""Options and manners that commands share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

__all__ = ["RUN", "SetCommand", "arrow_alone", "as_json", "device", "figures", "raw_recipe", "recipe_flags", "result"]

RUN = click.Path(path_type=Path)
as_json = click.option("--json", "json_", is_flag=True, help="Print one JSON object as the last line.")
device = click.option("--device", default="auto", show_default=True, metavar="NAME", help="cpu, cuda, cuda:1, mps.")


def result(json_: bool, content: Any) -> None:
    if json_:
        from ..run import finite

        click.echo(json.dumps(finite(content), ensure_ascii=False))


def arrow_alone() -> None:
    """Keep pyarrow from loading pandas at its first array, a quarter of a second, in a process that is a command's.

    A command is given files, never frames. Whatever else needs pandas in this process loads it as ever.
    """
    told = click.get_current_context().find_root().obj or {}
    if not told.get("own_process") or "pandas" in sys.modules:
        return
    import pyarrow as pa

    class Hidden:
        @staticmethod
        def find_spec(name: str, *_: Any) -> None:
            if name == "pandas":
                raise ModuleNotFoundError(name)

    sys.meta_path.insert(0, Hidden)
    try:
        pa.array([])  # it looks once
    finally:
        sys.meta_path.remove(Hidden)


def figures(metrics: dict[str, dict[str, float]]) -> None:
    for name, values in metrics.items():
        for metric, value in values.items():
            click.echo(f"{name}.{metric}  {value:.6g}")


def recipe_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """The dials that everybody turns; everything else is --set."""
    for option in (
        click.option("--target", multiple=True, metavar="COLUMN", help="Column to predict; may be given again."),
        click.option("--encoder", metavar="NAME", help="What reads the input, such as mlp, cnn, resnet18."),
        click.option("--epochs", type=float, help="Times that each training row is seen."),
        click.option("--batch-size", type=int, help="Rows in a step."),
        click.option("--lr", metavar="RATE", help="Learning rate, or 'find'."),
        click.option("--seed", type=int, help="All randomness follows from it."),
        click.option("--recipe", metavar="FILE", help="A recipe to start from: a file, or a name of one built in."),
        click.option("--set", "settings", multiple=True, metavar="A.B=C", help="Any setting of the recipe."),
        click.option("--on-error", type=click.Choice(["auto", "stop", "skip"]), help="What broken rows do."),
    ):
        command = option(command)
    return command


def raw_recipe(
    target: tuple[str, ...],
    epochs: float | None,
    batch_size: int | None,
    lr: str | None,
    seed: int | None,
    recipe: str | None,
    settings: tuple[str, ...],
    on_error: str | None,
) -> dict[str, Any]:
    from ..api import assemble

    return assemble(
        recipe, target=target or None, epochs=epochs, batch_size=batch_size, lr=lr, seed=seed,
        on_error=on_error, settings=settings,
    )  # fmt: skip


class SetCommand(click.Command):
    """``--set a=1 b=2 c=3``: one flag takes all the assignments that follow it."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        spread, follows, setting = [], False, False
        for argument in args:
            # What comes right after the flag belongs to it, whatever it looks like, so that a slip is told as one.
            if setting and not follows and "=" in argument and not argument.startswith("-"):
                spread += ["--set", argument]
                continue
            setting = argument == "--set" or follows
            follows = argument == "--set"
            spread.append(argument)
        return super().parse_args(context, spread)
