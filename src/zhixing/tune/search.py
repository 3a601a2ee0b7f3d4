"""Tune: from a source to a study, its best recipe, and what that is worth."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import recipe as recipes
from ..console import Console
from ..data.source import open_source
from ..errors import RunError, UsageError
from ..recipe import Recipe, reshaped
from ..run import RunFolder, new_folder, write_whole
from ..training.checkpoint import exclusive
from ..training.surroundings import StopRequest, asked_to_stop, torch_device
from ..verbs.complete import complete
from ..verbs.train import describe_source, resolved
from .confirm import confirm
from .hyperband import rungs, trials_within
from .objectives import objectives_of
from .page import write_page
from .paths import with_settings
from .ranges import given_space
from .study import Plan, Study, best_of, extended, work, write_plan
from .suggest import Space
from .trial import Workshop, figures_before
from .workers import helpers, ray_library, ray_workers

__all__ = ["Ask", "Crew", "StudyStopped", "go_on", "tune"]

WARM = 3  # trials that are taken over from an earlier study
LEFT = {"recipe.yaml", ".recipe.yaml.part", ".study.json.part"}  # of a process that was killed before it had a study


class StudyStopped(Exception):  # noqa: N818
    """The study was asked to stop by a signal; its journal and checkpoints have what it needs to go on."""

    def __init__(self, signum: int, folder: Path) -> None:
        super().__init__(f"stopped; go on with: zhixing tune --resume {folder}")
        self.exit_status = 128 + signum


@dataclass(frozen=True)
class Ask:
    """What is asked of a study.

    ``trials`` or ``total_epochs`` says how much may be tried; ``objectives`` what for; ``ranges`` which settings may
    vary, those that matter by default if there are none or ``defaults`` is set; ``warm`` are earlier studies;
    ``halving`` is the share of trials that stop at each rung, one in so many going on (1: all are trained whole).
    """

    trials: int | None = None
    total_epochs: float | None = None
    objectives: Sequence[str] = ()
    ranges: Mapping[str, Any] | None = None
    defaults: bool = False
    warm: Sequence[Path] = ()
    halving: int = 3
    sampler: str = "tpe"
    confirm: int = 3


@dataclass(frozen=True)
class Crew:
    """Who works: so many processes, on this machine or by Ray, for so many seconds."""

    workers: int = 1
    cluster: str | None = None
    seconds: float | None = None


def tune(
    source: Any,
    raw: Mapping[str, Any],
    ask: Ask | None = None,
    *,
    crew: Crew | None = None,
    out: Path | None = None,
    device: str = "auto",
    encoder: Any = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Search for a better recipe around the one that a recipe's plain data and the table give.

    Gives ``{"study", "trials", "best", "confirm", "report", …}``, see :func:`summary`.

    Raises:
        RecipeError, UsageError, DataError: what was asked for cannot be done; nothing has been written.
        MissingExtraError: Optuna is not installed.
        StudyStopped: a signal asked to stop.
    """
    ask, crew, console = ask or Ask(), crew or Crew(), console or Console(quiet=True)
    where = torch_device(device)
    if crew.cluster:  # told of before anything is written
        ray_library()
    table = reshaped(open_source(source), raw)
    done = complete(raw, table, encoder, source=describe_source(source, table))
    if done.modules:
        raise UsageError("a module of one's own cannot be tuned", mend="Name one of the encoders that there are.")
    asked = Recipe(done.raw)
    shop = Workshop(table, where, split_seed=asked.seed)
    columns, prepared = shop.data(asked)
    recipe = with_threads(resolved(asked, columns, where), asked, crew.workers)
    if recipe.data.source.startswith("memory:") and (crew.workers > 1 or crew.cluster):
        raise UsageError("data in memory cannot be shared by several workers", mend="Write them to a file.")
    plan = plan_of(ask, recipe, asked.tune, shop, prepared.fingerprint)
    folder = claim_folder(out, table.name)
    write_whole(folder / "recipe.yaml", recipes.dump(recipe.plain()).encode())
    write_plan(folder, plan)
    at = ", ".join(f"{recipe.training.epochs * share:.3g}" for share in plan.shares)
    goals = ", ".join(one.label for one in plan.objectives)
    console.say(f"{folder}: {plan.trials} trials, rungs at {at} of {recipe.training.epochs:g} epochs, for {goals}")
    return run(Study(folder), shop, crew, console)


def go_on(
    path: Path,
    *,
    crew: Crew | None = None,
    trials: int | None = None,
    source: Any = None,
    device: str = "auto",
    console: Console | None = None,
    worker: bool = False,
) -> dict[str, Any]:
    """Go on with a study that was stopped or killed, join one that others are at, or give one that is at its end more
    ``trials``. A ``worker`` leaves what comes after the trials to others.

    Raises:
        RunError: it is not a study, or its data are no longer the same.
    """
    console = console or Console(quiet=True)
    study = Study(path)
    if trials is not None and trials < study.plan.trials:
        raise UsageError(f"the study has {study.plan.trials} trials already; {trials} are fewer", place="--trials")
    recipe = Recipe(study.base)
    table = reshaped(open_source(recipe.data.source if source is None else source), recipe.plain())
    shop = Workshop(table, torch_device(device), split_seed=study.plan.seed)
    if shop.data(recipe)[1].fingerprint != study.plan.fingerprint:
        raise RunError(
            "the data are not what the study was begun with",
            place=recipe.data.source,
            mend="Restore them, or begin a new study.",
        )
    if trials is not None:
        extended(study, trials)
    return run(study, shop, crew or Crew(), console, worker=worker)


