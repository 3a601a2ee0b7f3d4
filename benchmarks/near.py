"""Near-duplicates of texts, so that a split can keep them on one side."""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

__all__ = ["groups_of_near_duplicates"]

HASHES, BANDS = 64, 16


def groups_of_near_duplicates(*columns: Sequence[str]) -> list[int]:
    """A group for each row; rows share one if they are near-duplicates in any column, also by way of others.

    Texts are compared in small letters, without digits and signs: equal ones, and those whose sets of word triples
    overlap by about two thirds or more (MinHash, Broder 1997: 16 bands of 4 hashes).

    >>> groups_of_near_duplicates(["See page 3.", "see page 41", "Nothing"])
    [0, 0, 2]
    """
    parent = list(range(len(columns[0])))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for texts in columns:
        for row, other in alike(texts):
            first, second = sorted((root(row), root(other)))
            parent[second] = first
    return [root(row) for row in range(len(parent))]


def alike(texts: Sequence[str]) -> list[tuple[int, int]]:
    rng = np.random.default_rng(0)
    factor = rng.integers(1, 2**31, HASHES) * 2 + 1
    shift = rng.integers(0, 2**31, HASHES)
    seen: dict[object, int] = {}
    pairs = []
    for row, text in enumerate(texts):
        words = re.sub(r"[\W\d_]+", " ", text.lower()).split()
        triples = {" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2))}
        codes = np.array([zlib.crc32(one.encode()) for one in sorted(triples)], np.int64)
        lowest = ((codes[:, None] * factor + shift) % 2147483647).min(0).reshape(BANDS, -1)
        keys: list[object] = [(band, *lowest[band].tolist()) for band in range(BANDS)] if len(words) > 4 else []
        for key in ["".join(words) or text, *keys]:
            if seen.setdefault(key, row) != row:
                pairs.append((seen[key], row))
    return pairs


def held_out(groups: Sequence[int], share: float, seed: int = 0) -> np.ndarray:
    """Which rows are held out: whole groups, drawn at random, of so many rows in all."""
    members: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        members[group].append(row)
    order = np.random.default_rng(seed).permutation(sorted(members))
    out = np.zeros(len(groups), bool)
    for group in order:
        if out.sum() >= share * len(groups):
            break
        if out.sum() + len(members[int(group)]) <= (share + 0.01) * len(groups):
            out[members[int(group)]] = True
    return out
