"""``zhixing tune``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from ..console import Console
from .options import RUN, SetCommand, as_json, device, raw_recipe, recipe_flags, result

__all__ = ["tune"]

UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def seconds_of(context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    """A span of time in seconds: 90, 90s, 30m, 2h."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", value.strip())
    if found is None or found[2] not in UNITS or not float(found[1]):
        raise click.BadParameter(f"{value!r} is not a time; write 90s, 30m or 2h")
    return float(found[1]) * UNITS[found[2]]


@click.command(cls=SetCommand)
@click.argument("data", required=False)
@recipe_flags
@click.option("--out", type=RUN, help="The study's folder; by default the next free studies/NAME-1.")
@click.option("--resume", "resume_", type=RUN, metavar="STUDY", help="Go on with a study, or join others at it.")
@click.option("--trials", type=click.IntRange(1), help="How many settings are tried (20).")
@click.option("--total-epochs", type=click.FloatRange(0, min_open=True), help="In place of --trials: epochs in all.")
@click.option(
    "--time", "seconds", metavar="TIME", callback=seconds_of, help="End the search after this time: 90s, 30m, 2h."
)
@click.option(
    "--objective", "objectives", multiple=True, metavar="NAME",
    help="A validation metric, loss, parameters or latency (ms a row); may be given again. NAME:max, NAME:min.",
)  # fmt: skip
@click.option(
    "--search", "ranges", multiple=True, metavar="A.B=RANGE",
    help="A setting to vary: 0:0.5, log:1e-4:1e-1, int:1:4 or [a, b]; in place of those by default.",
)  # fmt: skip
@click.option("--defaults", is_flag=True, help="Beside the ranges that are given, vary the settings that matter.")
@click.option(
    "--from", "warm", type=RUN, multiple=True, metavar="STUDY", help="Try the best of an earlier study first."
)
@click.option(
    "--halving", type=click.IntRange(1, 10), default=3, show_default=True,
    help="At each rung, one trial in so many goes on; 1 trains all of them whole.",
)  # fmt: skip
@click.option("--sampler", type=click.Choice(["tpe", "random"]), default="tpe", show_default=True)
@click.option(
    "--confirm", type=click.IntRange(0), default=3, show_default=True,
    help="Fresh seeds that the best recipe and the default are trained with, and measured on test rows.",
)  # fmt: skip
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes at work.")
@click.option("--cluster", type=click.Choice(["ray"]), help="Let Ray place the workers on a cluster.")
@click.option("--worker", is_flag=True, hidden=True)
@device
@as_json
@click.pass_context
def tune(
    context: click.Context, /, data: str | None, resume_: Path | None, out: Path | None, ranges: tuple[str, ...],
    trials: int | None, seconds: float | None, workers: int, cluster: str | None, worker: bool, device: str,
    json_: bool, encoder: str | None, **flags: Any,
) -> None:  # fmt: skip
    """Search for a better recipe for DATA: many settings, few of them trained to the end, the best confirmed."""
    from ..tune.search import Ask, Crew, go_on
    from ..tune.search import tune as tune_verb

    console = Console(quiet=json_ or worker)
    crew = Crew(workers, cluster, seconds)
    asked = {name: flags.pop(name) for name in ASKED}
    if resume_ is not None:
        refuse_settings(context)
        found = go_on(resume_, crew=crew, trials=trials, device=device, console=console, worker=worker)
    else:
        from ..api import source_of

        raw = raw_recipe(**flags)
        source = data if data is not None else source_of(raw)
        ask = Ask(trials=trials, ranges=assignments(ranges) if ranges else None, **asked)
        found = tune_verb(source, raw, ask, crew=crew, out=out, device=device, encoder=encoder, console=console)
    if not json_ and not worker:
        show(found)
    result(json_, found)


ASKED = ("total_epochs", "objectives", "defaults", "warm", "halving", "sampler", "confirm")
WITH_RESUME = {"resume_", "trials", "seconds", "workers", "cluster", "worker", "device", "json_"}


def refuse_settings(context: click.Context) -> None:
    """A study goes on with what it was begun with."""
    given = [
        name for name in context.params
        if name not in WITH_RESUME and context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    ]  # fmt: skip
    if given:
        raise click.UsageError("--resume goes on with the study's own settings; only --trials, --time, --workers, "
                               "--cluster and --device can be given with it")  # fmt: skip


def assignments(words: tuple[str, ...]) -> dict[str, str]:
    """``a.b=range`` as a mapping."""
    pairs = [re.split(r"(?<!\\)=", word, maxsplit=1) for word in words]
    wrong = [pair[0] for pair in pairs if len(pair) < 2 or not pair[0].strip()]
    if wrong:
        raise click.UsageError(f"--search wants name.of.setting=range, not {wrong[0]!r}")
    return {path.strip(): text for path, text in pairs}


def show(found: dict[str, Any]) -> None:
    states = ", ".join(f"{count} {state}" for state, count in found["states"].items())
    click.echo(f"{found['trials']} trials ({states}), {found['epochs']:g} epochs in all")
    best = found["best"]
    if best is None:
        return
    values = ", ".join(f"{name} {value:.6g}" for name, value in best["values"].items())
    click.echo(f"best: trial {best['trial']}: {values} (of validation rows, and of many: flattered)")
    for path, value in best["settings"].items():
        click.echo(f"  {path}  {value}")
    for who in ("best", "default") if found["confirm"] else ():
        for metric, told in list(found["confirm"][who].items())[:3]:
            spread = "" if told["deviation"] is None else f" ± {told['deviation']:.4f}"
            click.echo(f"test rows, {who}: {metric}  {told['mean']:.6g}{spread}")
