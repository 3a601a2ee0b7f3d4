"""Any number of labels."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..columns import Column
from ..columns.tags import Tags
from ..models.encoding import Encoding
from .head import Head, fade, rounded
from .ranking import average_precision

__all__ = ["TagsHead"]


class TagsHead(Head):
    """A linear layer to one logit a label, each label judged for itself.

    Prediction [B, C] logits, target [B, C] of 0 and 1. The loss of a row is the mean over its labels.
    """

    goal, higher = "micro_f1", True

    def __init__(
        self,
        width: int,
        column: Column,
        *,
        loss: Annotated[Literal["cross_entropy", "focal"], Field(description="what is minimised")] = "cross_entropy",
        smoothing: Annotated[float, Field(ge=0, lt=1, description="label smoothing, towards one half")] = 0.0,
        gamma: Annotated[float, Field(ge=0, description="focal loss: how much sure labels fade")] = 2.0,
        class_weights: Annotated[
            Literal["none", "balanced"], Field(description="balanced: a rare label's rows count for more")
        ] = "none",
        threshold: Annotated[float, Field(gt=0, lt=1, description="a label is given from this probability on")] = 0.5,
    ) -> None:
        super().__init__()
        assert isinstance(column, Tags)
        self.kind, self.smoothing, self.gamma, self.threshold = loss, smoothing, gamma, threshold
        self.linear = nn.Linear(width, len(column.classes))
        weight = None
        if class_weights == "balanced":
            count = torch.tensor(column.counts, dtype=torch.float32).clamp(min=1)
            weight = count.sum() / (len(count) * count)
        self.register_buffer("class_weight", weight, persistent=False)
        self.class_weight: Tensor | None

    def forward(self, encoding: Encoding, target: Tensor | None = None) -> Tensor:
        out: Tensor = self.linear(encoding.pooled)
        return out

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        goal = target.to(prediction.dtype)
        soft = goal * (1 - self.smoothing) + self.smoothing / 2
        cells = F.binary_cross_entropy_with_logits(prediction, soft, reduction="none")
        if self.kind == "focal":
            probability = prediction.sigmoid()
            cells = cells * fade(goal * (1 - probability) + (1 - goal) * probability, self.gamma)
        if self.class_weight is not None:
            cells = cells * (goal * (self.class_weight - 1) + 1)
        return cells.mean(-1)

    def decode(self, prediction: Tensor, column: Column, *, probabilities: bool = False) -> dict[str, list[Any]]:
        assert isinstance(column, Tags)
        probability = prediction.double().sigmoid()
        out = {"": column.restore((probability >= self.threshold).double())}
        if probabilities:
            out |= {f"probability_{name}": rounded(probability[:, i]) for i, name in enumerate(column.classes)}
        return out

    def metrics(self, prediction: Tensor, target: Tensor, column: Column) -> dict[str, float]:
        logits, truth = prediction.float(), target.bool()
        given = logits.sigmoid() >= self.threshold
        right, said, real = counts(given, truth)
        kept = real > 0  # a label that no row has can be neither found nor missed
        f1 = 2 * right / (said + real).clamp(min=1)
        whole = (said + real).sum()
        out: dict[str, Any] = {
            # With nothing to find and nothing said all is well.
            "micro_f1": 2 * right.sum() / whole if whole > 0 else 1.0,
            "subset_accuracy": (given == truth).all(1).double().mean(),
            "hamming_loss": (given != truth).double().mean(),
            "log_loss": F.binary_cross_entropy_with_logits(logits, truth.float(), reduction="none").double().mean(),
        }
        if bool(kept.any()):
            out["macro_f1"] = f1[kept].mean()
            if not bool(logits.isnan().any()):
                out["mean_average_precision"] = mean_average_precision(logits[:, kept], truth[:, kept])
        return {name: float(value) for name, value in out.items()}

    def examine(self, prediction: Tensor, target: Tensor, column: Column) -> dict[str, Any]:
        assert isinstance(column, Tags)
        right, said, real = counts(prediction.float().sigmoid() >= self.threshold, target.bool())
        rows = zip(
            column.classes,
            rounded(right / said.clamp(min=1)),
            rounded(right / real.clamp(min=1)),
            rounded(2 * right / (said + real).clamp(min=1)),
            real.long().tolist(),
            strict=True,
        )
        names = ("class", "precision", "recall", "f1", "rows")
        return {"per_class": [dict(zip(names, row, strict=True)) for row in rows]}

    def baseline(self, column: Column) -> None:
        assert isinstance(column, Tags)
        with torch.no_grad():
            share = torch.tensor(column.counts, dtype=torch.float64) / max(1, sum(column.counts))
            self.linear.bias.copy_(torch.logit(share.clamp(1e-4, 1 - 1e-4)))


def counts(given: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How many rows rightly have each label, are said to have it and have it, each [C] in float64."""
    return (given & truth).sum(0).double(), given.sum(0).double(), truth.sum(0).double()


def mean_average_precision(logits: Tensor, truth: Tensor) -> float:
    """The mean over labels of the area under precision against recall."""
    return float(torch.stack([average_precision(*pair) for pair in zip(logits.T, truth.T, strict=True)]).mean())
