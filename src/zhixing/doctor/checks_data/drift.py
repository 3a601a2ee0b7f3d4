"""Held-out rows that come from somewhere else than the training rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..case import Case
from ..finding import Finding, Mend
from ..probe import auc, out_of_fold
from .missing_classes import restratified

__all__ = ["drift", "label_drift"]

Rows = NDArray[np.int64]
ROWS, FEWEST = 1500, 25
WARN, FAULT = 0.65, 0.8


def drift(case: Case) -> Iterator[Finding]:
    """Whether a simple model can tell held-out rows from training rows by their inputs (a two-sample classifier).

    An AUC of 0.5 is chance. Three standard errors are taken off before it is judged. In a split by time some drift is
    in the nature of things and no more than a note.
    """
    by_time = case.recipe.data.split.by == "time" or case.recipe.data.reshape is not None
    for part in ("test", "validation"):
        theirs = case.some(case.split(part), ROWS)
        ours = case.some(case.split("train"), len(theirs) if len(theirs) >= 400 else 3 * len(theirs))
        if len(theirs) < FEWEST or not case.inputs:
            continue
        views = {name: np.concatenate([case.view(name, ours), case.view(name, theirs)]) for name in case.inputs}
        value, error = separation(np.concatenate(list(views.values()), axis=1), len(ours))
        sure = value - 3 * error
        if sure < WARN:
            continue
        each = {name: round(separation(matrix, len(ours))[0], 3) for name, matrix in views.items()}
        worst = max(each, key=lambda name: each[name])
        moved = shift(views[worst], len(ours))
        yield Finding(
            "drift", "note" if by_time else "fault" if sure > FAULT else "warning",
            f"{part} rows differ from training rows: a simple model tells them apart with AUC {value:.2f} (0.5 is "
            f"chance), most of all by {worst!r} ({each[worst]:.2f})",
            sure=0.9,
            evidence={"split": part, "auc": value, "standard_error": error, "by_column": each, "largest_shift": moved},
            mend=restratified(case),
            advice="Find out why: other sources, other times, other units. Judge by rows like those to come.",
        )  # fmt: skip


def separation(features: NDArray[np.float32], ours: int) -> tuple[float, float]:
    """The AUC of telling the first ``ours`` rows from the others, out of fold, and its standard error (Hanley and
    McNeil, 1982)."""
    later = np.arange(len(features)) >= ours
    probability = out_of_fold(features, later.astype(np.int64), 2, bent=False, decay=0.05)[:, 1]
    value = auc(probability, later)
    yes, no = int(later.sum()), ours
    q1, q2 = value / (2 - value), 2 * value**2 / (1 + value)
    variance = (value * (1 - value) + (yes - 1) * (q1 - value**2) + (no - 1) * (q2 - value**2)) / (yes * no)
    return value, float(max(variance, 0.0) ** 0.5)


def shift(features: NDArray[np.float32], ours: int) -> float:
    """The largest shift of a feature's mean, in standard deviations of the training rows."""
    one, other = features[:ours], features[ours:]
    return float(np.max(np.abs(one.mean(0) - other.mean(0)) / np.maximum(one.std(0), 1e-6)))


def label_drift(case: Case) -> Iterator[Finding]:
    """Whether the classes come in other proportions in held-out rows: the population stability index (PSI).

    As a rule of credit scoring, 0.1 is worth a look and 0.25 a change. The value that chance alone would give for rows
    so few, about (classes - 1) (1 / n + 1 / m), is taken off three times over.
    """
    train = case.split("train")
    for name, (column, codes) in case.classes().items():
        if len(column.classes) > 200:
            continue
        for part in ("validation", "test"):
            rows = case.split(part)
            if len(rows) < FEWEST:
                continue
            ours, theirs = (
                (np.bincount(codes[some], minlength=len(column.classes)) + 0.5) / (len(some) + len(column.classes) / 2)
                for some in (train, rows)
            )
            found = float(((ours - theirs) * np.log(ours / theirs)).sum())
            beyond = found - 3 * (len(ours) - 1) * (1 / len(train) + 1 / len(rows))
            if beyond < 0.1:
                continue
            most = int(np.abs(ours - theirs).argmax())
            yield Finding(
                "label_drift", "fault" if beyond > 0.5 else "warning",
                f"classes of {name!r} come in other proportions in {part} rows (PSI {found:.2f}): "
                f"{column.classes[most]!r} is {ours[most]:.1%} of training and {theirs[most]:.1%} of {part} rows",
                sure=0.9,
                evidence={"split": part, "psi": found, "class": column.classes[most]},
                mend=restratified(case) or Mend(),
                advice="A stratified split keeps proportions; or say which proportions are true of rows to come.",
            )  # fmt: skip