def run(study: Study, shop: Workshop, crew: Crew, console: Console, *, worker: bool = False) -> dict[str, Any]:
    """Do all that is due, then confirm the best and write the page."""
    until = float("inf") if crew.seconds is None else time.monotonic() + crew.seconds
    device = str(shop.device)
    with asked_to_stop() as stop, console:
        if crew.cluster == "ray":
            ray_workers(study.path, crew.workers, device=device, seconds=crew.seconds)
        more = 0 if crew.cluster else crew.workers - 1
        with helpers(study.path, more, device=device, seconds=crew.seconds, console=console):
            work(study, shop, stop=stop, until=until, console=console)
        if not worker and not stop.signum:
            conclude(study, shop, stop, console)
    if stop.signum:
        raise StudyStopped(stop.signum, study.path)
    return summary(study)


def conclude(study: Study, shop: Workshop, stop: StopRequest, console: Console) -> None:
    """Write the best recipe, confirm it, write the page. Of several processes that come here, one does it."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive(study.path))
        except RunError:
            console.say("another process is writing down what was found")
            return
        found = best_of(study, study.journal.records())
        if not found:
            console.warn("no trial has been validated: there is no best recipe yet")
            return
        write_whole(study.path / "best.yaml", recipes.dump(study.recipe_of(found[0]).plain()).encode())
        write_page(study)
        confirm(study, shop, found[0], stop=stop, console=console)
        write_page(study)
    console.say(f"best recipe: {study.path / 'best.yaml'}   report: {study.path / 'report.html'}")


def summary(study: Study) -> dict[str, Any]:
    """What came of a study, as JSON."""
    records = study.journal.records()
    states = [one.state for one in records]
    found = best_of(study, records)
    best = None
    if found:
        figures = found[0].seen[max(found[0].seen)]
        labels = [one.label for one in study.plan.objectives]
        best = {
            "trial": found[0].number,
            "values": dict(zip(labels, figures["values"], strict=True)),
            "epoch": figures["epoch"],
            "settings": found[0].settings,
        }
    return {
        "study": str(study.path),
        "trials": len(records),
        "states": {state: states.count(state) for state in dict.fromkeys(states)},
        "epochs": round(sum(max((seen["epoch"] for seen in one.seen.values()), default=0.0) for one in records), 4),
        "best": best,
        "confirm": RunFolder(study.path).read_json("confirm.json"),
        "report": str(study.path / "report.html"),
    }


# Before the first trial ---------------------------------------------------------------------------------------------


def plan_of(ask: Ask, recipe: Recipe, in_recipe: Mapping[str, Any], shop: Workshop, fingerprint: str) -> Plan:
    """All that is decided at the start, checked."""
    if ask.trials is not None and ask.total_epochs is not None:
        raise UsageError("--trials and --total-epochs both say how much may be tried", mend="Give one of them.")
    model, metrics = figures_before(shop, recipe)
    objectives = objectives_of(ask.objectives, model, metrics)
    ranges = dict(in_recipe if ask.ranges is None else {**in_recipe, **ask.ranges})
    base = recipe.plain()
    space = Space(base, given_space(ranges, base), ask.defaults or not ranges)
    if not space.dimensions(base):
        raise UsageError("there is nothing to search", mend="Give ranges: --search training.optimizer.lr=log:1e-4:1e-1")
    training = recipe.training
    validations = 9 if training.tokens is not None or training.validate_every else int(training.epochs)
    shares = rungs(validations, ask.halving)
    trials = ask.trials if ask.trials is not None else 20
    if ask.total_epochs is not None:
        trials = trials_within(shares, ask.halving, ask.total_epochs / training.epochs)
        if not trials:
            raise UsageError(
                f"{ask.total_epochs:g} epochs are less than one training of {training.epochs:g}",
                place="--total-epochs",
                mend="Give more, or fewer --epochs to each trial.",
            )
    queue = [{}, *(settings for path in ask.warm for settings in taken_over(path, space))]
    return Plan(
        trials=trials,
        shares=shares,
        objectives=tuple(objectives),
        seed=recipe.seed,
        halving=ask.halving,
        sampler=ask.sampler,
        ranges=ranges,
        defaults=space.defaults,
        queue=tuple(queue[:trials]),
        confirm=ask.confirm,
        source=recipe.data.source,
        fingerprint=fingerprint,
    )


def taken_over(path: Path, space: Space) -> list[dict[str, Any]]:
    """The settings of an earlier study's best trials, as far as they are searched here."""
    earlier = Study(path)
    names = {one.path for one in space.dimensions(space.base)}
    found = best_of(earlier, earlier.journal.records())[:WARM]
    out = []
    for record in found:
        settings = {key: value for key, value in record.settings.items() if key in names}
        if settings and not recipes.check(with_settings(space.base, settings), complete=True):
            out.append(settings)
    return out


def with_threads(recipe: Recipe, asked: Recipe, workers: int) -> Recipe:
    """Threads that several workers share, unless their number was asked for."""
    if asked.training.threads is not None or workers < 2:
        return recipe
    plain = recipe.plain()
    plain["training"]["threads"] = max(1, (os.cpu_count() or 1) // workers)
    torch.set_num_threads(plain["training"]["threads"])
    return Recipe(plain)


def claim_folder(out: Path | None, name: str) -> Path:
    if out is None:
        return new_folder(Path("studies"), name)
    if out.exists() and {path.name for path in out.iterdir()} - LEFT:
        raise UsageError(
            f"{out} exists and is not empty",
            mend=f"Name another folder, or go on with that study: zhixing tune --resume {out}",
        )
    out.mkdir(parents=True, exist_ok=True)
    return out
