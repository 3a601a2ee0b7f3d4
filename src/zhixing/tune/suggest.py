"""The settings of the next trial: a function of the seed, its number, and what is known of the others.

The first trials are those that are given, the recipe as it is before all others. The next are drawn so that they cover
each range evenly (McKay et al., "A comparison of three methods for selecting values of input variables", 1979). Then a
model of good and bad settings (TPE; Bergstra et al., "Algorithms for hyper-parameter optimization", 2011) is fitted to
the results of the highest rung that has enough of them (Falkner et al., "BOHB", 2018), so that figures of trainings of
different lengths are not mixed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import RecipeError
from ..randomness import fold, permutation, uniform
from ..recipe import Recipe, check
from .journal import Record, optuna_library
from .objectives import Objective, oriented
from .paths import settings_at, with_settings
from .space import Dimension, default_space

__all__ = ["ENOUGH", "Draw", "Space", "suggest"]

ENOUGH = 8  # results that a model can be fitted to


@dataclass
class Draw:
    """The settings of one trial, and the same as Optuna keeps them."""

    settings: dict[str, Any] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    distributions: dict[str, Any] = field(default_factory=dict)

    def add(self, one: Dimension, key: str, drawn: Any) -> None:
        self.settings[one.path] = one.value(drawn)
        self.params[key], self.distributions[key] = drawn, one.distribution()


Pick = Callable[[Dimension, str], Any]  # what is drawn for a dimension under a key, None: the recipe's own value


@dataclass(frozen=True)
class Space:
    """What may vary around a recipe: the ranges that are given, and with ``defaults`` those that matter by default."""

    base: Mapping[str, Any]
    given: Sequence[Dimension]
    defaults: bool

    def draw(self, pick: Pick) -> Draw:
        """Settings, those first that others hang on: a drawn encoder brings its own."""
        draw = Draw()
        structure = [one for one in self.dimensions(self.base) if one.structural]
        for one in structure:
            if (drawn := pick(one, one.path)) is not None:
                draw.add(one, one.path, drawn)
        raw = with_settings(self.base, draw.settings)
        for one in self.dimensions(raw):
            if not one.structural and (drawn := pick(one, key_of(one, structure, draw.settings))) is not None:
                draw.add(one, key_of(one, structure, draw.settings), drawn)
        return draw

    def dimensions(self, raw: Mapping[str, Any]) -> list[Dimension]:
        """What may vary in a recipe; of the given ranges, those of settings that it has."""
        given = [one for one in self.given if not check(with_settings(raw, {one.path: first_of(one)}))]
        named = {one.path for one in given}
        return [
            *given,
            *(one for one in (default_space(Recipe(raw)) if self.defaults else ()) if one.path not in named),
        ]


def first_of(one: Dimension) -> Any:
    return one.choices[0] if one.kind == "choices" else one.drawn(one.low)


def key_of(one: Dimension, structure: Sequence[Dimension], settings: Mapping[str, Any]) -> str:
    """The name under which a dimension is remembered: the same setting of another encoder is another one."""
    for above in structure:
        if one.path.startswith(above.path.rpartition(".")[0] + "."):
            return f"{one.path} ({settings.get(above.path)})"
    return one.path


def suggest(
    space: Space,
    number: int,
    records: Sequence[Record],
    *,
    queue: Sequence[Mapping[str, Any]],
    objectives: Sequence[Objective],
    sampler: str,
    seed: int,
) -> Draw:
    """The settings of trial ``number``; the first are those of the ``queue``."""
    if number < len(queue):
        return queued(space, queue[number])
    known = observations(records, objectives)
    if sampler == "tpe" and sum(one.state.is_finished() for one in known) < ENOUGH:
        return space.draw(lambda one, key: one.at(even(number, seed, key)))
    optuna = optuna_library()
    key = fold(seed, "suggest", number) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        chosen = (
            optuna.samplers.RandomSampler(seed=key)
            if sampler == "random"
            else optuna.samplers.TPESampler(seed=key, n_startup_trials=ENOUGH)
        )
        study = optuna.create_study(directions=["maximize"] * len(objectives), sampler=chosen)
        study.add_trials(known)
        trial = study.ask()

    def pick(one: Dimension, key: str) -> Any:
        if one.kind == "choices":
            return trial.suggest_categorical(key, one.distribution().choices)
        if one.kind == "int":
            return trial.suggest_int(key, int(one.low), int(one.high), step=one.step, log=one.log)
        return trial.suggest_float(key, one.low, one.high, log=one.log)

    return space.draw(pick)


def even(number: int, seed: int, key: str) -> float:
    """Where a trial stands in a range, in [0, 1): of eight trials in a row one in each eighth (a Latin hypercube)."""
    turn, place = divmod(number, ENOUGH)
    stratum = int(permutation(ENOUGH, seed, "even", key, turn)[place])
    return float((stratum + uniform(1, seed, "within", key, number)[0]) / ENOUGH)


def queued(space: Space, settings: Mapping[str, Any]) -> Draw:
    """Settings that are given; what they leave open stays as in the recipe."""
    raw = with_settings(space.base, settings)
    if problems := check(raw, complete=True):
        raise RecipeError(problems)

    def pick(one: Dimension, key: str) -> Any:
        found = settings_at(raw, [one.path])
        return one.drawn(found[one.path]) if found else None

    draw = space.draw(pick)
    return Draw(dict(settings), draw.params, draw.distributions)


def model_rung(records: Sequence[Record]) -> int:
    """The highest rung that enough trials have been at, else the lowest that any has."""
    at = [rung for record in records for rung in record.seen]
    return max((rung for rung in at if at.count(rung) >= ENOUGH), default=min(at, default=0))


def observations(records: Sequence[Record], objectives: Sequence[Objective]) -> list[Any]:
    """What the model is fitted to, in Optuna's words: a failed trial counts as the worst that was seen, one that is
    still on its way as a place that is taken."""
    from optuna.trial import TrialState, create_trial

    rung = model_rung(records)
    points = {one.number: oriented(objectives, one.seen[rung]["values"], one.seen[rung]["loss"])
              for one in records if rung in one.seen}  # fmt: skip
    worst = [min(column) for column in zip(*points.values(), strict=True)]
    out = []
    for one in records:
        told = {"params": one.params, "distributions": one.distributions}
        if one.number in points:
            out.append(create_trial(state=TrialState.COMPLETE, values=list(points[one.number]), **told))
        elif one.state == "failed" and worst:
            out.append(create_trial(state=TrialState.COMPLETE, values=worst, **told))
        elif one.owed:
            out.append(create_trial(state=TrialState.RUNNING, **told))
    return out
