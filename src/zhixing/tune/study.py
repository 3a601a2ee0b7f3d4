"""A study: a folder that processes share, each of which does what is due next until nothing is.

::

    studies/digits-1/
      study.json  recipe.yaml      what is searched, how, and around which recipe
      journal.log                  all that happened, a line each (Optuna's journal)
      trials/007/                  a run folder with its checkpoints
      best.yaml  confirm.json  report.html
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..console import Console
from ..errors import RunError, TrainingError, UsageError
from ..recipe import Recipe, load
from ..run import finite, write_whole
from ..training.checkpoint import exclusive
from ..training.surroundings import StopRequest
from .hyperband import Bracket, brackets, order, verdict
from .journal import Journal, Record, held
from .objectives import Objective, oriented
from .paths import with_settings
from .ranges import given_space
from .suggest import Draw, Space, suggest
from .trial import Workshop, begin_trial, train_to

__all__ = ["Plan", "Study", "best_of", "described", "extended", "work", "write_plan"]

FORMAT = 1


@dataclass(frozen=True)
class Plan:
    """What a study is to do, as study.json has it. ``shares`` are the rungs, as parts of a whole training."""

    trials: int
    shares: tuple[float, ...]
    objectives: tuple[Objective, ...]
    seed: int = 0
    halving: int = 3
    sampler: str = "tpe"
    ranges: Mapping[str, Any] = field(default_factory=dict)
    defaults: bool = True
    queue: tuple[Mapping[str, Any], ...] = ({},)
    confirm: int = 3
    source: str = ""
    fingerprint: str = ""
    format: int = FORMAT


class Study:
    """The folder of a study: its plan, its base recipe, its trials.

    Raises:
        RunError: it is not a study, or of another version.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.plan = self.read_plan()
        self.base: dict[str, Any] = load(self.path / "recipe.yaml")
        self.space = Space(self.base, given_space(self.plan.ranges, self.base), self.plan.defaults)
        directions = ["maximize" if one.higher else "minimize" for one in self.plan.objectives]
        self.journal = Journal(self.path / "journal.log", directions)

    def read_plan(self) -> Plan:
        try:
            told = json.loads((self.path / "study.json").read_text("utf-8"))
            if told["format"] != FORMAT:
                raise RunError(f"this study is of format {told['format']}, not {FORMAT}", place=self.path)
            objectives = tuple(Objective(**one) for one in told.pop("objectives"))
            shares, queue = tuple(told.pop("shares")), tuple(told.pop("queue"))
            return Plan(objectives=objectives, shares=shares, queue=queue, **told)
        except FileNotFoundError:
            raise RunError(
                "this is not a study: it has no study.json",
                place=self.path,
                mend="Give the folder that `zhixing tune` wrote.",
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"study.json cannot be read: {error!r}", place=self.path) from error

    def folder(self, number: int) -> Path:
        return self.path / "trials" / f"{number:03}"

    def recipe_of(self, record: Record) -> Recipe:
        return Recipe(with_settings(self.base, record.settings))

    def points(self, records: Sequence[Record], rung: int) -> dict[int, tuple[float, ...]]:
        """The values at a rung, more is better, by trial."""
        return {one.number: self.point(one, rung) for one in records if rung in one.seen and one.state != "failed"}

    def point(self, record: Record, rung: int) -> tuple[float, ...]:
        figures = record.seen[rung]
        return oriented(self.plan.objectives, figures["values"], figures["loss"])


def write_plan(path: Path, plan: Plan) -> None:
    write_whole(path / "study.json", json.dumps(finite(asdict(plan)), ensure_ascii=False, indent=1).encode())


def best_of(study: Study, records: Sequence[Record]) -> list[Record]:
    """The trials at the highest rung that any has reached, the best first."""
    top = max((rung for one in records if one.state != "failed" for rung in one.seen), default=None)
    if top is None:
        return []
    return [records[number] for number in order(study.points(records, top))]


# What is due --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """A trial, and the rung to train it to."""

    record: Record
    rung: int


def settle(study: Study, records: Sequence[Record]) -> list[Record]:
    """Write down what follows from the results: who is done, goes on, stops. Gives the trials as they then are."""
    plan, last = study.plan, len(study.plan.shares) - 1
    scores = [study.points(records, rung) for rung in range(last + 1)]
    gone = {one.number for one in records if one.state in ("failed", "pruned")}
    changed = [finish_one(study, one) for one in records if one.rung == last and last in one.seen]
    for bracket in brackets(last + 1, plan.halving, plan.trials):
        here = [records[number] for number in bracket.numbers if number < len(records)]
        if len(here) == bracket.size and any(one.state == "running" for one in here):
            goal, stopped = verdict(bracket, scores, gone, plan.halving)
            changed += [settle_one(study, one, goal[one.number], one.number in stopped) for one in here]
    return study.journal.records() if any(changed) else list(records)


