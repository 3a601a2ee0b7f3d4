"""Pairs of rows that are nearly equal in one column: by nearest neighbours where cells are dense, MinHash for texts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ...columns.column import Ragged
from ..case import Case
from ..views import after_stem

__all__ = ["NEAR", "near_pairs", "shingles_of", "signatures"]

Rows = NDArray[np.int64]
Pairs = list[tuple[int, int, float]]
HASHES, BANDS = 64, 16
PRIME = np.int64(2147483647)
SHORTEST = 10  # pieces that a text has to have at least
ALIKE = 0.7  # of two texts: the share of their pieces that both have
FRACTION = 0.2  # of two dense rows: how near beside the usual distance of neighbours
DETAIL = 0.7  # how much two pictures' fine structure has to agree
CROWD = 0.4  # and beside the distance of the tenth neighbour


def near_pairs(case: Case, name: str, train: Rows, held: Rows) -> Pairs:
    """(held-out row, training row, likeness from 0 to 1) of rows that nearly equal each other in this column."""
    column = case.columns[name]
    find = NEAR.get(column.type) or NEAR.get(column.kind)
    return find(case, name, train, held) if find and len(train) and len(held) else []


def dense(case: Case, name: str, train: Rows, held: Rows) -> Pairs:
    """Rows far nearer to a training row than held-out rows usually are, by the correlation of coarse views.

    Correlation does not see brightness or loudness; coarse views do not see noise and compression.
    """
    ours, theirs = (torch.from_numpy(case.view(name, rows)) for rows in (held, train))
    mean, std = theirs.mean(0), theirs.std(0, unbiased=False)
    if case.columns[name].kind == "sequence":  # features in units of their own
        ours, theirs = (((x - mean) / (std + 1e-6)).clamp(-8, 8) for x in (ours, theirs))
    ours, theirs = (F.normalize(x - x.mean(1, keepdim=True), dim=1) for x in (ours, theirs))
    nearest, places = (ours @ theirs.T).topk(min(10, len(theirs)), dim=1)
    best, place = nearest[:, 0], places[:, 0]
    apart, others = ((2 - 2 * x).clamp(min=0).sqrt() for x in (best, nearest[:, -1]))
    usual = float(apart.quantile(0.75)) if len(apart) < 2**20 else float(apart.median())
    lively = ours.abs().sum(1) > 1e-3  # a blank row is like any other
    # In a crowd (skies, blank walls) the tenth neighbour is about as near as the first; a copy stands out.
    close = (apart < FRACTION * usual) & (apart < CROWD * others) & (best > 0.99)
    found = torch.nonzero(close & lively)[:, 0]
    pairs = [(int(held[i]), int(train[place[i]]), float(best[i])) for i in found]
    return [pair for pair in pairs if same_detail(case, name, pair[0], pair[1])]


def same_detail(case: Case, name: str, one: int, other: int) -> bool:
    """Whether two pictures have their fine structure in common too: two skies have not. True of all but pictures."""
    if case.columns[name].kind != "image":
        return True
    values, _ = after_stem(case.columns[name], case.stored(name), np.array([one, other]))
    fine = (values[:, :, 1:-1, 1:-1] - F.avg_pool2d(values, 3, stride=1)).flatten(1)
    return bool(F.cosine_similarity(fine[0], fine[1], dim=0) > DETAIL)


def shingles_of(tokens: NDArray[np.integer], length: int) -> NDArray[np.int64]:
    """A code for each distinct run of so many neighbouring tokens."""
    tokens = np.abs(tokens.astype(np.int64))
    if len(tokens) < length:
        return np.unique(tokens)
    code = np.zeros(len(tokens) - length + 1, np.int64)
    for place in range(length):
        code = (code * 1000003 + tokens[place : place + len(code)]) % PRIME
    return np.unique(code)


def signatures(sets: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    """MinHash (Broder, "On the resemblance and containment of documents", 1997): [N, 64], the least of each hash."""
    rng = np.random.default_rng(0)
    factor, shift = rng.integers(1, 2**31, HASHES) * 2 + 1, rng.integers(0, 2**31, HASHES)
    return np.array([((codes[:, None] % PRIME * factor + shift) % PRIME).min(0) for codes in sets])


def texts(case: Case, name: str, train: Rows, held: Rows) -> Pairs:
    """Texts most of whose neighbouring triples of tokens (runs of eight characters) both have."""
    stored = case.stored(name)
    assert isinstance(stored, Ragged)
    length = 8 if case.columns[name].spec().vocabulary < 400 else 3
    flat, edges = stored.values.numpy(), stored.offsets
    sets = {
        int(row): shingles_of(flat[edges[row] : edges[row + 1]], length)
        for row in np.concatenate([train, held])
        if edges[row + 1] - edges[row] >= length + SHORTEST
    }
    ours, theirs = [int(row) for row in held if int(row) in sets], [int(row) for row in train if int(row) in sets]
    if not ours or not theirs:
        return []
    buckets: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row, signature in zip(theirs, signatures(sets[row] for row in theirs), strict=True):
        for band, key in enumerate(signature.reshape(BANDS, -1).tolist()):
            buckets[band, *key].append(row)
    pairs = []
    for row, signature in zip(ours, signatures(sets[row] for row in ours), strict=True):
        candidates = {
            other
            for band, key in enumerate(signature.reshape(BANDS, -1).tolist())
            for other in buckets.get((band, *key), [])[:20]
        }
        scored = [(likeness(sets[row], sets[other]), other) for other in sorted(candidates)]
        best, other = max(scored, default=(0.0, -1))
        if best >= ALIKE:
            pairs.append((row, other, best))
    return pairs


def likeness(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """The share of pieces in either that both have (Jaccard).

    >>> likeness(np.array([1, 2, 3]), np.array([2, 3, 4]))
    0.5
    """
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / max(1, len(one) + len(other) - both)


# By a column's own type, else by the kind of what an encoder gets; others have no near copies.
NEAR: dict[str, Callable[[Case, str, Rows, Rows], Pairs]] = {"image": dense, "sequence": dense, "text": texts}
