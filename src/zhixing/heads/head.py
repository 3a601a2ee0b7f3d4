"""What every head does: predict, say how wrong it was, and put it in words.

Shape legend: B rows, D width of the encoding, C classes, K quantities.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from ..columns import Column
from ..models.encoding import Encoding

__all__ = ["Head"]


class Head(nn.Module):
    """Base of the heads.

    A subclass takes the width of what it reads and the fitted column that it predicts, and its settings as
    keyword-only arguments. ``goal`` is the metric that a model is chosen by, ``higher`` whether more of it is better.
    """

    goal: ClassVar[str]
    higher: ClassVar[bool]

    def forward(self, encoding: Encoding) -> Tensor:
        """Encoding to prediction [B, …]: the numbers that the loss reads."""
        raise AssertionError(f"{type(self).__name__} has no forward")

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss of each row, [B]: never a mean, so that rows can be weighted, blended, split and audited."""
        raise AssertionError(f"{type(self).__name__} has no loss")

    def row_weights(self, target: Tensor) -> Tensor | None:
        """What each row counts for, [B]; None where all count the same."""
        return None

    def decode(self, prediction: Tensor, column: Column, *, probabilities: bool = False) -> dict[str, list[Any]]:
        """Prediction to cells: the answer under ``""`` and, under other names, what stands beside it.

        ``probabilities`` adds that of each class, which is much to hold where classes are many.
        """
        raise AssertionError(f"{type(self).__name__} has no decode")

    def metrics(self, prediction: Tensor, target: Tensor, column: Column) -> dict[str, float]:
        """Figures over all rows of a split, in the column's own units."""
        raise AssertionError(f"{type(self).__name__} has no metrics")

    def examine(self, prediction: Tensor, target: Tensor, column: Column) -> dict[str, Any]:
        """What a report shows beside the metrics, as JSON."""
        return {}

    def baseline(self, column: Column) -> None:
        """Start from what is known before any input is seen (class frequencies, the mean), where that helps."""


def fade(probability: Tensor, gamma: float) -> Tensor:
    """The factor of focal loss (Lin et al., "Focal loss for dense object detection", 2017) for what is still lacking
    to certainty. Kept above zero, where a power below one has no slope that can be computed with."""
    return probability.clamp(min=1e-6) ** gamma


def rounded(values: Tensor, digits: int = 6) -> list[float]:
    return [round(x, digits) for x in values.double().tolist()]
