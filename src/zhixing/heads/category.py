"""One of several classes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from ..columns import Column
from ..columns.category import Category
from ..errors import RecipeError, did_you_mean
from ..models.encoding import Encoding
from .head import Head, fade, rounded
from .ranking import auroc, average_precision

__all__ = ["CategoryHead"]

BINS = 15
MOST_CELLS = 250_000  # of a confusion matrix that is kept


def words_as_keys(value: Any) -> Any:
    """Classes are told apart by their text, whatever YAML or Python takes a name like 7 or true for."""
    if not isinstance(value, Mapping):
        return value
    return {str(key).lower() if isinstance(key, bool) else str(key): weight for key, weight in value.items()}


class CategoryHead(Head):
    """A linear layer to one logit a class.

    Loss is cross-entropy, or focal loss (Lin et al., "Focal loss for dense object detection", 2017), which counts rows
    that are already right for less. Prediction [B, C] logits, target [B] int64.

    Where classes are very many, ``sampled`` of them, drawn anew in each step, stand for all that are wrong while
    training (Bengio and Senecal 2008; uniform, so that each counts for C / sampled): prediction [B, 1 + sampled], the
    truth first. Afterwards all are ranked.
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
            Literal["none", "balanced"] | dict[str, Annotated[float, Field(ge=0)]],
            BeforeValidator(words_as_keys),
            Field(description="balanced: each class counts the same in all; or a weight for each class"),
        ] = "none",
        sampled: Annotated[
            int | None, Field(ge=1, description="wrong classes drawn in each step of training; open: all")
        ] = None,
    ) -> None:
        super().__init__()
        assert isinstance(column, Category)
        self.kind, self.smoothing, self.gamma = loss, smoothing, gamma
        self.classes = len(column.classes)
        self.linear = nn.Linear(width, self.classes)
        self.sampled = sampled if sampled is not None and sampled < self.classes - 1 else None
        self.forced = self.sampled is not None  # type: ignore[misc]
        weights = weights_of(class_weights, column)
        self.register_buffer("class_weight", weights, persistent=False)
        self.class_weight: Tensor | None

    def forward(self, encoding: Encoding, target: Tensor | None = None) -> Tensor:
        if self.sampled is not None and self.training and target is not None:
            return self.some(encoding.pooled, target, self.sampled)
        out: Tensor = self.linear(encoding.pooled)
        return out

    def some(self, pooled: Tensor, target: Tensor, count: int) -> Tensor:
        """Logits of each row's own class, then of ``count`` drawn ones; those that are the row's own do not count."""
        drawn = torch.randint(self.classes, (count,), device=pooled.device)
        weight, bias = self.linear.weight, self.linear.bias
        own = (pooled * weight[target]).sum(1) + bias[target]
        others = F.linear(pooled, weight[drawn], bias[drawn]) + math.log((self.classes - 1) / count)
        others = others.masked_fill(drawn == target[:, None], -1e4)
        return torch.cat([own[:, None].to(others.dtype), others], dim=1)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        if self.sampled is not None and prediction.shape[1] == 1 + self.sampled:
            target = torch.zeros_like(target)
        rows = F.cross_entropy(prediction, target, reduction="none", label_smoothing=self.smoothing)
        if self.kind == "focal":
            sure = prediction.log_softmax(-1).gather(-1, target[:, None])[:, 0]
            rows = rows * fade(-sure.expm1(), self.gamma)
        return rows

    def row_weights(self, target: Tensor) -> Tensor | None:
        return None if self.class_weight is None else self.class_weight[target]

    def decode(self, prediction: Tensor, column: Column, *, probabilities: bool = False) -> dict[str, list[Any]]:
        assert isinstance(column, Category)
        probability = prediction.double().softmax(-1)
        best, code = probability.max(-1)
        out = {"": column.restore(code), "probability": rounded(best)}
        if probabilities:
            out |= {f"probability_{name}": rounded(probability[:, i]) for i, name in enumerate(column.classes)}
        return out

    def metrics(self, prediction: Tensor, target: Tensor, column: Column) -> dict[str, float]:
        logits = prediction.float()
        probability = logits.softmax(-1)
        sure, code = probability.max(-1)
        _, recall, f1, truth, said = per_class(code, target, self.classes)
        out: dict[str, Any] = {
            "accuracy": (code == target).double().mean(),
            "balanced_accuracy": recall[truth > 0].mean(),  # over the classes that there are to find
            "macro_f1": f1[truth + said > 0].mean(),
            "log_loss": F.cross_entropy(logits, target, reduction="none").double().mean(),
            "ece": calibration_error(reliability(sure, code == target)),
        }
        if self.classes > 10:
            out["top_5_accuracy"] = (logits.topk(5).indices == target[:, None]).any(1).double().mean()
        if self.classes > 100:  # a catalogue rather than classes: what counts is what stands at its head
            rank = (logits > logits.gather(1, target[:, None])).sum(1)
            out["hit_rate_10"] = (rank < 10).double().mean()
            out["ndcg_10"] = torch.where(rank < 10, 1 / (rank + 2).double().log2(), 0.0).mean()
        if self.classes == 2 and 0 < int(target.sum()) < len(target) and not bool(logits.isnan().any()):
            score = (logits[:, 1] - logits[:, 0]).sigmoid()
            out["auroc"] = auroc(score, target)
            out["average_precision"] = average_precision(score, target)
        return {name: float(value) for name, value in out.items()}

    def examine(self, prediction: Tensor, target: Tensor, column: Column) -> dict[str, Any]:
        assert isinstance(column, Category)
        sure, code = prediction.float().softmax(-1).max(-1)
        precision, recall, f1, truth, _ = per_class(code, target, self.classes)
        figures = (rounded(precision), rounded(recall), rounded(f1), truth.long().tolist())
        names = ("class", "precision", "recall", "f1", "rows")
        out: dict[str, Any] = {
            "classes": column.classes,
            "per_class": [dict(zip(names, row, strict=True)) for row in zip(column.classes, *figures, strict=True)],
            "reliability": reliability(sure, code == target),
        }
        if self.classes**2 <= MOST_CELLS:
            confusion = torch.bincount(target * self.classes + code, minlength=self.classes**2)
            out["confusion"] = confusion.view(self.classes, self.classes).tolist()
        return out

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


