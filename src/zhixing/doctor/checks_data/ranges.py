"""Numbers far outside their range: slips of the unit, stand-ins for a missing value, typing errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...columns.number import Number
from ..case import SHOWN, Case
from ..finding import Finding, Mend, escaped

__all__ = ["ranges"]

Values = NDArray[np.float64]
FAR, FAR_LOG = 25.0, 6.0  # in widths of the middle half, as they are and as logarithms
STAND_INS = (-9999.0, -999.0, -99.0, 999.0, 9999.0, 99999.0, 999999.0, -1.0)


class Odd(NamedTuple):
    rows: NDArray[np.int64]  # places among the values
    what: str
    factor: float


def ranges(case: Case) -> Iterator[Finding]:
    """Rows whose number lies very far from all others, both as it is and by its order of magnitude.

    Long tails (incomes, counts) are no such thing: there the logarithms lie together.
    """
    for name, column in case.columns.items():
        if not isinstance(column, Number):
            continue
        cells, _ = column.read(case.table[name].take(pa.array(case.usable)), column.length)
        for place in range(min(column.length, 200)):
            values = cells[:, place]
            found = odd_ones(values)
            if found is None:
                continue
            share = len(found.rows) / len(values)
            middle = float(np.nanmedian(values))
            what = name if column.length == 1 else f"{name}[{place}]"
            scale = f"{column.role}s.{escaped(name)}.scale=quantile"
            yield Finding(
                "ranges", "fault" if share > 0.005 or len(found.rows) >= 5 else "warning",
                f"{len(found.rows):,} of {len(values):,} numbers in {what!r} are out of range ({found.what}; the "
                "middle "
                f"one is {middle:.6g})",
                sure=0.95 if len(found.rows) > 2 else 0.8,
                evidence={"column": name, "rows": len(found.rows), "share": share, "median": middle,
                          "factor": found.factor},
                rows=[
                    case.row(int(case.usable[i]), f"{what} is {values[i]:.6g}") for i in found.rows[:SHOWN]
                ],
                mend=Mend((scale,)) if column.role == "input" and column.scale != "quantile" else Mend(),
                advice="Bring them to one unit, and leave cells empty where a value is missing; ranks (scale: "
                "quantile) "
                "only soften it.",
            )  # fmt: skip


def odd_ones(values: Values) -> Odd | None:
    """Values apart from all others, and what they look like; None where there are none.

    >>> odd_ones(np.array([170.0, 165, 181, 1.79, 176, 169, 173, 180, 177, 171] * 5)).what
    'about 96 times smaller than the others: another unit?'
    >>> odd_ones(np.exp(np.linspace(-3, 3, 100))) is None
    True
    """
    known = values[np.isfinite(values)]
    if len(known) < 20:
        return None
    repeated = stand_in(values, known)
    if repeated is not None:
        return repeated
    if len(np.unique(known)) < 5:
        return None
    away = apart(values, known)
    size = np.log10(np.maximum(np.abs(values), 1e-12))
    magnitude = np.log10(np.maximum(np.abs(known), 1e-12))
    scattered = apart(size, magnitude)
    positive = bool((known > 0).mean() > 0.99)
    rows = np.flatnonzero((away > FAR) & (scattered > FAR_LOG))
    if positive and not len(rows):  # of a unit that is larger, values are close to nothing
        rows = np.flatnonzero((scattered > 2 * FAR_LOG) & (np.abs(size - np.nanmedian(magnitude)) > 1.5))
    if not len(rows) or len(rows) > 0.3 * len(values):
        return None
    factor = float(10 ** (np.median(size[rows]) - np.median(magnitude)))
    times = factor if factor >= 1 else 1 / factor
    how = "larger" if factor >= 1 else "smaller"
    many = len(rows) > 2 and float(np.std(size[rows])) < 0.35
    return Odd(rows, f"about {times:.2g} times {how} than the others" + (": another unit?" if many else ""), factor)


def apart(values: Values, known: Values) -> Values:
    """How far from the middle, in widths of the middle half (or of the middle nine tenths, where that has none)."""
    low, middle, high = np.quantile(known, [0.25, 0.5, 0.75])
    width = high - low or (np.quantile(known, 0.95) - np.quantile(known, 0.05)) / 2.4
    scale = width or max(abs(middle), 1.0)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nan_to_num(np.abs(values - middle) / scale))


def stand_in(values: Values, known: Values) -> Odd | None:
    """One of the usual stand-ins for a missing value, several times, outside the range of all others."""
    for one in STAND_INS:
        rows = np.flatnonzero(values == one)
        others = known[known != one]
        if len(rows) < 3 or len(others) < 20:
            continue
        low, high = float(others.min()), float(others.max())
        gap = min(abs(one - low), abs(one - high))
        if not low <= one <= high and gap > 0.5 * (high - low) and high > low:
            return Odd(rows, f"{one:g}, which looks like a stand-in for a missing value", one)
    return None
