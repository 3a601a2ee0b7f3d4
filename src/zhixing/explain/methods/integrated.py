"""Integrated gradients.

Shape legend: B rows, N pieces of the way, Q places on a piece.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..subject import Subject
from .maps import Maps

__all__ = ["integrated_gradients", "pieces_of_way"]

PLACES = 32  # on each piece of the way
HALVINGS = 18  # of a piece, at most: where a norm divides by next to nothing, scores jump near the baseline
PIECES = 256  # a row that are gone through at a time, at most
COMPLETE = 0.01  # of the difference between score and baseline score
LEAST = 1 / 32  # of what may be missing in all, a piece may always lack this share


@lru_cache(maxsize=4)
def gauss_legendre(count: int) -> tuple[Tensor, Tensor]:
    """Places in 0 … 1 and their weights, [Q] each."""
    places, weights = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy((places + 1) / 2).float(), torch.from_numpy(weights / 2).float()


def pieces_of_way(subject: Subject, rows: Tensor, start: Tensor, stop: Tensor) -> tuple[list[Tensor], Tensor]:
    """Slopes along pieces of the straight way from baseline (0) to point (1), times the pieces' length.

    ``rows``, ``start`` and ``stop`` [N] say of which row and from where to where. Gives [N, …] in the shape of the
    points, and by how much the sum of each misses the difference between the scores at its ends [N].
    """
    places, weights = (x.to(subject.device) for x in gauss_legendre(PLACES))
    ways = [point - base for point, base in zip(subject.points, subject.baselines, strict=True)]
    totals = [torch.zeros_like(way[rows]) for way in ways]

    def at(which: Tensor, place: Tensor) -> list[Tensor]:
        shares = [place.view(-1, *[1] * (way.ndim - 1)) for way in ways]
        own = rows[which]
        return [b[own] + s * way[own] for b, s, way in zip(subject.baselines, shares, ways, strict=True)]

    for which, place in subject.portions(len(rows), PLACES):
        length = (stop - start)[which]
        _, slopes = subject.gradient(at(which, start[which] + places[place] * length), rows[which])
        for total, slope, way in zip(totals, slopes, ways, strict=True):
            share = (weights[place] * length).view(-1, *[1] * (way.ndim - 1))
            total.index_add_(0, which, share * slope * way[rows[which]])
    ends = []
    with torch.no_grad():
        for which, place in subject.portions(len(rows), 2):
            ends.append(subject.score(at(which, torch.where(place > 0, stop[which], start[which])), rows[which]))
    change = torch.cat(ends).double().view(-1, 2).diff(dim=1)[:, 0]
    return totals, summed(totals) - change


def summed(parts: list[Tensor]) -> Tensor:
    """The sum of each row over all columns, [N] float64."""
    return torch.stack([part.flatten(1).sum(1, dtype=torch.float64) for part in parts]).sum(0)


def integrated_gradients(subject: Subject, *, seed: int = 0) -> Maps:
    """Slopes along the straight way from the baseline, times its length (Sundararajan et al. 2017, arXiv:1703.01365).

    They add up to the score less that of the baseline. What 32 places on the way miss is seen from the scores at its
    ends: of rows where it is more than 1 % of their difference, the way is halved, and its pieces again where it is
    worth it, up to 18 times. What is then still missing is told as the gap.
    """
    rows = torch.arange(subject.size, device=subject.device)
    start, stop = torch.zeros(subject.size, device=subject.device), torch.ones(subject.size, device=subject.device)
    with torch.no_grad():
        change = (subject.score(subject.points) - subject.score(subject.baselines)).double()
    found = [torch.zeros_like(point) for point in subject.points]
    allowed = COMPLETE * change.abs()
    for halving in range(HALVINGS + 1):
        parts, missed = pieces_of_way(subject, rows, start, stop)
        if not halving:  # a difference that is lost in the rounding of its terms has no hundredth to be measured in
            floor = 1e-3 * torch.stack([part.flatten(1).abs().sum(1) for part in parts]).sum(0).double()
            allowed = torch.maximum(allowed, COMPLETE * floor)
        share = (stop - start).clamp(min=LEAST).double()
        done = missed.abs() <= allowed[rows] * share
        if halving == HALVINGS or 2 * int((~done).sum()) > PIECES * subject.size:
            done = torch.ones_like(done)
        for total, part in zip(found, parts, strict=True):
            total.index_add_(0, rows[done], part[done])
        middle = (start + stop)[~done] / 2
        rows = torch.cat([rows[~done], rows[~done]])
        start, stop = torch.cat([start[~done], middle]), torch.cat([middle, stop[~done]])
        if not len(rows):
            break
    size = torch.maximum(change.abs(), allowed / COMPLETE).clamp(min=1e-12)
    gap = (summed(found) - change).abs() / size
    return Maps([entry.cells(part) for entry, part in zip(subject.entries, found, strict=True)], gap.float())
