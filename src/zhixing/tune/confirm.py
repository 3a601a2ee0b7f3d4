"""What the best of many is worth: trained anew with fresh seeds, and measured on rows that no trial has seen.

The best figure of a search is flattered, since it is also the luckiest. So the best recipe and the one that the study
began with are trained with the same fresh seeds, and measured once on the test rows. The split stays the study's.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from ..console import Console
from ..randomness import fold
from ..recipe import Recipe
from ..report.files import flatten
from ..run import RunFolder
from ..training.surroundings import StopRequest
from .journal import Record
from .study import Study
from .trial import Workshop, begin_trial, measured, train_to

__all__ = ["confirm"]


def confirm(
    study: Study, shop: Workshop, best: Record, *, stop: StopRequest, console: Console
) -> dict[str, Any] | None:
    """Test metrics of the best recipe and of the one that the study began with, ``{"best": {metric: {…}}, …}``.

    Runs that are done are kept, so that a process that is killed goes on. None where there are no test rows, no
    seeds are asked for, or the process is asked to stop.
    """
    _, prepared = shop.data(Recipe(study.base))
    if not study.plan.confirm:
        return None
    if not len(prepared.split["test"]):
        console.warn("there are no test rows: the best recipe's figures are those it was chosen by, and flattered")
        return None
    seeds = [fold(study.plan.seed, "confirm", index) >> 33 for index in range(study.plan.confirm)]
    rivals: dict[str, tuple[str, dict[str, Any]]] = {
        "best": (f"trial-{best.number:03}", study.recipe_of(best).plain()),
        "default": ("default", dict(study.base)),
    }
    if not best.settings:
        rivals["default"] = rivals["best"]
    out: dict[str, Any] = {"trial": best.number, "seeds": seeds, "rows": len(prepared.split["test"])}
    for who, (name, plain) in rivals.items():
        each = []
        for seed in seeds:
            found = tested(study, shop, f"{name}-{seed}", Recipe(plain | {"seed": seed}), stop)
            if found is None:
                return None
            each.append(flatten(found))
            told = ", ".join(f"{key} {value:.4f}" for key, value in list(each[-1].items())[:2])
            console.say(f"confirming {who}, seed {seed}: {told}")
        out[who] = {key: spread([one[key] for one in each if key in one]) for key in each[0]}
    RunFolder(study.path).write_json("confirm.json", out)
    return out


def tested(study: Study, shop: Workshop, name: str, recipe: Recipe, stop: StopRequest) -> dict[str, Any] | None:
    """Train a recipe whole and measure it on the test rows, once; None if asked to stop."""
    folder = study.path / "confirm" / name
    begin_trial(folder, recipe)
    known: dict[str, Any] | None = RunFolder(folder).read_json("test.json")
    if known is not None:
        return known
    done = train_to(shop, folder, 1.0, stop=stop, costs=[])
    if done.figures is None:
        return None
    metrics: dict[str, Any] = measured(done.bench)
    RunFolder(folder).write_json("test.json", metrics)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return metrics


def spread(values: Sequence[float]) -> dict[str, Any]:
    """
    >>> spread([1.0, 3.0])
    {'mean': 2.0, 'deviation': 1.4142135623730951, 'values': [1.0, 3.0]}
    """
    deviation = stdev(values) if len(values) > 1 else None
    return {"mean": fmean(values), "deviation": deviation, "values": list(values)}
