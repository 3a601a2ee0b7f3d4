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
from .head import Head, rounded

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

    def forward(self, encoding: Encoding) -> Tensor:
        out: Tensor = self.linear(encoding.pooled)
        return out

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        goal = target.to(prediction.dtype)
        soft = goal * (1 - self.smoothing) + self.smoothing / 2
        cells = F.binary_cross_entropy_with_logits(prediction, soft, reduction="none")
        if self.kind == "focal":
            probability = prediction.sigmoid()
            cells = cells * (goal * (1 - probability) + (1 - goal) * probability) ** self.gamma
        if self.class_weight is not None:
            cells = cells * (goal * (self.class_weight - 1) + 1)
        return cells.mean(-1)

    def decode(self, prediction: Tensor, column: Column) -> dict[str, list[Any]]:
        assert isinstance(column, Tags)
        probability = prediction.double().sigmoid()
        given = (probability >= self.threshold).double()
        each = {f"probability_{name}": rounded(probability[:, i]) for i, name in enumerate(column.classes)}
        return {"": column.restore(given), **each}

    def metrics(self, prediction: Tensor, target: Tensor, column: Column) -> dict[str, float]:
        from torchmetrics.functional import classification as tm

        probability, labels, truth = prediction.float().sigmoid(), target.shape[1], target.long()
        kept = truth.sum(0) > 0  # a label that no row has can be neither found nor missed
        given = (probability >= self.threshold).long()
        average = tm.multilabel_average_precision(probability, truth, labels, average="none")
        out = {
            "micro_f1": tm.multilabel_f1_score(given, truth, labels, average="micro"),
            "macro_f1": tm.multilabel_f1_score(given, truth, labels, average="none")[kept].mean(),
            "exact_match": tm.multilabel_exact_match(given, truth, labels),
            "hamming": 1 - (given != truth).float().mean(),
            "mean_average_precision": average[kept].mean(),
            "log_loss": F.binary_cross_entropy_with_logits(prediction.float(), target.float()),
        }
        return {name: float(value) for name, value in out.items()}

    def examine(self, prediction: Tensor, target: Tensor, column: Column) -> dict[str, Any]:
        assert isinstance(column, Tags)
        given, truth = prediction.float().sigmoid() >= self.threshold, target.bool()
        right = (given & truth).sum(0).double()
        said, real = given.sum(0).double(), truth.sum(0).double()
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
