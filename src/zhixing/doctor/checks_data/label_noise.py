"""Labels that are likely wrong, by confident learning on out-of-fold predictions.

Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in dataset labels" (2021).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..case import SHOWN, Case
from ..finding import Finding, Mend, Severity, escaped
from ..probe import out_of_fold

__all__ = ["confident_joint", "label_noise", "suspects"]

Probabilities = NDArray[np.float64]
Codes = NDArray[np.int64]
MOST_CLASSES, FEWEST = 50, 60
WARN, FAULT = 0.03, 0.08


def suspects(probability: Probabilities, codes: Codes) -> NDArray[np.bool_]:
    """Which rows' labels are likely wrong: those that count off the diagonal of the confident joint [N].

    A row counts as class j where its probability of j is at least the mean probability of j over the rows labelled j,
    and the largest among such classes.
    """
    return np.asarray((confident_class(probability, codes) != codes) & (confident_class(probability, codes) >= 0))


def confident_class(probability: Probabilities, codes: Codes) -> Codes:
    """The class that each row counts as, -1 where none is sure enough [N]."""
    classes = probability.shape[1]
    threshold = np.array(
        [probability[codes == one, one].mean() if (codes == one).any() else np.inf for one in range(classes)]
    )
    enough = np.where(probability >= threshold - 1e-6, probability, -1.0)
    return np.where(enough.max(1) > 0, enough.argmax(1), -1).astype(np.int64)


def confident_joint(probability: Probabilities, codes: Codes) -> NDArray[np.int64]:
    """How many rows labelled i count as j, [C, C].

    >>> confident_joint(np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.95, 0.05]]), np.array([0, 0, 1, 1]))
    array([[1, 0],
           [1, 1]])
    """
    classes = probability.shape[1]
    counted = confident_class(probability, codes)
    sure = counted >= 0
    return np.bincount(codes[sure] * classes + counted[sure], minlength=classes**2).reshape(classes, classes)


def floor_of_errors(probability: Probabilities, codes: Codes) -> tuple[float, float]:
    """The share of rows whose label another class stands in for, among the surest third and the surest tenth.

    Classes that overlap are confused where a model is unsure; wrong labels are everywhere. So the share where a model
    is surest is what wrong labels leave, and it does not shrink as one looks at surer and surer rows.
    """
    ordered = np.sort(probability, axis=1)
    margin = ordered[:, -1] - ordered[:, -2]
    wrong = (probability.argmax(1) != codes).astype(float)
    said = probability.argmax(1)
    shares = []
    for part in (3, 10):
        # Of each class that is said apart: labels may be wrong in one class alone.
        chosen: list[float] = []
        for one in np.unique(said):
            rows = np.flatnonzero(said == one)
            chosen += wrong[rows[np.argsort(-margin[rows], kind="stable")[: max(1, len(rows) // part)]]].tolist()
        shares.append(float(np.mean(chosen)))
    return shares[0], shares[1]


def label_noise(case: Case) -> Iterator[Finding]:
    """How many labels are likely wrong, and which; the share is taken where a simple model is surest."""
    rows = case.some(case.usable, 20_000)
    for name, (column, all_codes) in case.classes().items():
        codes, classes = all_codes[rows], len(column.classes)
        if not 2 <= classes <= MOST_CLASSES or len(rows) < max(FEWEST, 8 * classes) or not case.inputs:
            continue
        features = np.concatenate([case.view(one, rows) for one in case.inputs], axis=1)
        probability = best_of(features, codes, classes)
        accuracy = float((probability.argmax(1) == codes).mean())
        base = float(np.bincount(codes).max() / len(codes))
        third, tenth = floor_of_errors(probability, codes)
        marked = np.flatnonzero(suspects(probability, codes))
        given = probability[marked, codes[marked]]
        worst = marked[np.argsort(given, kind="stable")]
        severity = grade(third, tenth, accuracy, base, len(rows))
        if not len(marked):
            continue
        yield Finding(
            "label_noise", severity,
            f"about {third:.1%} of the labels in {name!r} contradict what other rows teach, even where that is "
            f"clearest; {len(marked):,} of {len(rows):,} rows are suspect",
            sure=0.9 if severity == "fault" else 0.75,
            evidence={
                "share_among_surest_third": third, "share_among_surest_tenth": tenth, "suspects": len(marked),
                "accuracy_out_of_fold": accuracy, "commonest_class": base,
            },
            rows=[
                case.row(
                    int(rows[i]),
                    f"labelled {column.classes[codes[i]]}, {column.classes[int(probability[i].argmax())]} by the other "
                    f"rows (probability of the label {probability[i, codes[i]]:.3f})",
                    show=next(iter(case.inputs)),
                )
                for i in worst[:SHOWN]
            ],
            advice="Look at the suspect rows, and mend or remove those that are wrong."
            + ("" if severity == "note" else " Label smoothing makes what is left hurt less."),
            mend=smoothing(case, name) if severity != "note" else Mend(),
        )  # fmt: skip


def best_of(features: NDArray[np.float32], codes: Codes, classes: int) -> Probabilities:
    """Out-of-fold probabilities of the probe whose decay suits the rows best: wrong labels want a strong one."""
    tried = [out_of_fold(features, codes, classes, decay=decay) for decay in (0.01, 0.1, 1.0)]
    rows = np.arange(len(codes))
    return min(tried, key=lambda p: float(-np.log(np.maximum(p[rows, codes], 1e-12)).mean()))


def grade(third: float, tenth: float, accuracy: float, base: float, rows: int) -> Severity:
    """How grave the share among the surest rows is. A table that teaches little tells nothing of its labels."""
    error = 1.65 * (third * (1 - third) / max(1, rows / 3)) ** 0.5
    learned = (accuracy - base) / max(1e-9, 1 - base)
    if learned < 0.25 or tenth < 0.6 * third or third - error < WARN:
        return "note"
    return "fault" if third - error > FAULT else "warning"


def smoothing(case: Case, name: str) -> Mend:
    has = getattr(case.recipe.outputs[name], "smoothing", None)
    return Mend((f"outputs.{escaped(name)}.smoothing=0.1",)) if has == 0 else Mend()
