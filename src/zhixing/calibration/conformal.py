"""Conformal prediction: sets and intervals that hold the truth as often as is asked, whatever the model.

Rows that were kept out of training say how strange a truth may be: each has a score, the larger the stranger. Of a new
row everything is given whose score is no larger than the k-th smallest of n, k = ceil((n + 1) x coverage). If old and
new rows are drawn alike, that holds the truth with a chance of at least the coverage, and of at most 1 / (n + 1) more
where scores do not tie (Vovk et al. 2005; Lei et al. 2018, arXiv:1604.04173).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Quantiles", "adaptive_scores", "threshold_scores"]

LARGEST = 1e30  # of a score that is kept; JSON has no infinity


@dataclass(frozen=True)
class Quantiles:
    """Scores of ``rows`` rows in order: all of them, or of very many some, evenly spread by rank."""

    rows: int
    scores: list[float]

    @classmethod
    def of(cls, scores: Tensor, most: int = 5_000) -> Quantiles:
        """The scores [N] that are numbers, at most so many."""
        ordered = scores[~scores.isnan()].double().clamp(-LARGEST, LARGEST).sort().values
        count = len(ordered)
        kept = min(count, most)
        ranks = [-(-(place + 1) * count // kept) - 1 for place in range(kept)]
        return cls(count, [float(f"{x:.9g}") for x in ordered[torch.tensor(ranks, dtype=torch.int64)].tolist()])

    def at(self, coverage: float) -> float:
        """The largest score that belongs in; infinite where there are too few rows to tell.

        >>> scores = Quantiles.of(torch.arange(1.0, 100.0))
        >>> scores.at(0.9), scores.at(0.999)
        (90.0, inf)
        """
        rank = math.ceil((self.rows + 1) * coverage - 1e-9)
        if rank > self.rows or not self.scores:
            return math.inf
        return self.scores[max(0, math.ceil(rank * len(self.scores) / self.rows) - 1)]


def threshold_scores(logits: Tensor) -> Tensor:
    """How much less probable each class is than all others together, log((1 - p) / p), [N, C].

    A set of all classes below one threshold is the smallest on average that holds the truth so often (Sadinle, Lei and
    Wasserman 2019, arXiv:1609.00451). Logarithms tell apart what as a probability would be 1 for many rows.

    Where the model is right more often than is asked, this coverage can only be met by leaving out answers that are
    right: sets of the least sure rows are then empty. The most probable class stands beside the set in any case.

    >>> threshold_scores(torch.tensor([[2.0, 0.0]])).tolist()
    [[-2.0, 2.0]]
    """
    z = logits.double()
    whole = z.logsumexp(1, keepdim=True)
    share = (z - whole).exp()
    # Of one that has nearly all, the others have to be added up without it.
    top, place = z.max(1, keepdim=True)
    others = z.scatter(1, place, -math.inf).logsumexp(1, keepdim=True)
    out = whole + torch.log1p(-share) - z
    return out.scatter(1, place, others - top)


def adaptive_scores(logits: Tensor, chance: Tensor) -> Tensor:
    """How much probability lies before each class in the order of probability, with a share ``chance`` [N] of its own,
    [N, C].

    Sets grow where the model wavers, so that rows of any difficulty are covered about as often (Romano, Sesia and
    Candès 2020, arXiv:2006.02544). The chance, a random number in [0, 1) of each row, makes the coverage exact:
    without it a row that is sure of one class would always have it, and more rows would be covered than is asked. So
    a set may be empty by chance.

    >>> logits = torch.tensor([[0.6, 0.3, 0.1]]).log()
    >>> [round(x, 2) for x in adaptive_scores(logits, torch.tensor([0.5]))[0].tolist()]
    [0.3, 0.75, 0.95]
    """
    probability = logits.double().softmax(1)
    ordered, place = probability.sort(dim=1, descending=True, stable=True)
    before = ordered.cumsum(1) - ordered
    scores = before + chance.double()[:, None] * ordered
    return torch.zeros_like(scores).scatter(1, place, scores)
