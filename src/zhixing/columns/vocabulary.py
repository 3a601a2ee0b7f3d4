"""Ids of tokens: four with a meaning of their own, then the entries of a vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["BEGIN", "END", "PAD", "SPECIAL", "UNKNOWN", "commonest", "ids_of"]

PAD, UNKNOWN, BEGIN, END = range(4)
SPECIAL = ("[padding]", "[unknown]", "[begin]", "[end]")  # how a person is shown them


def commonest(counts: Mapping[str, int], most: int, at_least: int = 1) -> list[str]:
    """The ``most`` commonest words that occur ``at_least`` so often; equals in the order of their code points.

    >>> commonest({"b": 2, "a": 2, "c": 9, "d": 1}, 3)
    ['c', 'a', 'b']
    """
    enough = [word for word, count in counts.items() if count >= at_least]
    return sorted(enough, key=lambda word: (-counts[word], word))[:most]


def ids_of(words: pa.Array, entries: Sequence[str], *, first: int, unknown: int) -> NDArray[np.int32]:
    """The place of each word among the entries, counted from ``first``; ``unknown`` where it is none or null.

    >>> ids_of(pa.array(["b", "x", None]), ["a", "b"], first=4, unknown=1).tolist()
    [5, 1, 1]
    """
    # The words are searched for in the table of entries, so a null could only match a null entry: there is none.
    found = pc.index_in(words, value_set=pa.array(entries, pa.string()))
    return np.asarray(pc.fill_null(pc.add(found, first), unknown), np.int32)
