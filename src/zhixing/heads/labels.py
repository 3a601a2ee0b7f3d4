"""A class for each token of a text.

Shape legend: B rows, T tokens that an encoder read, L labels of the longest target, D width of a token, C classes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from ..columns import Column
from ..columns.labels import Labels
from ..errors import UsageError
from ..models.encoding import Encoder, Encoding
from .category import per_class
from .head import Head, rounded

__all__ = ["LabelsHead", "entities", "is_bio"]

FLOOR = -1e4  # a logit that has no chance; finite, and within half precision
BIO = re.compile(r"O|[BI]-.+", re.DOTALL)


class LabelsHead(Head):
    """A linear layer to one logit a class, at each token.

    Loss is cross-entropy: of a row the mean over its tokens, with a weight of their number, so that in a batch each
    token counts the same (or, balanced, each class).

    Prediction [B, T, 1 + C] logits, of which the first is that of padding: it has no chance where a token is real, and
    no other has one where none is. So a prediction knows how many tokens a row has. Target [B, L] int64, 0 padding,
    classes from 1. A text that was cut to its ``length`` has fewer tokens than labels: those labels count for nothing,
    in the loss as in the metrics, and ``examine`` says how many they are.

    Where classes are the BIO tags of entities (B-PER, I-PER, O), there is ``entity_f1``, which counts whole entities.
    """

    goal, higher = "token_accuracy", True
    reads = "tokens"

    def __init__(
        self,
        width: int,
        column: Column,
        *,
        smoothing: Annotated[float, Field(ge=0, lt=1, description="label smoothing")] = 0.0,
        class_weights: Annotated[
            Literal["none", "balanced"], Field(description="balanced: each class counts the same in all")
        ] = "none",
    ) -> None:
        super().__init__()
        assert isinstance(column, Labels)
        self.smoothing = smoothing
        self.classes = len(column.classes)
        self.linear = nn.Linear(width, self.classes)
        weight = None
        if class_weights == "balanced":
            count = torch.tensor(column.counts, dtype=torch.float32).clamp(min=1)
            weight = F.pad(count.sum() / (len(count) * count), (1, 0))
        self.register_buffer("class_weight", weight, persistent=False)
        self.class_weight: Tensor | None

    def forward(self, encoding: Encoding, target: Tensor | None = None) -> Tensor:
        logits = self.linear(encoding.tokens)
        out = F.pad(logits, (1, 0), value=FLOOR)
        if encoding.mask is None:
            return out
        nothing = F.pad(logits.new_full((1, 1, self.classes), FLOOR), (1, 0))
        return torch.where(encoding.mask.unsqueeze(-1), out, nothing)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        goal = as_long(target, prediction.shape[1]) * (prediction[..., 0] < 0)
        weight = None if self.class_weight is None else self.class_weight[1:].to(prediction.dtype)
        tokens = F.cross_entropy(
            prediction[..., 1:].transpose(1, 2),
            goal - 1,
            weight,
            ignore_index=-1,
            reduction="none",
            label_smoothing=self.smoothing,
        )
        return tokens.sum(1) / self.token_weights(goal).clamp(min=1e-6)

    def token_weights(self, goal: Tensor) -> Tensor:
        """What the tokens of each row count for together, [B]."""
        return (goal > 0).sum(1).float() if self.class_weight is None else self.class_weight[goal].sum(1)

    def row_weights(self, target: Tensor) -> Tensor | None:
        return self.token_weights(target)

    def keep(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The class of each token [B, T], 0 where none is."""
        return prediction.argmax(-1)

    def decode(self, prediction: Tensor, column: Column, *, probabilities: bool = False) -> dict[str, list[Any]]:
        """A list for each row with as many classes as it has tokens, and their probabilities."""
        assert isinstance(column, Labels)
        code, probability = prediction.argmax(-1), prediction.double().softmax(-1)

        def of_tokens(values: Tensor) -> list[list[float]]:
            return [rounded(row[there]) for row, there in zip(values, code > 0, strict=True)]

        out = {"": column.restore(code), "probability": of_tokens(probability.amax(-1))}
        if probabilities:
            each = zip(column.classes, probability[..., 1:].unbind(-1), strict=True)
            out |= {f"probability_{name}": of_tokens(values) for name, values in each}
        return out

    def metrics(self, prediction: Tensor, target: Tensor, column: Column) -> dict[str, float]:
        assert isinstance(column, Labels)
        code, goal = read_alone(prediction, target)
        real = goal > 0
        if not bool(real.any()):
            return {}
        right = code == goal
        _, _, f1, truth, said = per_class(code[real] - 1, goal[real] - 1, self.classes)
        out = {
            "token_accuracy": right[real].double().mean(),
            "macro_f1": f1[truth + said > 0].mean(),
            "sequence_accuracy": right.all(1)[real.any(1)].double().mean(),
        }
        if is_bio(column.classes):
            found, true = entities(code, column.classes), entities(goal, column.classes)
            both, all_found, all_true = len(np.intersect1d(found, true)), len(found), len(true)
            out["entity_precision"] = torch.tensor(both / all_found if all_found else float(not all_true))
            out["entity_recall"] = torch.tensor(both / all_true if all_true else float(not all_found))
            # With nothing to find and nothing said all is well.
            whole = all_found + all_true
            out["entity_f1"] = torch.tensor(2 * both / whole if whole else 1.0)
        return {name: float(value) for name, value in out.items()}

    def examine(self, prediction: Tensor, target: Tensor, column: Column) -> dict[str, Any]:
        assert isinstance(column, Labels)
        code, goal = read_alone(prediction, target)
        real = goal > 0
        precision, recall, f1, truth, _ = per_class(code[real] - 1, goal[real] - 1, self.classes)
        figures = (rounded(precision), rounded(recall), rounded(f1), truth.long().tolist())
        names = ("class", "precision", "recall", "f1", "tokens")
        return {
            "per_class": [dict(zip(names, row, strict=True)) for row in zip(column.classes, *figures, strict=True)],
            "unread_labels": int((target > 0).sum() - real.sum()),
        }

    def meet(self, encoders: Sequence[Encoder]) -> None:
        """Raises UsageError where the head would not read one token for each step of a single input."""
        place, mend = "an output of type labels", "Its only input is to be the words, and its encoder one of tokens."
        if len(encoders) != 1:
            raise UsageError(
                f"labels stand beside the tokens of one input, and there are {len(encoders)} inputs",
                place=place,
                mend=mend,
            )
        # A module of somebody's own need not say what it accepts.
        accepts: frozenset[str] = getattr(encoders[0], "accepts", frozenset())
        if getattr(encoders[0], "shrink", 1) != 1 or (accepts and not accepts & {"tokens", "sequence"}):
            raise UsageError(
                f"labels need an encoder with a token for each step, which {type(encoders[0]).__name__} has not",
                place=place,
                mend=mend,
            )

    def baseline(self, column: Column) -> None:
        assert isinstance(column, Labels)
        with torch.no_grad():
            share = torch.tensor(column.counts, dtype=torch.float64) / max(1, sum(column.counts))
            self.linear.bias.copy_(share.clamp(min=1e-6).log() - share.clamp(min=1e-6).log().mean())


