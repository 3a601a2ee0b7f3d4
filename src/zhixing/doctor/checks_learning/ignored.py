"""Inputs that the model does not look at."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ...data.batches import Batch, ColumnBatch
from ..case import Case
from ..finding import Finding, Mend
from ..trial import evaluated

__all__ = ["ignored"]


def ignored(case: Case) -> Iterator[Finding]:
    """Dealing a column's cells out to other rows changes no prediction, after a short run."""
    trial = case.trial
    if trial.error or not trial.finite:
        return
    changes, scale = moved(case), 1e-6
    for name, (change, size) in changes.items():
        if change <= scale * max(size, 1e-6):
            yield Finding(
                "ignored", "fault",
                f"{name!r} has no effect: giving its cells to other rows changes no prediction",
                sure=0.95,
                evidence={"column": name, "largest_change": change, "size_of_predictions": size},
                mend=Mend(drop=(name,)) if len(changes) > 1 else Mend(),
                advice="If it should matter, its encoder gives one value whatever it reads.",
            )  # fmt: skip


def moved(case: Case) -> dict[str, tuple[float, float]]:
    """For each input: the largest change of any prediction when its cells are dealt out anew, and how far predictions
    of rows lie apart."""
    model, rows = case.trial.model, case.seen_in_evaluation(192)
    out = dict.fromkeys(model.inputs, (0.0, 0.0))
    for batch, predictions in evaluated(case, model, rows):
        for name in model.inputs:
            order = torch.roll(torch.arange(len(batch), device=batch.rows.device), 1)
            shuffled = batch.columns[name].each(lambda x, order=order: x[order])  # type: ignore[misc]
            other = model(Batch({**batch.columns, name: ColumnBatch(*shuffled)}, batch.rows))
            change = max(float((other[key] - one).abs().max()) for key, one in predictions.items())
            size = max(float(one.abs().max()) for one in predictions.values())
            out[name] = (max(out[name][0], np.nan_to_num(change)), max(out[name][1], np.nan_to_num(size)))
    return out
