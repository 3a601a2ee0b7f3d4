"""Pairs that belong together: what one half means, the other does too.

Shape legend: B pairs, T steps, D width.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..columns import Column
from ..data.batches import ColumnBatch, Draw
from ..models.encoding import Asked, Encoder, Encoding
from .head import PretextHead, Question

__all__ = ["Pairs", "in_batch"]


def in_batch(first: Tensor, second: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The loss of each pair, and whether its halves found each other, [B] each; halves are [B, D].

    Each half is to find its own other half among those of all pairs, by the cosine of the angle between them.

    >>> loss, right = in_batch(torch.eye(3), torch.eye(3)[[1, 0, 2]], 0.05)
    >>> right.tolist()
    [0.0, 0.0, 1.0]
    """
    near = F.normalize(first.float(), dim=1) @ F.normalize(second.float(), dim=1).T / temperature
    own = torch.arange(len(near), device=near.device)
    losses = F.cross_entropy(near, own, reduction="none") + F.cross_entropy(near.T, own, reduction="none")
    right = (near.argmax(1) == own).float() + (near.argmax(0) == own).float()
    return losses / 2, right / 2


class Pairs(PretextHead):
    """Similarity from pairs with in-batch negatives (InfoNCE: van den Oord et al. 2018, arXiv:1807.03748; for texts
    Henderson et al. 2017, arXiv:1705.00652, here in both directions): question and answer, a sentence and its
    translation, two photos of one thing.

    One encoder reads both halves, and its summary is what is compared: what ``zhixing embed --normalise`` writes
    afterwards is near for what belongs together. The output is the column of the other halves. Larger batches teach
    more.

    The figures of a row: its loss, and which share of its halves found the other in the batch.
    """

    invents = False
    reads_types = ("text", "image", "history", "series", "audio")

    def __init__(
        self,
        width: int,
        column: Column,
        *,
        temperature: Annotated[
            float, Field(gt=0, description="of the similarities; lower looks at the nearest")
        ] = 0.05,
    ) -> None:
        super().__init__(column)
        self.check(
            self.paired, "needs the column of the other halves as its output", "Name both: --column A --column B."
        )
        self.temperature = temperature

    def build(self, encoder: Encoder) -> None:
        self.check(encoder.width > 0, "needs a summary of each half")

    def ask(self, stem: nn.Module, given: ColumnBatch, other: ColumnBatch, draw: Draw) -> Question:
        most = max(given.values.shape[1], other.values.shape[1])
        if given.mask is None or other.mask is None:
            values, mask = stem(torch.cat([given.values, other.values]))
            return Question(values, mask, ())

        def long(values: Tensor) -> Tensor:
            return F.pad(values, (0, 0) * (values.ndim - 2) + (0, most - values.shape[1]))

        halves = [torch.cat([long(one), long(two)]) for one, two in zip(given, other, strict=True)]  # type: ignore[arg-type]
        values, mask = stem(*halves)
        return Question(values, mask, ())

    def judge(self, encoding: Encoding, asked: Asked) -> Tensor:
        first, second = encoding.pooled.chunk(2)
        return torch.stack(in_batch(first, second, self.temperature), dim=1)

    def figures(self, sums: list[float], rows: int) -> dict[str, float]:
        return {"found": sums[0] / max(rows, 1)}
