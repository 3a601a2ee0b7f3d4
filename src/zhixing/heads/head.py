"""What every head does: predict, say how wrong it was, and put it in words.

Shape legend: B rows, D width of the encoding, C classes, K quantities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from ..columns import Column
from ..errors import UsageError
from ..models.encoding import Encoder, Encoding
from ..models.prompt import Prompt

__all__ = ["Head"]


class Head(nn.Module):
    """Base of the heads.

    A subclass takes the width of what it reads (``reads``: the encoding's pooled vector or its tokens) and the fitted
    column that it predicts, and its settings as keyword-only arguments. ``goal`` is the metric that a model is chosen
    by, ``higher`` whether more of it is better.

    Most heads need no more than ``forward``, ``loss``, ``decode`` and ``metrics``. One that predicts token after token
    is ``forced``: its forward is given the target, of which each token's prediction may see those before it. Of a
    prediction, :meth:`keep` says what the metrics need, since logits of every token of a whole split would not fit
    into memory; and :meth:`answer` says what the head finds without a target, which ``decode`` reads.
    """

    goal: ClassVar[str]
    higher: ClassVar[bool]
    reads: ClassVar[Literal["pooled", "tokens"]] = "pooled"
    forced: ClassVar[bool] = False

    def forward(self, encoding: Encoding, target: Tensor | None = None) -> Tensor:
        """Encoding to prediction [B, …]: the numbers that the loss reads."""
        raise AssertionError(f"{type(self).__name__} has no forward")

    def keep(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What of a prediction the metrics read, [B, …]."""
        return prediction

    def answer(self, encoding: Encoding, prediction: Tensor | None = None) -> Tensor:
        """What ``decode`` reads, [B, …], found without a target. ``prediction`` is forward's, where it is at hand."""
        out: Tensor = self(encoding) if prediction is None else prediction
        return out

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
        """Figures over all rows of a split, in the column's own units, from what :meth:`keep` gave."""
        raise AssertionError(f"{type(self).__name__} has no metrics")

    def answer_metrics(self, answers: list[Any], truth: list[Any]) -> dict[str, float]:
        """Figures of decoded answers beside the true cells, where these say more than the prediction does."""
        return {}

    def examine(self, prediction: Tensor, target: Tensor, column: Column) -> dict[str, Any]:
        """What a report shows beside the metrics, as JSON."""
        return {}

    def meet(self, encoders: Sequence[Encoder]) -> None:
        """Look at the encoders of all inputs, before training: a head may check that they fit, or share a table.

        Raises:
            UsageError: one leaves all reading to a decoder, which this head has not.
        """
        if any(isinstance(encoder, Prompt) for encoder in encoders):
            raise UsageError(
                "a prompt is for an output of type text, whose decoder reads it",
                place="encoder: prompt",
                mend="Take another encoder.",
            )

    def baseline(self, column: Column) -> None:
        """Start from what is known before any input is seen (class frequencies, the mean), where that helps."""


def fade(probability: Tensor, gamma: float) -> Tensor:
    """The factor of focal loss (Lin et al., "Focal loss for dense object detection", 2017) for what is still lacking
    to certainty. Kept above zero, where a power below one has no slope that can be computed with."""
    return probability.clamp(min=1e-6) ** gamma


def rounded(values: Tensor, digits: int = 6) -> list[float]:
    return [round(x, digits) for x in values.double().tolist()]