def as_long(target: Tensor, steps: int) -> Tensor:
    """Labels [B, L] as [B, T]: cut, or filled up with padding. A batch pads each column by itself.

    >>> as_long(torch.tensor([[3, 1, 2]]), 2), as_long(torch.tensor([[3]]), 2)
    (tensor([[3, 1]]), tensor([[3, 0]]))
    """
    return F.pad(target, (0, steps - target.shape[1]))


def read_alone(code: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Classes said and true ones, each [B, T], padding where there is no label or no token that was read."""
    goal = as_long(target, code.shape[1])
    both = (code > 0) & (goal > 0)
    return code * both, goal * both


def is_bio(classes: list[str]) -> bool:
    """Whether these are the tags of entities: each O, or B or I with a type, and not O alone.

    >>> is_bio(["B-LOC", "I-LOC", "O"]), is_bio(["NOUN", "O"])
    (True, False)
    """
    return all(BIO.fullmatch(name) for name in classes) and any(name != "O" for name in classes)


def entities(code: Tensor, classes: list[str]) -> NDArray[np.int64]:
    """One number for each entity in ``code`` [B, T], which tells its row, place, length and type.

    An entity begins with B, or with I where what stands before it is no part of the same type, and goes on as long as
    I of its type follow (the rule of the shared task CoNLL-2000; Tjong Kim Sang and Buchholz 2000).

    >>> len(entities(torch.tensor([[1, 2, 3, 2, 0]]), ["B-LOC", "I-LOC", "O"]))
    2
    """
    types = sorted({name[2:] for name in classes if name != "O"})
    type_of = np.array([0, *(0 if name == "O" else 1 + types.index(name[2:]) for name in classes)])
    begins = np.array([False, *(name.startswith("B-") for name in classes)])
    table = np.pad(code.cpu().numpy(), ((0, 0), (1, 1)))  # nothing before and after each row, so that none runs on
    cells = table.ravel()
    kind = type_of[cells]
    start = (kind > 0) & (begins[cells] | (kind != np.roll(kind, 1)))
    first, stops = np.flatnonzero(start), np.flatnonzero(start | (kind == 0))
    length = stops[np.searchsorted(stops, first, side="right")] - first
    return np.asarray((first * table.shape[1] + length) * len(type_of) + kind[first], np.int64)
