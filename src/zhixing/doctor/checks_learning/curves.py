"""Over- and under-fitting, and what more data would bring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...report.files import number
from ..case import Case
from ..finding import Curve, Finding, Mend
from ..trial import mean_loss, run_trial

__all__ = ["fitting", "more_data"]


def points(lines: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    found = [(number(line.get("step")), number(line.get("loss"))) for line in lines]
    return [(step, loss) for step, loss in found if step is not None and loss is not None]


def fitting(case: Case) -> Iterator[Finding]:
    """From the curves of a run: validation that grows worse while training goes on, and training that stopped early."""
    training, validation = points(case.log.get("training", ())), points(case.log.get("validation", ()))
    if len(validation) < 3 or len(training) < 3:
        return
    losses = [loss for _, loss in validation]
    least = int(np.argmin(losses))
    end, best, where = losses[-1], losses[least], validation[least][0] / validation[-1][0]
    learned = float(np.mean([loss for _, loss in training[-3:]]))
    evidence = {"validation_end": end, "validation_best": best, "best_at": where, "training_end": learned}
    curve = Curve([step for step, _ in validation], losses, "step", "validation loss")
    if where < 0.75 and end > 1.15 * best + 0.02 and learned < best:
        yield Finding(
            "fitting", "fault" if end > 1.5 * best else "warning",
            f"over-fitting: validation loss was lowest at {where:.0%} of the run ({best:.4g}) and ended at {end:.4g}, "
            f"while training loss went on to {learned:.4g}",
            sure=0.92, evidence=evidence, curve=curve,
            mend=Mend(() if case.recipe.training.early_stopping else ("training.early_stopping.patience=5",)),
            advice="More data, augmentation, dropout, weight decay, a smaller model, or fewer epochs.",
        )  # fmt: skip
        return
    falling = falls(training)
    if falling > 0.1 and end <= 1.02 * best:
        epochs = case.recipe.training.epochs
        yield Finding(
            "fitting", "warning",
            f"under-fitting: the training loss was still falling at the end ({falling:.0%} of its whole fall was in "
            "the last fifth)",
            sure=0.8, evidence={**evidence, "falling": falling}, curve=curve,
            mend=Mend((f"training.epochs={3 * epochs:g}",)),
            advice="Train longer, at a higher rate, or with a larger model.",
        )  # fmt: skip
        return
    yield Finding(
        "fitting", "note", f"validation loss ended at {end:.4g} (lowest {best:.4g}), training loss at {learned:.4g}",
        sure=0.8, evidence=evidence, curve=curve,
    )  # fmt: skip


def falls(training: Sequence[tuple[float, float]]) -> float:
    """What share of its whole fall the loss of a curve did from the fifth before the last to the last fifth."""
    part = max(1, len(training) // 5)
    if len(training) < 3 * part:
        return 0.0
    first, before, after = (
        float(np.mean([loss for _, loss in some]))
        for some in (training[:part], training[-2 * part : -part], training[-part:])
    )
    return (before - after) / max(first - after, 1e-3 * abs(first), 1e-9)


def more_data(case: Case) -> Iterator[Finding]:
    """Short runs on a quarter, a half and all of some rows: how the loss of held-out rows falls with more of them.

    From the last doubling it is told what one more would bring, were it to go on so.
    """
    rows, held = case.learned("train", 2048), case.seen_in_evaluation(384)
    if len(rows) < 64 or case.trial.error or not case.trial.finite or not len(case.packed.split["validation"]):
        return
    losses = []
    sizes = [len(rows) // 4, len(rows) // 2, len(rows)]
    for size in sizes:
        trial = run_trial(case, case.fresh(), rows=case.some(rows, size), steps=32)
        if trial.error or not trial.finite:
            return
        losses.append(mean_loss(case, trial.model, held))
    if not all(np.isfinite(losses)):
        return
    gain = losses[1] - losses[2]
    yield Finding(
        "more_data", "note",
        f"in short runs, going from {sizes[1]:,} to {sizes[2]:,} training rows brings the held-out loss from "
        f"{losses[1]:.4g} to {losses[2]:.4g}; "
        + ("more rows are likely to help" if gain > 0.03 * losses[1] else "more rows alone would bring little"),
        sure=0.5,
        evidence={"rows": sizes, "held_out_loss": losses},
        curve=Curve(sizes, losses, "training rows", "held-out loss"),
    )  # fmt: skip
