"""Time that training waits for data, or spends on changing them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...report.files import number
from ..case import Case
from ..finding import Curve, Finding, Mend, escaped

__all__ = ["loading"]

SLOW, ENOUGH = 0.4, 1.0  # share of the time, and seconds from which that is worth a word


def loading(case: Case) -> Iterator[Finding]:
    """The share of its time that the loop stood still for data: of the run where there is one, else of a short one."""
    lines = case.log.get("timings", ())
    shares = [share for line in lines if (share := number(line.get("waiting"))) is not None]
    if shares:
        waiting, where = float(np.median(shares)), "in the run"
        long_enough = max((number(line.get("seconds")) or 0.0 for line in lines), default=0.0) * waiting > ENOUGH
    else:
        trial = case.trial
        waiting, where = trial.waited / max(trial.seconds, 1e-9), "in a short run"
        long_enough = trial.waited > ENOUGH
    steps = [number(line.get("step")) or 0.0 for line in lines]
    if waiting > SLOW and long_enough:
        yield Finding(
            "loading", "fault" if waiting > 0.7 else "warning",
            f"training waits for data for {waiting:.0%} of its time {where}",
            sure=0.9,
            evidence={"waiting": waiting, "measured": where},
            curve=Curve(steps, shares, "step", "share of time") if len(steps) == len(shares) and steps else None,
            advice="Put the cache on a local disk (ZHIXING_CACHE), or store smaller pictures (a smaller size).",
        )  # fmt: skip
    share = case.trial.augmenting / max(case.trial.seconds, 1e-9)
    if share > SLOW and case.trial.augmenting > ENOUGH:
        names = [name for name, one in case.recipe.inputs.items() if hasattr(one, "augment")]
        yield Finding(
            "loading", "warning",
            f"augmentation takes {share:.0%} of the time of training",
            sure=0.85,
            evidence={"augmenting": share, "seconds": case.trial.augmenting},
            mend=Mend(tuple(f"inputs.{escaped(name)}.augment=light" for name in names[:1])),
            advice="A lighter augmentation, or smaller pictures.",
        )  # fmt: skip
