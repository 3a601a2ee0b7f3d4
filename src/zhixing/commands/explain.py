"""``zhixing explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..console import Console
from .options import RUN, as_json, device, result

__all__ = ["explain"]


@click.command()
@click.argument("run", type=RUN)
@click.argument("inputs", nargs=-1)
@click.option(
    "--method", "methods", multiple=True, metavar="NAME", default=["integrated_gradients"], show_default=True,
    help="integrated_gradients, gradient_x_input, grad_cam, occlusion, attention_rollout, shapley, or all; may be "
    "given again.",
)  # fmt: skip
@click.option("--output", metavar="COLUMN", help="Which output; else the first.")
@click.option("--class", "label", metavar="NAME", help="Which class or tag; else the one that is predicted.")
@click.option("--step", type=click.IntRange(min=0), help="Which step of a series, or token of a text, from 0.")
@click.option("--nearest", type=click.IntRange(min=0), default=0, metavar="K", help="Show the K nearest training rows.")
@click.option("--flip", "flips", is_flag=True, help="Seek the smallest change of the row that flips its class.")
@click.option("--split", "part", default="test", show_default=True, help="Which rows of its own data, without INPUTS.")
@click.option("--rows", default="500", show_default=True, metavar="N", help="How many of those; or all.")
@click.option("--seed", type=int, default=0, show_default=True, help="All randomness follows from it.")
@click.option("--out", type=click.Path(path_type=Path), help="Write here: .html, .json, or a folder for all and PNG.")
@device
@as_json
def explain(
    run: Path,
    inputs: tuple[str, ...],
    part: str,
    rows: str,
    out: Path | None,
    device: str,
    json_: bool,
    label: str | None,
    step: int | None,
    **flags: Any,
) -> None:
    """Say what each part of INPUTS adds to RUN's answer: files, a folder, a table, or - for standard input.

    Without INPUTS, test rows of the run's own data, with the mean by class: explanations.html and explanations.json in
    the run folder, and a section of its report.
    """
    from ..api import load
    from ..explain import Plan
    from ..explain.command import explain_command
    from ..explain.goals import Ask

    most = None if rows == "all" else int(rows) if rows.isdigit() and int(rows) else 0
    if most == 0:
        raise click.UsageError(f"--rows is a number from 1, or all, not {rows!r}")
    plan = Plan(ask=Ask(label, step), rows=most, **flags)
    one = load(run, device=device)
    told = explain_command(
        one.settings, one.fitted, one.model, inputs, plan, folder=one.path, part=part, out=out,
        calibrations=one.calibrations, device=one.device, console=Console(quiet=json_),
    )  # fmt: skip
    result(json_, told)
