"""Temperature scaling: one number that makes a network's probabilities mean what they say."""

from __future__ import annotations

from torch import Tensor

__all__ = ["fit_temperature"]

LOWEST, HIGHEST = 1e-2, 1e2  # of the inverse temperature
MOST_CELLS = 20_000_000  # of logits that are looked at


def fit_temperature(logits: Tensor, target: Tensor) -> float:
    """The temperature T for which softmax(logits / T) gives the targets the largest likelihood (Guo et al., "On
    calibration of modern neural networks", 2017, arXiv:1706.04599).

    Where every row is right, the paper's likelihood has no largest value: T would be 0 and every answer certain. So
    one row's worth of doubt is spread over all rows, as Platt (1999) does for two classes: each target has the share
    1 / (N + 2) less than 1. With many rows it does not show.

    The likelihood is concave in 1 / T; its largest value is found by Newton's method between bounds that close in.

    Shape: logits [N, C], target [N] int64.

    >>> import torch
    >>> logits = torch.tensor([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [4.0, 0.0]]).repeat(1000, 1)
    >>> target = torch.tensor([0, 0, 0, 1]).repeat(1000)
    >>> round(4.0 / fit_temperature(logits, target), 2)  # log(3): three in four are right
    1.1
    """
    step = -(-logits.numel() // MOST_CELLS)
    z = logits[::step].double()
    z = z - z.max(1, keepdim=True).values
    target = target[::step]
    rows, classes = z.shape
    doubt = 1 / (rows + 2)
    wanted = (1 - doubt) * z.gather(1, target[:, None])[:, 0]
    if classes > 1:
        wanted = wanted + doubt * (z.sum(1) - z.gather(1, target[:, None])[:, 0]) / (classes - 1)
    low, high, inverse = LOWEST, HIGHEST, 1.0
    for _ in range(100):
        probability = (inverse * z).softmax(1)
        mean = (probability * z).sum(1)
        slope = float((mean - wanted).mean())
        bend = float(((probability * z.square()).sum(1) - mean.square()).mean())
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        if high / low < 1 + 1e-9 or not slope:
            break
        there = inverse - slope / bend if bend > 0 else 0.0
        inverse = there if low < there < high else (low * high) ** 0.5
    return 1 / inverse
