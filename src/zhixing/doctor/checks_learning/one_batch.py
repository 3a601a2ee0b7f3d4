"""Whether the model can learn a single batch by heart: if not, it will learn nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..case import Case
from ..finding import Curve, Finding
from ..trial import run_trial
from ..views import hashes

__all__ = ["one_batch"]

ROWS, LEARNED, FEWEST = 16, 0.5, 40


def one_batch(case: Case) -> Iterator[Finding]:
    """Sixteen rows with different inputs, again and again, at a constant rate and without augmentation: the loss has
    to fall to half of where it starts, or below 0.1."""
    rows = case.learned("train", 400)
    if case.inputs and case.packed is case.prepared:  # of equal inputs only one can be learned
        joint = np.zeros(len(rows), np.uint64)
        for name in case.inputs:
            joint = joint * np.uint64(1099511628211) ^ hashes(case.stored(name), rows)
        rows = rows[np.sort(np.unique(joint, return_index=True)[1])]
    lengths = case.batches.lengths(rows)
    if lengths is not None:  # the shorter half, which is faster learned
        rows = rows[np.sort(np.argsort(lengths, kind="stable")[: max(ROWS, len(rows) // 2)])]
    rows = rows[:: max(1, len(rows) // ROWS)][:ROWS]
    if len(rows) < 2 or case.trial.error:
        return
    trial = None
    for rate, steps in ((3e-3, 60), (3e-2, 80), (3e-4, 120)):
        trial = run_trial(
            case, case.fresh(), rows=rows, batch_size=len(rows), steps=steps, rate=rate, plain=True, augment=False
        )
        if trial.error or not trial.finite:
            return
        if len(trial.losses) < FEWEST:  # too slow a model to say so
            return
        start, end = trial.start(1), min(trial.end(4), *trial.finite[-8:])
        if end < max(LEARNED * start, 0.1):
            return
    assert trial is not None
    yield Finding(
        "one_batch", "fault",
        f"the model cannot learn {len(rows)} rows by heart: the loss goes from {start:.4g} to {end:.4g} at best",
        sure=0.8,
        evidence={"rows": len(rows), "start": start, "end": end},
        curve=Curve(list(range(len(trial.losses))), trial.losses, "step", "loss on one batch"),
        advice="Look at what reaches the head: a part without gradient, an output that does not depend on the input, "
        "or "
        "too small a model.",
    )  # fmt: skip