def finish_one(study: Study, one: Record) -> bool:
    if one.state == "running":
        study.journal.finish(one, one.seen[one.rung]["values"])
    return one.state == "running"


def settle_one(study: Study, one: Record, goal: int, stopped: bool) -> bool:
    """Stop a trial, or send it on to the next rung; whether there was anything to do."""
    if one.state != "running" or one.owed or one.rung == len(study.plan.shares) - 1:
        return False
    if stopped:
        study.journal.stop(one)
        shutil.rmtree(study.folder(one.number) / "checkpoints", ignore_errors=True)
    elif goal > one.rung:
        study.journal.promote(one, goal)
    return stopped or goal > one.rung


def due(study: Study, claims: contextlib.ExitStack) -> Task | bool:
    """The next thing to do, claimed; False where others are at work and something may follow from it, True at the end.

    Trials that somebody has to go on with come first, those of a process that has died among them, then a new one.
    """
    with held(study.path / "study.lock"):
        study.plan = study.read_plan()
        records = settle(study, study.journal.records())
        busy = False
        for one in records:
            if one.owed:
                if claim(study, one, claims):
                    if study.journal.records()[one.number].owed:
                        return Task(one, one.rung)
                    claims.close()  # it was reported between the two looks
                busy = True
        if len(records) < study.plan.trials:
            one = begin(study, records)
            claimed = claim(study, one, claims)
            assert claimed  # nobody else could know of it
            return Task(one, one.rung)
        return not busy


def claim(study: Study, one: Record, claims: contextlib.ExitStack) -> bool:
    """Take a trial for this process, as long as it lives; False where another has it."""
    folder = study.folder(one.number)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        claims.enter_context(exclusive(folder))
    except RunError:
        return False
    return True


def begin(study: Study, records: Sequence[Record]) -> Record:
    """A new trial in the journal."""
    plan, number = study.plan, len(records)
    draw: Draw = suggest(
        study.space, number, records,
        queue=plan.queue, objectives=plan.objectives, sampler=plan.sampler, seed=plan.seed,
    )  # fmt: skip
    rung = bracket_of(plan, number).start
    study.journal.begin(draw.settings, rung, draw.params, draw.distributions)
    return study.journal.records()[number]


def bracket_of(plan: Plan, number: int) -> Bracket:
    return next(one for one in brackets(len(plan.shares), plan.halving, plan.trials) if number in one.numbers)


# One process --------------------------------------------------------------------------------------------------------


def work(study: Study, shop: Workshop, *, stop: StopRequest, until: float, console: Console) -> bool:
    """Do what is due until nothing is, or until asked to stop; whether the study is at its end."""
    while not stop.signum and time.monotonic() < until:
        with contextlib.ExitStack() as claims:
            task = due(study, claims)
            if isinstance(task, Task):
                train(study, shop, task, stop=stop, until=until, console=console)
                continue
        if task:
            return True
        time.sleep(0.5)
    return False


def train(study: Study, shop: Workshop, task: Task, *, stop: StopRequest, until: float, console: Console) -> None:
    """Train a trial to its rung, and tell the journal."""
    one, plan = task.record, study.plan
    costs = [objective.name for objective in plan.objectives if objective.output is None and objective.name != "loss"]
    try:
        folder = study.folder(one.number)
        begin_trial(folder, study.recipe_of(one))
        done = train_to(shop, folder, plan.shares[task.rung], stop=stop, until=until, costs=costs)
        if done.figures is None:
            return
        values = [objective.read(done.figures) for objective in plan.objectives]
    except (UsageError, TrainingError, RuntimeError, ValueError) as error:  # these settings do not work; others may
        study.journal.fail(one, str(error))
        console.warn(f"trial {one.number} cannot be trained: {error}")
        stop_if_none_works(study, error)
        return
    study.journal.report(one, task.rung, done.figures | {"values": values})
    told = ", ".join(f"{objective.label} {value:.4g}" for objective, value in zip(plan.objectives, values, strict=True))
    console.say(f"trial {one.number}, epoch {done.figures['epoch']:g}: {told}   {described(one.settings)}")


def stop_if_none_works(study: Study, error: Exception) -> None:
    """Nobody is helped by a hundred trials that fail for the same reason."""
    records = study.journal.records()
    if len(records) >= 5 and all(one.state == "failed" for one in records):
        raise error


def described(settings: Mapping[str, Any]) -> str:
    """Settings on one line."""
    if not settings:
        return "the recipe as it is"
    return " ".join(
        f"{path.removeprefix('training.')}={value:.3g}" if isinstance(value, float) else f"{path}={value}"
        for path, value in settings.items()
    )


def extended(study: Study, trials: int) -> None:
    """More trials than were planned."""
    with held(study.path / "study.lock"):
        study.plan = replace(study.read_plan(), trials=trials)
        write_plan(study.path, study.plan)
