"""Shapley values: what each player adds, on average over all orders in which they could come in."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import torch
from torch import Tensor

from ...randomness import permutation
from ..subject import Entry, Subject
from .maps import Maps

__all__ = ["shapley", "shapley_values"]

EXACT = 8  # players whose coalitions are all tried: 256
PLAYERS = 49  # of a single column: a picture's cells of a 7 x 7 grid, stretches of a text or series
DRAWS = 16  # orders that are drawn, each taken forwards and backwards


def players_of(subject: Subject) -> tuple[list[Tensor], int]:
    """The player that each cell belongs to, [B, …] for each column, and how many there are.

    Of several columns each is a player, whole. A single one is cut: numbers one by one, a picture into 7 x 7 cells,
    tokens and steps into stretches of each row's own length.
    """
    if len(subject.entries) > 1:
        shapes = [(subject.size, *entry.shape) for entry in subject.entries]
        return [torch.full(shape, i, device=subject.device) for i, shape in enumerate(shapes)], len(shapes)
    entry = subject.entries[0]
    owner, count = segments(entry)
    return [owner], count


def segments(entry: Entry) -> tuple[Tensor, int]:
    shape, rows, device = entry.shape, len(entry.point), entry.point.device
    if entry.spec.kind == "image":
        across = int(PLAYERS**0.5)
        tall, wide = (torch.arange(side, device=device) * min(across, side) // side for side in shape[1:])
        return (tall[:, None] * across + wide).expand(rows, *shape), across * across
    if entry.spec.kind in ("vector", "ids"):
        return torch.arange(shape[0], device=device).expand(rows, -1), shape[0]
    count = min(PLAYERS, entry.spec.shape[0])
    real = torch.ones(rows, shape[0], dtype=torch.bool, device=device) if entry.mask is None else entry.mask
    steps = real.sum(1, keepdim=True).clamp(min=1)
    owner = (real.cumsum(1) - 1).clamp(min=0) * torch.minimum(steps, steps.new_tensor(count)) // steps
    return owner.view(*owner.shape, *[1] * (len(shape) - 1)).expand(rows, *shape), count


def shapley_values(subject: Subject, owners: Sequence[Tensor], count: int, *, seed: int = 0) -> Tensor:
    """The value of each player, [B, P]. Up to 8 players all coalitions are tried; of more, orders are drawn.

    In either case the values of a row add up to its score less that of the baseline.
    """
    if count <= EXACT:
        members = (torch.arange(2**count)[:, None] >> torch.arange(count)) & 1
        coalitions = members.bool().to(subject.device)
        scores = worth(subject, owners, coalitions).double()
        sizes = coalitions.sum(1).tolist()
        weights = torch.tensor([1 / (count * comb(count - 1, size)) if size < count else 0.0 for size in sizes])
        number = torch.arange(2**count)
        values = []
        for player in range(count):
            without = number[~coalitions[:, player].cpu()]
            added = scores[:, without + (1 << player)] - scores[:, without]
            values.append(added @ weights[without].double().to(added.device))
        return torch.stack(values, dim=1).float()
    total = torch.zeros(subject.size, count, dtype=torch.float64, device=subject.device)
    for draw in range(DRAWS):
        order = torch.from_numpy(permutation(count, seed, "shapley", draw)).to(subject.device)
        for way in (order, order.flip(0)):
            # After k players have come in, those are there whose place in the order is below k.
            place = way.argsort()
            coalitions = place < torch.arange(count + 1, device=subject.device)[:, None]
            total[:, way] += worth(subject, owners, coalitions).double().diff(dim=1)
    return (total / (2 * DRAWS)).float()


def worth(subject: Subject, owners: Sequence[Tensor], coalitions: Tensor) -> Tensor:
    """The score of each row with each coalition [M, P] of players there and the others at the baseline, [B, M]."""
    scores = []
    for here, some in subject.portions(subject.size, len(coalitions)):
        there = coalitions[some]
        keeps = [there.gather(1, owner[here].flatten(1)).view(len(here), *owner.shape[1:]) for owner in owners]
        scores.append(subject.kept(keeps, here))
    return torch.cat(scores).view(subject.size, len(coalitions))


def shapley(subject: Subject, *, seed: int = 0) -> Maps:
    """Shapley values by sampling (Štrumbelj and Kononenko 2010; Lundberg and Lee 2017, arXiv:1705.07874), with players
    that are absent at the baseline.

    Where there are several columns, they are across whole columns; of a single column across its parts. What a player
    is given, its cells share evenly.
    """
    owners, count = players_of(subject)
    values = shapley_values(subject, owners, count, seed=seed)
    out = []
    for entry, owner in zip(subject.entries, owners, strict=True):
        real = entry.real.flatten(1)
        held = torch.zeros_like(values).scatter_add_(1, owner.flatten(1), real.float())
        each = values / held.clamp(min=1)
        out.append(entry.real_alone(each.gather(1, owner.flatten(1)).view(owner.shape)))
    return Maps(out, whole=len(out) > 1)
