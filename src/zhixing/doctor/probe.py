"""A small fast model of our own, for checks that ask what a column tells: logistic regression on plain features.

Beside the standardised features themselves it reads random rectified sums of them (Rahimi and Recht, "Random features
for large-scale kernel machines", 2007), which lets it bend. The loss is convex, so the answer does not hang on luck.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..randomness import permutation

__all__ = ["auc", "fit", "out_of_fold"]

Matrix = NDArray[np.float32]
HIDDEN, DECAY, ITERATIONS, LEARNED_FROM = 256, 1e-2, 40, 3000


class Probe(NamedTuple):
    """A fitted probe: what is subtracted and divided, the random sums, and the weights of the classes."""

    mean: Tensor
    std: Tensor
    hidden: Tensor | None
    weight: Tensor

    def lift(self, features: Matrix) -> Tensor:
        x = ((torch.from_numpy(np.ascontiguousarray(features)) - self.mean) / self.std).clamp(-10, 10)
        parts = [x, torch.ones(len(x), 1)]
        if self.hidden is not None:
            parts.insert(1, F.relu(x @ self.hidden))
        return torch.cat(parts, dim=1)

    def __call__(self, features: Matrix) -> NDArray[np.float64]:
        """Probabilities [N, C]."""
        return np.asarray((self.lift(features) @ self.weight).double().softmax(1).numpy())


def fit(features: Matrix, codes: NDArray[np.int64], classes: int, *, bent: bool = True, decay: float = DECAY) -> Probe:
    """Multinomial logistic regression of ``codes`` [N] on ``features`` [N, F], by L-BFGS."""
    x = torch.from_numpy(np.ascontiguousarray(features))
    mean, std = x.mean(0), x.std(0, unbiased=False)
    # A feature that is the same in nearly all rows must not be blown up.
    std = torch.where(std > 1e-3 * std.max().clamp(min=1e-12), std, torch.ones(()))
    hidden = None
    if bent:
        generator = torch.Generator().manual_seed(0)
        hidden = torch.randn(x.shape[1], HIDDEN, generator=generator) / x.shape[1] ** 0.5
    probe = Probe(mean, std, hidden, torch.zeros(0))
    lifted, target = probe.lift(features), torch.from_numpy(codes)
    weight = torch.zeros(lifted.shape[1], classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=ITERATIONS, history_size=6, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        out = F.cross_entropy(lifted @ weight, target) + decay * weight.square().sum() / 2
        out.backward()  # type: ignore[no-untyped-call]
        return out

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return probe._replace(weight=weight.detach())


def out_of_fold(
    features: Matrix, codes: NDArray[np.int64], classes: int, *, folds: int = 4, bent: bool = True, decay: float = DECAY
) -> NDArray[np.float64]:
    """Probabilities [N, C] of each row by a probe that has not seen it. No probe learns from more than 3,000 rows."""
    order = permutation(len(codes), 0, "folds")
    fold = np.empty(len(codes), np.int64)
    fold[order] = np.arange(len(codes)) % folds
    out = np.zeros((len(codes), classes))
    for one in range(folds):
        others = order[fold[order] != one][:LEARNED_FROM]
        inside = np.flatnonzero(fold == one)
        out[inside] = fit(features[others], codes[others], classes, bent=bent, decay=decay)(features[inside])
    return out


def auc(score: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """The probability that a positive row has a higher score than another one; ties count half."""
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    yes, no = int(positive.sum()), int((~positive).sum())
    return float((rank[positive].sum() - yes * (yes + 1) / 2) / (yes * no)) if yes and no else 0.5
