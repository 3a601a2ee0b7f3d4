"""Rows of unequal length behind each other: ``values`` [S] with the ``lengths`` [N] of the rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from torch import Tensor

from .category import words
from .column import Finding, is_list, whole

__all__ = [
    "Items",
    "append",
    "first",
    "flags",
    "items_of",
    "keep_rows",
    "last",
    "list_lengths",
    "owners",
    "prepend",
    "unpadded",
]

Array = NDArray[Any]
Lengths = NDArray[np.int64]


def owners(lengths: Lengths) -> Lengths:
    """The row that each value belongs to, [S]."""
    return np.repeat(np.arange(len(lengths)), lengths)


def first(values: Array, lengths: Lengths, most: int) -> tuple[Array, Lengths]:
    """No more than the first ``most`` values of each row.

    >>> [part.tolist() for part in first(np.array([1, 2, 3, 4]), np.array([3, 0, 1]), 2)]
    [[1, 2, 4], [2, 0, 1]]
    """
    if not (lengths > most).any():
        return values, lengths
    place = np.arange(len(values)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return values[place < most], np.minimum(lengths, most)


def last(values: Array, lengths: Lengths, most: int) -> tuple[Array, Lengths]:
    """No more than the last ``most`` values of each row.

    >>> [part.tolist() for part in last(np.array([1, 2, 3, 4]), np.array([3, 0, 1]), 2)]
    [[2, 3, 4], [2, 0, 1]]
    """
    if not (lengths > most).any():
        return values, lengths
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(values))  # this one and those behind it
    return values[left <= most], np.minimum(lengths, most)


def append(values: Array, lengths: Lengths, rows: NDArray[np.bool_], value: int) -> tuple[Array, Lengths]:
    """One more value at the end of each of the ``rows`` [N].

    >>> [part.tolist() for part in append(np.array([1, 2]), np.array([2, 0, 0]), np.array([True, False, True]), 9)]
    [[1, 2, 9, 9], [3, 0, 1]]
    """
    return np.insert(values, np.cumsum(lengths)[rows], value), lengths + rows


def prepend(values: Array, lengths: Lengths, rows: NDArray[np.bool_], value: int) -> tuple[Array, Lengths]:
    """One more value before the others of each of the ``rows`` [N].

    >>> [part.tolist() for part in prepend(np.array([1, 2]), np.array([2, 0, 0]), np.array([True, False, True]), 9)]
    [[9, 1, 2, 9], [3, 0, 1]]
    """
    return np.insert(values, (np.cumsum(lengths) - lengths)[rows], value), lengths + rows


def keep_rows(values: Array, lengths: Lengths, rows: NDArray[np.bool_]) -> tuple[Array, Lengths]:
    """The values of the ``rows`` [N] alone; the others have none."""
    return values[np.repeat(rows, lengths)], np.where(rows, lengths, 0)


def unpadded(values: Tensor) -> list[list[int]]:
    """The ids [N, T] of each row that are not padding."""
    return [[token for token in row if token] for row in values.tolist()]


def flags(values: pa.Array) -> NDArray[np.bool_]:
    """Booleans, none of them null, as NumPy has them."""
    return np.array(values.to_numpy(zero_copy_only=False), bool)


def list_lengths(values: pa.Array) -> Lengths:
    """How many items the list in each cell has, 0 where there is none."""
    return np.asarray(pc.fill_null(pc.list_value_length(values), 0), np.int64)


class Items(NamedTuple):
    """The items of all cells behind each other, null where one is blank; and what cannot be read."""

    words: pa.Array
    lengths: Lengths
    findings: list[Finding]


def items_of(values: pa.Array, separator: str | None) -> Items:
    """Cells that are lists, or text with a separator (None: white space) between the items.

    Raises:
        DataError: items that are no single value.

    >>> items_of(pa.array(["a|b", None, ""]), "|").words.to_pylist()
    ['a', 'b']
    """
    values, findings = whole(values), list[Finding]()
    if not is_list(values.type):
        text, findings = words(values)
        values = pc.utf8_split_whitespace(text) if separator is None else pc.split_pattern(text, separator)
    lengths = list_lengths(values)
    items, broken = words(values.flatten())  # which leaves out what may lie behind a null cell
    rows = owners(lengths)
    findings += [Finding(int(rows[finding.index]), finding.reason, finding.kind) for finding in broken]
    return Items(items, lengths, findings)
