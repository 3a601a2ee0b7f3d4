"""One of several classes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..columns import Column
from ..columns.category import Category
from ..errors import RecipeError, did_you_mean
from ..models.encoding import Encoding
from .head import Head, rounded

__all__ = ["CategoryHead"]

BINS = 15


class CategoryHead(Head):
    """A linear layer to one logit a class.

    Loss is cross-entropy, or focal loss (Lin et al., "Focal loss for dense object detection", 2017), which counts rows
    that are already right for less. Prediction [B, C] logits, target [B] int64.
    """

    goal, higher = "accuracy", True

    def __init__(
        self,
        width: int,
        column: Column,
        *,
        loss: Annotated[Literal["cross_entropy", "focal"], Field(description="what is minimised")] = "cross_entropy",
        smoothing: Annotated[float, Field(ge=0, lt=1, description="label smoothing")] = 0.0,
        gamma: Annotated[float, Field(ge=0, description="focal loss: how much sure rows fade")] = 2.0,
        class_weights: Annotated[
            Literal["none", "balanced"] | dict[str, float],
            Field(description="balanced: each class counts the same in all; or a weight for each class"),
        ] = "none",
    ) -> None:
        super().__init__()
        assert isinstance(column, Category)
        self.kind, self.smoothing, self.gamma = loss, smoothing, gamma
        self.classes = len(column.classes)
        self.linear = nn.Linear(width, self.classes)
        weights = weights_of(class_weights, column)
        self.register_buffer("class_weight", weights, persistent=False)
        self.class_weight: Tensor | None

    def forward(self, encoding: Encoding) -> Tensor:
        out: Tensor = self.linear(encoding.pooled)
        return out

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        rows = F.cross_entropy(prediction, target, reduction="none", label_smoothing=self.smoothing)
        if self.kind == "focal":
            sure = prediction.log_softmax(-1).gather(-1, target[:, None])[:, 0].exp()
            rows = rows * (1 - sure) ** self.gamma
        return rows

    def row_weights(self, target: Tensor) -> Tensor | None:
        return None if self.class_weight is None else self.class_weight[target]

    def decode(self, prediction: Tensor, column: Column) -> dict[str, list[Any]]:
        probability = prediction.double().softmax(-1)
        best, code = probability.max(-1)
        assert isinstance(column, Category)
        each = {f"probability_{name}": rounded(probability[:, i]) for i, name in enumerate(column.classes)}
        return {"": column.restore(code), "probability": rounded(best), **each}

    def metrics(self, prediction: Tensor, target: Tensor, column: Column) -> dict[str, float]:
        from torchmetrics.functional import classification as tm

        logits = prediction.float()
        probability = logits.softmax(-1)
        classes = max(2, self.classes)
        if self.classes == 1:  # a single class: nothing to tell apart
            probability = F.pad(probability, (0, 1))
        out = {
            "accuracy": tm.multiclass_accuracy(probability, target, classes, average="micro"),
            "balanced_accuracy": tm.multiclass_accuracy(probability, target, classes, average="macro"),
            "macro_f1": tm.multiclass_f1_score(probability, target, classes, average="macro"),
            "log_loss": F.cross_entropy(logits, target),
            "calibration_error": tm.multiclass_calibration_error(probability, target, classes, n_bins=BINS),
        }
        if self.classes > 10:
            out["top5_accuracy"] = tm.multiclass_accuracy(probability, target, classes, average="micro", top_k=5)
        if self.classes == 2 and 0 < int(target.sum()) < len(target):
            out["auroc"] = tm.binary_auroc(probability[:, 1], target)
            out["average_precision"] = tm.binary_average_precision(probability[:, 1], target)
        return {name: float(value) for name, value in out.items()}

    def examine(self, prediction: Tensor, target: Tensor, column: Column) -> dict[str, Any]:
        assert isinstance(column, Category)
        sure, code = prediction.float().softmax(-1).max(-1)
        confusion = torch.bincount(target * self.classes + code, minlength=self.classes**2)
        confusion = confusion.view(self.classes, self.classes)
        right = confusion.diagonal().double()
        truth, said = confusion.sum(1).double(), confusion.sum(0).double()
        f1 = 2 * right / (truth + said).clamp(min=1)
        per_class = zip(
            column.classes,
            rounded(right / said.clamp(min=1)),
            rounded(right / truth.clamp(min=1)),
            rounded(f1),
            truth.long().tolist(),
            strict=True,
        )
        return {
            "classes": column.classes,
            "confusion": confusion.tolist(),
            "per_class": [
                dict(zip(("class", "precision", "recall", "f1", "rows"), row, strict=True)) for row in per_class
            ],
            "reliability": reliability(sure, code == target),
        }

    def baseline(self, column: Column) -> None:
        assert isinstance(column, Category)
        with torch.no_grad():
            share = torch.tensor(column.counts, dtype=torch.float64) / max(1, sum(column.counts))
            self.linear.bias.copy_(share.clamp(min=1e-6).log() - share.clamp(min=1e-6).log().mean())


def weights_of(setting: str | dict[str, float], column: Category) -> Tensor | None:
    if setting == "none":
        return None
    if isinstance(setting, dict):
        strange = [name for name in setting if name not in column.classes]
        if strange:
            raise RecipeError(
                [
                    f"class_weights: no training row has the class {name!r}. {did_you_mean(name, column.classes)}"
                    for name in strange
                ]
            )
        return torch.tensor([setting.get(name, 1.0) for name in column.classes])
    count = torch.tensor(column.counts, dtype=torch.float32).clamp(min=1)
    return count.sum() / (len(count) * count)


def reliability(sure: Tensor, right: Tensor) -> dict[str, list[float]]:
    """Mean confidence and accuracy in bins of confidence (Guo et al., "On calibration of modern networks", 2017)."""
    place = (sure * BINS).long().clamp(0, BINS - 1)
    rows = torch.bincount(place, minlength=BINS).double()
    confidence = torch.zeros(BINS, dtype=torch.float64).index_add_(0, place, sure.double()) / rows.clamp(min=1)
    accuracy = torch.zeros(BINS, dtype=torch.float64).index_add_(0, place, right.double()) / rows.clamp(min=1)
    filled = rows > 0
    return {
        "confidence": rounded(confidence[filled]),
        "accuracy": rounded(accuracy[filled]),
        "rows": rows[filled].long().tolist(),
    }
