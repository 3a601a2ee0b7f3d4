"""Training rows from the future of the rows that are tested on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...columns.date import Date
from ...data.split import times_of
from ...errors import DataError
from ..case import Case
from ..finding import Finding, Mend, Severity, quoted
from .leak import targets_of

__all__ = ["time_leak"]

WARN, FAULT = 0.25, 0.5


def time_leak(case: Case) -> Iterator[Finding]:
    """Rows with a time whose neighbours in time are alike, split so that training rows lie among the tested ones.

    How alike is the correlation of the target with that of the row before, in the order of time; of classes, how much
    more often than by chance both are the same.
    """
    if case.recipe.data.split.by == "time" or case.recipe.data.reshape is not None or not len(case.held_out):
        return
    for name, times in clocks(case):
        train, held = times[case.split("train")], times[case.held_out]
        early = float((held < train.max()).mean())
        if early < 0.05:
            continue
        mend = Mend(("data.split.by=time", f"data.split.column={quoted(name)}"))
        order = case.usable[np.argsort(times[case.usable], kind="stable")]
        for output in case.outputs:
            alike = likeness(case, output, order)
            error = 3 / len(order) ** 0.5
            severity: Severity = "fault" if alike - error > FAULT else "warning" if alike - error > WARN else "note"
            yield Finding(
                "time_leak", severity,
                f"{early:.0%} of the held-out rows are older by {name!r} than the newest training row, and "
                f"{output!r} is "
                f"like its neighbour's in time (correlation {alike:.2f}): a model is told the future of what it is "
                "tested on",
                sure=0.92 if severity == "fault" else 0.7,
                evidence={"column": name, "older": early, "likeness_of_neighbours": alike},
                mend=mend if severity != "note" else Mend(),
                advice="Split by time, so that tested rows come after all that is learned from.",
            )  # fmt: skip
        return


def clocks(case: Case) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Columns that say when a row was, read or not, and the time of every row."""
    for name in case.table.columns:
        values = case.table[name]
        column = case.columns.get(name)
        dated = isinstance(column, Date) or pa.types.is_temporal(values.type)
        if not dated and column is None:
            claim = Date.claims(values, name)
            dated = claim is not None and claim.score > 0.5
        if dated and not values.null_count and name not in case.outputs:
            try:
                yield name, times_of(case.table, name)
            except DataError:  # some rows have none
                continue


def likeness(case: Case, output: str, order: NDArray[np.int64]) -> float:
    target = targets_of(case, output, order)
    if target is None or len(order) < 20:
        return 0.0
    if target.dtype.kind == "f":
        return float(np.corrcoef(target[1:], target[:-1])[0, 1]) if target.std() else 0.0
    same = float((target[1:] == target[:-1]).mean())
    chance = float(np.square(np.bincount(target.astype(np.int64)) / len(target)).sum())
    return (same - chance) / (1 - chance) if chance < 1 else 0.0
