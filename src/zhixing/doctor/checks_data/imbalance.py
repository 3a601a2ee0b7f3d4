"""Classes of very unequal size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..case import Case
from ..finding import Finding, Mend, escaped

__all__ = ["imbalance"]

MANY = 50  # classes from which a long tail is the nature of the thing, as in a catalogue
WARN, FAULT = 12.0, 100.0


def imbalance(case: Case) -> Iterator[Finding]:
    """The largest class beside the smallest, in training rows. Where the recipe already weighs classes it is a note."""
    train = case.split("train")
    for name, (column, codes) in case.classes().items():
        counts = np.bincount(codes[train], minlength=len(column.classes))
        large, small = int(counts.max()), int(counts[counts > 0].min())
        ratio = large / small
        if ratio < 3 or len(counts) < 2:
            continue
        settings = case.recipe.outputs[name]
        weighed = case.recipe.training.oversample or settings.class_weights != "none" or settings.loss == "focal"
        tail = len(counts) > MANY or weighed
        yield Finding(
            "imbalance", "note" if tail or ratio < WARN else "fault" if ratio > FAULT else "warning",
            f"in {name!r}, {column.classes[int(counts.argmax())]!r} has {large:,} training rows and "
            f"{column.classes[int(np.where(counts > 0, counts, counts.max()).argmin())]!r} {small:,}: {ratio:.0f} "
            "times "
            f"as many. Always naming the commonest class would be right in {large / counts.sum():.1%}",
            sure=0.95,
            evidence={"ratio": ratio, "counts": dict(zip(column.classes[:200], counts.tolist(), strict=False))},
            mend=Mend() if tail or ratio < WARN else Mend((f"outputs.{escaped(name)}.class_weights=balanced",)),
            advice="Judge by balanced accuracy or macro F1, not by accuracy.",
        )  # fmt: skip
