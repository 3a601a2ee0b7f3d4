"""Classes that a split lacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from ..case import SHOWN, Case
from ..finding import Finding, Mend, Row

__all__ = ["missing_classes"]

MANY = 50  # classes from which they are a catalogue


def missing_classes(case: Case) -> Iterator[Finding]:
    """Classes that no training row has (such rows cannot be used), and classes that a held-out split never asks for.

    A class that is rare enough to be missing by chance is no more than a note.
    """
    mend = restratified(case)
    for name, (column, codes) in case.classes().items():
        unseen = [one for one in case.prepared.problems if one.column == name and "in no training row" in one.reason]
        if unseen:
            kinds = Counter(one.reason for one in unseen)
            share = len(unseen) / (len(unseen) + len(case.held_out))
            catalogue = len(column.classes) > MANY and share < 0.2  # new items come up all the time
            yield Finding(
                "missing_classes", "note" if catalogue else "fault" if len(unseen) > 2 else "warning",
                f"{len(unseen):,} held-out rows have a class in {name!r} that no training row has "
                f"({len(kinds)} such classes): a model cannot know it",
                sure=1.0,
                evidence={"rows": len(unseen), "classes": len(kinds), "share": share},
                rows=[Row(one.row, one.place, one.reason) for one in unseen[:SHOWN]],
                mend=mend,
                advice="" if mend else "Collect training rows of these classes, or leave their rows out.",
            )  # fmt: skip
        shares = np.bincount(codes[case.split("train")], minlength=len(column.classes)) / len(case.split("train"))
        for part in ("validation", "test"):
            rows = case.split(part)
            if not len(rows):
                continue
            absent = np.flatnonzero(np.bincount(codes[rows], minlength=len(column.classes)) == 0)
            # The chance that so many rows hold none of a class, were they drawn like the training rows.
            odd = [int(one) for one in absent if (1 - shares[one]) ** len(rows) < 1e-3]
            if not len(absent):
                continue
            told = ", ".join(repr(column.classes[one]) for one in (odd or absent.tolist())[:5])
            yield Finding(
                "missing_classes", "warning" if odd else "note",
                f"{len(absent)} of {len(column.classes)} classes of {name!r} are missing from the {part} rows: {told}",
                sure=0.98 if odd else 0.6,
                evidence={"split": part, "missing": len(absent), "unlikely_by_chance": len(odd)},
                mend=mend if odd else Mend(),
                advice="Figures on these rows say nothing of the missing classes.",
            )  # fmt: skip


def restratified(case: Case) -> Mend:
    """A stratified split, where that is not what there is."""
    by = case.recipe.data.split.by
    if by in ("time", "group") or (by in ("auto", "stratified") and not case.table.split_column):
        return Mend()
    return Mend(("data.split.by=stratified", "data.split.column=null"))
