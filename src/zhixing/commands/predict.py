"""``zhixing predict``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import click

from ..console import Console
from .options import RUN, arrow_alone, as_json, device, result

__all__ = ["predict"]


@click.command()
@click.argument("run", type=RUN)
@click.argument("inputs", nargs=-1)
@click.option("--out", type=click.Path(path_type=Path), help="Write here: .csv, .parquet or .jsonl.")
@click.option("--format", "form", type=click.Choice(["table", "jsonl", "csv"]), help="What to print.")
@click.option("--probabilities", is_flag=True, help="Add the probability of every class.")
@click.option("--coverage", type=float, help="Add sets of classes and intervals that hold so many truths, as 0.9.")
@click.option(
    "--sets",
    type=click.Choice(["threshold", "adaptive"]),
    default="threshold",
    help="Smallest sets, or fair to hard rows.",
)
@click.option("--timestamps", is_flag=True, help="Of recordings: when each phrase is said.")
@click.option("--explain", type=click.Path(path_type=Path), help="Also explain: .html, .json, or a folder for all.")
@device
@as_json
def predict(
    run: Path,
    inputs: tuple[str, ...],
    out: Path | None,
    form: str | None,
    probabilities: bool,
    coverage: float | None,
    sets: Literal["threshold", "adaptive"],
    timestamps: bool,
    explain: Path | None,
    device: str,
    json_: bool,
) -> None:
    """Predict for INPUTS: picture files, a folder, a table, or - for JSON lines or CSV on standard input."""
    arrow_alone()
    from ..api import load
    from ..verbs.predict import Wanted, predict_command

    if json_ and form not in (None, "jsonl"):
        raise click.UsageError(f"--json gives JSON lines: --format {form} does not go with it")
    if explain is not None:
        from ..explain.command import explain_command, keep_input
        from ..explain.output import check_out

        check_out(explain)
        rewind = keep_input(inputs)
    one = load(run, device=device)
    told = predict_command(
        one.settings, one.fitted, one.model, inputs, device=one.device, out=out,
        wanted=Wanted(probabilities, coverage, sets, one.calibrations, timestamps),
        form=form or ("jsonl" if json_ or not sys.stdout.isatty() else "table"), console=Console(quiet=json_),
    )  # fmt: skip
    if explain is not None and told["broken"] < told["rows"]:
        rewind()
        found = explain_command(
            one.settings, one.fitted, one.model, inputs or ("-",), folder=one.path, out=explain,
            calibrations=one.calibrations, device=one.device, console=Console(quiet=True),
        )  # fmt: skip
        told["explanations"] = found["out"]
    result(json_, told)
    if told["broken"] and told["broken"] >= told["rows"]:  # the empty answers stand; a script is to know of it
        from ..errors import DataError

        raise DataError("no row can be read", mend="The reasons are above.")
