"""The commands' options. What they do is in :mod:`zhixing.verbs`, which is imported when a command runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .console import Console

__all__ = ["completion", "describe", "evaluate", "init", "predict", "report", "schema", "train"]

RUN = click.Path(path_type=Path)
as_json = click.option("--json", "json_", is_flag=True, help="Print one JSON object as the last line.")
device = click.option("--device", default="auto", show_default=True, metavar="NAME", help="cpu, cuda, cuda:1, mps.")


def result(json_: bool, content: Any) -> None:
    if json_:
        from .run import finite

        click.echo(json.dumps(finite(content), ensure_ascii=False))


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
    from .api import assemble

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
    from .verbs.train import resume
    from .verbs.train import train as train_verb

    console = Console(quiet=json_)
    if resume_ is not None:
        given = [*flags.values(), data, encoder, out]
        if any(value is not None and value != () for value in given):
            raise click.UsageError("--resume goes on with the run's own recipe: no other setting can be given with it")
        run = resume(resume_, device=device, console=console)
    else:
        from .api import source_of

        raw = raw_recipe(**flags)
        source = data if data is not None else source_of(raw)
        run = train_verb(source, raw, out=out, device=device, encoder=encoder, console=console)
    evaluation = run.read_json("evaluation.json") or {"outputs": {}}
    metrics = {name: entry["metrics"] for name, entry in evaluation["outputs"].items()}
    if not json_:
        figures(metrics)
    result(json_, {"run": str(run.path), "metrics": metrics})


@click.command()
@click.argument("run", type=RUN)
@click.argument("data", required=False)
@click.option("--split", "part", help="train, validation, test or all; else test of its own data, all of other DATA.")
@device
@as_json
def evaluate(run: Path, data: str | None, part: str | None, device: str, json_: bool) -> None:
    """Measure RUN on its test rows, or on all rows of DATA."""
    from .api import load

    console = Console(quiet=json_)
    found = load(run, device=device).examine(data, part, console)
    console.say(f"{found['split']}: {found['rows']:,} rows")
    metrics = {name: entry["metrics"] for name, entry in found["outputs"].items()}
    if not json_:
        figures(metrics)
    result(json_, metrics)


@click.command()
@click.argument("run", type=RUN)
@click.argument("inputs", nargs=-1)
@click.option("--out", type=click.Path(path_type=Path), help="Write here: .csv, .parquet or .jsonl.")
@click.option("--format", "form", type=click.Choice(["table", "jsonl", "csv"]), help="What to print.")
@click.option("--probabilities", is_flag=True, help="Add the probability of every class.")
@device
@as_json
def predict(
    run: Path,
    inputs: tuple[str, ...],
    out: Path | None,
    form: str | None,
    probabilities: bool,
    device: str,
    json_: bool,
) -> None:
    """Predict for INPUTS: picture files, a folder, a table, or - for JSON lines or CSV on standard input."""
    from .api import load
    from .verbs.predict import predict_command

    if json_ and form not in (None, "jsonl"):
        raise click.UsageError(f"--json gives JSON lines: --format {form} does not go with it")
    one = load(run, device=device)
    told = predict_command(
        one.settings, one.fitted, one.model, inputs, device=one.device, out=out, probabilities=probabilities,
        form=form or ("jsonl" if json_ or not sys.stdout.isatty() else "table"), console=Console(quiet=json_),
    )  # fmt: skip
    result(json_, told)
    if told["broken"] and told["broken"] >= told["rows"]:  # the empty answers stand; a script is to know of it
        from .errors import DataError

        raise DataError("no row can be read", mend="The reasons are above.")


@click.command()
@click.argument("run", type=RUN)
@as_json
def report(run: Path, json_: bool) -> None:
    """Write the report and the model card of RUN anew from what it holds."""
    from .report import write_card, write_report
    from .run import RunFolder

    folder = RunFolder(run)
    card, page = write_card(folder.path), write_report(folder.path)
    if not json_:
        click.echo(str(page))
    result(json_, {"report": str(page), "card": str(card)})


@click.command(cls=SetCommand)
@click.argument("subject")
@recipe_flags
@device
@as_json
def describe(subject: str, device: str, json_: bool, encoder: str | None, **flags: Any) -> None:
    """Say what SUBJECT holds and needs: data (or a recipe), or a run. Types, sizes, parameters, memory, operations."""
    from .api import source_of
    from .verbs.describe import describe as describe_verb
    from .verbs.describe import show

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


@click.command(cls=SetCommand)
@click.argument("data")
@recipe_flags
@click.option("--out", type=click.Path(path_type=Path), help="Write the recipe to this file; else print it.")
@as_json
def init(data: str, out: Path | None, json_: bool, encoder: str | None, **flags: Any) -> None:
    """Write a commented recipe for DATA: every setting with its default and what it is for."""
    from .verbs.init import write_recipe

    if out is not None and out.exists():
        raise click.UsageError(f"{out} exists; name another file")
    text = write_recipe(data, raw_recipe(**flags), encoder=encoder)
    if out is not None:
        out.write_text(text, "utf-8")
        click.echo(f"{out}: now `zhixing train --recipe {out}`", err=True)
    elif not json_:
        click.echo(text, nl=False)
    result(json_, {"out": None if out is None else str(out), "recipe": text})


@click.command()
@as_json
def schema(json_: bool) -> None:
    """Print the JSON schema of recipes, for editors that check YAML."""
    from .recipe import json_schema

    text = json_schema()
    click.echo(json.dumps(json.loads(text), ensure_ascii=False) if json_ else text)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script for SHELL; in bash, put `eval "$(zhixing completion bash)"` in ~/.bashrc."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(click.get_current_context().find_root().command, {}, "zhixing", "_ZHIXING_COMPLETE").source())
