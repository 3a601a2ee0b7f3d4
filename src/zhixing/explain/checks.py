"""Whether explanations can be believed: do they follow the weights, and do they find what the answer hangs on?

Shape legend: B rows of a batch, K cells of a row.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..model import Model
from ..randomness import fold
from .subject import Subject

__all__ = ["Areas", "areas", "places_of", "randomised", "rank_correlation"]

STEPS = 20  # of a deletion or insertion curve
ORDERS = 4  # random ones that a map is compared with


def randomised(model: Model, *, seed: int = 0) -> Model:
    """A copy whose weights are shuffled within each tensor: as large as before, and without anything learned
    (Adebayo et al. 2018, "Sanity checks for saliency maps", arXiv:1810.03292)."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(fold(seed, "randomised") >> 1)
    with torch.no_grad():
        for weight in other.parameters():
            order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
            weight.copy_(weight.flatten()[order].view_as(weight))
        for module in other.modules():
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0
    return other


def places_of(subject: Subject, number: int, cells: Tensor) -> tuple[Tensor, Tensor]:
    """An attribution and which of it is real, [B, K] each; a picture's channels are added up."""
    entry = subject.entries[number]
    real = entry.real
    if entry.spec.kind == "image":
        cells, real = cells.sum(1), real[:, 0]
    return cells.flatten(1), real.flatten(1)


def ranks(values: Tensor) -> Tensor:
    """The rank of each number, [K]; equal ones have the mean of theirs."""
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    ends: Tensor = counts.cumsum(0).double() - (counts.double() - 1) / 2
    return ends[inverse]


def rank_correlation(one: Tensor, other: Tensor, real: Tensor) -> Tensor:
    """Spearman's correlation of two attributions of each row over its real cells, [B]; 0 where one is constant."""
    out = []
    for a, b, there in zip(one, other, real, strict=True):
        x, y = ranks(a[there]), ranks(b[there])
        x, y = x - x.mean(), y - y.mean()
        size = (x.square().sum() * y.square().sum()).sqrt()
        out.append((x * y).sum() / size if size > 0 else size)
    return torch.stack(out)


class Areas(NamedTuple):
    """Areas under the curves of the explained probability as cells are taken away or put in, [B] each, by the order of
    an attribution and (the mean of some) at random. Less is better for deletion, more for insertion."""

    deletion: Tensor
    insertion: Tensor
    random_deletion: Tensor
    random_insertion: Tensor


def areas(subject: Subject, number: int, cells: Tensor, *, seed: int = 0) -> Areas:
    """Deletion and insertion (Petsiuk et al. 2018, arXiv:1806.07421) of one column's cells, most important first.

    What is taken away, or not yet in, is at the baseline.
    """
    values, real = places_of(subject, number, cells)
    deletion, insertion = both_curves(subject, number, values, real)
    generator = torch.Generator().manual_seed(fold(seed, "orders") >> 1)
    random = [
        both_curves(subject, number, torch.rand(values.shape, generator=generator).to(values), real)
        for _ in range(ORDERS)
    ]
    return Areas(
        deletion,
        insertion,
        torch.stack([one for one, _ in random]).mean(0),
        torch.stack([other for _, other in random]).mean(0),
    )


def both_curves(subject: Subject, number: int, values: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """The areas of both curves by the order of ``values`` [B, K]."""
    order = values.masked_fill(~real, float("-inf")).argsort(dim=1, descending=True, stable=True)
    place = order.argsort(dim=1)
    count = real.sum(1, keepdim=True)
    shape = subject.entries[number].shape
    if subject.entries[number].spec.kind == "image":
        shape = (1, *shape[1:])
    rows = torch.arange(subject.size, device=subject.device)
    keeps: list[Tensor | None] = [None] * len(subject.entries)
    deletion: list[Tensor] = []
    insertion: list[Tensor] = []
    for step in range(STEPS + 1):
        first = (place < (count * step / STEPS).round()).view(-1, *shape)
        for curve, keep in ((deletion, ~first), (insertion, first)):
            keeps[number] = keep
            curve.append(subject.kept(keeps, rows, probability=True))
    return area_under(deletion), area_under(insertion)


def area_under(curve: list[Tensor]) -> Tensor:
    return torch.trapezoid(torch.stack(curve), dim=0) / STEPS
