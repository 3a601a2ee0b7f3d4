"""How well scores put those that are before those that are not: areas under two curves, for two classes.

Rows of equal score stand together, whichever comes first in the table.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["auroc", "average_precision"]


def found(score: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """From the highest score down, how many of the true [G] and of the others [G] have been seen after each group of
    equal scores."""
    order = score.argsort(descending=True, stable=True)
    score, truth = score[order], truth[order].bool()
    last = torch.cat([score[1:] != score[:-1], truth.new_ones(1)])  # of each group
    return truth.cumsum(0)[last].double(), (~truth).cumsum(0)[last].double()


def auroc(score: Tensor, truth: Tensor) -> Tensor:
    """The chance that a true row stands before another, of scores [N] and truth [N]; ties count one half.

    >>> auroc(torch.tensor([0.1, 0.9, 0.5]), torch.tensor([0, 1, 1]))
    tensor(1., dtype=torch.float64)
    """
    right, wrong = found(score, truth)
    start = right.new_zeros(1)
    return torch.trapezoid(torch.cat([start, right]), torch.cat([start, wrong])) / (right[-1] * wrong[-1])


def average_precision(score: Tensor, truth: Tensor) -> Tensor:
    """The mean of precision over the true rows, each taken where it is found; of scores [N] and truth [N].

    >>> average_precision(torch.tensor([0.1, 0.9, 0.5]), torch.tensor([1, 1, 0])).item()
    0.8333333333333333
    """
    right, wrong = found(score, truth)
    return (right.diff(prepend=right.new_zeros(1)) * right / (right + wrong)).sum() / right[-1]