def per_class(code: Tensor, target: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Precision, recall, F1, rows that are of it and rows said to be, each [C] in float64."""
    right = torch.bincount(target[code == target], minlength=classes).double()
    truth = torch.bincount(target, minlength=classes).double()
    said = torch.bincount(code, minlength=classes).double()
    f1 = 2 * right / (truth + said).clamp(min=1)
    return right / said.clamp(min=1), right / truth.clamp(min=1), f1, truth, said


def reliability(sure: Tensor, right: Tensor) -> dict[str, list[float]]:
    """Mean confidence and accuracy in bins of confidence (Guo et al., "On calibration of modern networks", 2017)."""
    known = ~sure.isnan()
    sure, right = sure[known].double(), right[known].double()
    place = (sure * BINS).ceil().long().clamp(1, BINS) - 1
    rows = torch.bincount(place, minlength=BINS).double()
    confidence = torch.zeros(BINS, dtype=torch.float64).index_add_(0, place, sure) / rows.clamp(min=1)
    accuracy = torch.zeros(BINS, dtype=torch.float64).index_add_(0, place, right) / rows.clamp(min=1)
    filled = rows > 0
    return {
        "confidence": confidence[filled].tolist(),
        "accuracy": accuracy[filled].tolist(),
        "rows": rows[filled].long().tolist(),
    }


def calibration_error(curve: dict[str, list[float]]) -> float:
    """The expected calibration error: how far confidence and accuracy lie apart, weighted by the rows of each bin."""
    confidence, accuracy, rows = (torch.tensor(curve[name], dtype=torch.float64) for name in curve)
    return float((rows * (confidence - accuracy).abs()).sum() / rows.sum())
