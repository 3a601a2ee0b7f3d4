"""Columns that say the same in every row, and columns that say something else in every row."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from ...columns.date import Date
from ..case import Case
from ..finding import Finding, Mend
from ..views import hashes

__all__ = ["constant", "identifier"]

DISTINCT = 0.95


def constant(case: Case) -> Iterator[Finding]:
    """Inputs that are the same in all training rows: nothing can be learned from them."""
    train = case.split("train")
    for name in case.inputs:
        if len(train) < 10:
            return
        distinct = len(np.unique(hashes(case.stored(name), train)))
        if distinct == 1:
            yield Finding(
                "constant", "warning",
                f"{name!r} is the same in all {len(train):,} training rows",
                sure=1.0,
                evidence={"column": name, "distinct": 1},
                mend=Mend(drop=(name,)) if len(case.inputs) > 1 else Mend(),
                advice="" if len(case.inputs) > 1 else "There is nothing to learn from; give other columns.",
            )  # fmt: skip


def identifier(case: Case) -> Iterator[Finding]:
    """Inputs that number or name the rows: words without spaces, or whole numbers one apart, all different."""
    if len(case.inputs) < 2:
        return
    for name, column in case.inputs.items():
        if isinstance(column, Date):
            continue
        cells = case.table[name].take(pa.array(case.usable)).drop_null()
        if len(cells) < 30:
            continue
        why = names_rows(cells) or numbers_rows(cells)
        if why:
            yield Finding(
                "identifier", "warning",
                f"{name!r} looks like an identifier: {why}. A model can learn rows by heart from it, and nothing else",
                sure=0.9,
                evidence={"column": name, "distinct": len(cells.unique()), "rows": len(cells)},
                mend=Mend(drop=(name,)),
            )  # fmt: skip


def names_rows(cells: pa.ChunkedArray) -> str:
    """Why cells are names of rows: short words, nearly all different. Names of files are no identifiers."""
    if not (pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type)):
        return ""
    distinct = len(cells.unique()) / len(cells)
    some = cells.slice(0, 500).to_pylist()
    short = np.mean([len(cell) <= 40 and len(cell.split()) == 1 and "." not in cell for cell in some])
    digits = np.mean([any(letter.isdigit() for letter in cell) for cell in some])
    if distinct < DISTINCT or short < 0.95 or digits < 0.5 or all(is_measure(cell) for cell in some[:50]):
        return ""
    return f"{distinct:.0%} of its short words are different"


def is_measure(cell: str) -> bool:
    try:
        return not float(cell).is_integer()
    except ValueError:
        return False


def numbers_rows(cells: pa.ChunkedArray) -> str:
    """Why cells are numbers of rows: whole, all different, and nearly all from a gapless stretch."""
    try:
        numbers = cells.cast(pa.float64()).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return ""
    if not np.isfinite(numbers).all() or (numbers != np.round(numbers)).any():
        return ""
    distinct = np.unique(numbers)
    if len(distinct) < DISTINCT * len(numbers):
        return ""
    steps = np.diff(distinct)
    even = float((steps == np.median(steps)).mean())
    sorted_ = float((np.diff(numbers) > 0).mean())
    if even > 0.9:
        return f"{len(distinct):,} whole numbers, all different, {np.median(steps):g} apart"
    if sorted_ > 0.98 or sorted_ < 0.02:
        return f"{len(distinct):,} whole numbers, all different, in the order of the rows"
    return ""
