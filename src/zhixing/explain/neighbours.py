"""Nearest training examples: what the model has learned from that looks to it as a row does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..columns import Column
from ..data.batches import Batches, Order, stored_row
from ..errors import UsageError
from ..model import Model
from .context import encode
from .rows import Rows, read_by

__all__ = ["Neighbours"]

PORTION = 256


class Neighbours:
    """The joined encodings of training rows, in which the nearest by cosine are found.

    Encodings are taken less their mean over training rows: networks of rectified units give vectors that all point
    much the same way, whose angles would tell little.
    """

    def __init__(self, model: Model, columns: Mapping[str, Column], training: Rows, device: torch.device) -> None:
        self.model, self.columns, self.training = model, columns, training
        batches = Batches(training.tensors, device)
        lengths = batches.lengths(training.rows)
        order = Order(training.rows, 64 if batches.ragged else PORTION, shuffle=False, lengths=lengths)
        self.rows = order.rows  # in the order of length, where they differ
        with torch.inference_mode():
            parts = [encode(model, batch).pooled for batch in batches.stream(order, 0, order.steps_per_epoch)]
        pooled = torch.cat(parts).float()
        if not pooled.shape[1]:
            raise UsageError(
                "a prompt that its decoder reads has no summary of which rows could be near",
                mend="Go without --nearest.",
            )
        self.mean = pooled.mean(0)
        self.unit = F.normalize(pooled - self.mean, dim=1)

    def nearest(self, pooled: Tensor, count: int) -> list[list[tuple[int, float]]]:
        """Of each encoding [B, D] the ``count`` nearest rows of the training table, and their cosines, nearest first;
        of several equally near, that which comes first in the table."""
        with torch.inference_mode():
            likeness = F.normalize(pooled.float() - self.mean, dim=1) @ self.unit.T
            found, places = likeness.topk(min(count, len(self.rows)), dim=1)
        out = []
        for cosines, numbers in zip(found.tolist(), places.tolist(), strict=True):
            pairs = [
                (int(self.rows[number]), round(cosine, 6)) for number, cosine in zip(numbers, cosines, strict=True)
            ]
            out.append(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))
        return out

    def told(self, row: int, cosine: float) -> dict[str, Any]:
        """A training row for a person."""
        tensors = self.training.tensors
        return {
            "row": row,
            "place": self.training.table.where(row),
            "cosine": cosine,
            "truth": {name: self.training.cell(name, row) for name in self.model.outputs},
            "inputs": {name: self.columns[name].show(stored_row(tensors[name], row)) for name in read_by(self.model)},
        }
