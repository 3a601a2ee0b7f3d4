"""The learning rate, by a range test (Smith, "Cyclical learning rates for training neural networks", 2017)."""

from __future__ import annotations

from collections.abc import Iterator

from ..case import Case
from ..finding import Curve, Finding, Mend
from ..trial import Trial, run_trial

__all__ = ["rate"]

FEWEST = 12  # steps of a short run that something can be said from
HIGH, LOW = 0.2, 200.0  # how many times as high as the recipe's rate the found one may be


def rate(case: Case) -> Iterator[Finding]:
    """A short run at the recipe's rate beside what a range test finds.

    Too high: the loss grows, or much of it does on the way. Too low: it hardly falls, and at the found rate it does.
    """
    trial = case.trial
    if trial.error or not trial.finite or len(trial.losses) < FEWEST:
        return
    search = case.found_rate
    found = search.steepest_rate
    asked = max(trial.rates)
    curve = Curve(search.rates, search.losses, "learning rate", "loss")
    mend = Mend((f"training.optimizer.lr={found:.2g}",))
    evidence = {"rate": asked, "found": found, "start": trial.start(), "end": trial.end(), "highest": max(trial.finite)}
    start, end, top = trial.start(), trial.end(), max(trial.finite)
    if end > 1.3 * start + 0.05 or top > 4 * start + 1:
        yield Finding(
            "rate", "fault" if end > start else "warning",
            f"at the learning rate {asked:.2g} the loss goes from {start:.4g} to {end:.4g} in {len(trial.losses)} "
            "steps "
            f"(highest {top:.4g}): the rate is too high; a range test finds {found:.2g}",
            sure=0.9, evidence=evidence, curve=curve, mend=mend,
        )  # fmt: skip
        return
    best = run_trial(case, case.fresh(), rate=found) if found > 5 * asked or 5 * found < asked else trial
    if best is not trial and stands_still(case, trial, best, found / asked):
        low = found > asked
        clear = (best.start() - best.end()) > 0.2 * best.start()
        yield Finding(
            "rate", "fault" if clear else "warning",
            f"at the learning rate {asked:.2g} the loss goes from {start:.4g} to {end:.4g} in {len(trial.losses)} "
            f"steps, at {found:.2g} (found by a range test) to {best.end():.4g}: the rate is too "
            + ("low" if low else "high"),
            sure=0.9, evidence={**evidence, "end_at_found": best.end()}, curve=curve, mend=mend,
        )  # fmt: skip
        return
    yield Finding(
        "rate", "note", f"the learning rate is {asked:.2g} at most, a range test finds {found:.2g}",
        sure=0.7, evidence=evidence, curve=curve,
    )  # fmt: skip


def stands_still(case: Case, trial: Trial, best: Trial, ratio: float) -> bool:
    """Whether the loss hardly falls, not even in all the steps of the whole run, where at the found rate it falls
    clearly.

    A range test likes high rates, and where the loss first waits and then falls, a short run says little: so a rate
    that is only some tens of times lower is let pass.
    """
    training = case.recipe.training
    ours, theirs = trial.start(1) - trial.end(), best.start(1) - best.end()
    if ratio > 1:
        steps = training.epochs * len(case.packed.split["train"]) / training.batch_size
        ours *= max(1.0, steps / max(1, len(trial.losses)))
    return theirs > 0.1 * best.start(1) and ours < 0.1 * theirs and not HIGH < ratio < LOW
