"""Contrastive views: two changed copies of a picture are to be told for one, among all others of the batch.

Shape legend: B rows, N = 2B views, D width.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..columns import Column
from ..columns.augment import Augment
from ..data.batches import ColumnBatch, Draw
from ..models.encoding import Asked, Encoder, Encoding
from ..randomness import fold
from .head import PretextHead, Question

__all__ = ["Views", "nt_xent"]

Share = Annotated[float, Field(ge=0, le=1)]


def nt_xent(views: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The normalised, temperature-scaled cross-entropy of each row, and whether its views found each other, [B] each.

    ``views`` [2B, D] are the first views of all rows, then the second. Each is to find the other of its row among all
    views but itself, by the cosine of the angle between them.

    >>> loss, right = nt_xent(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.1], [0.0, 3.0]]), 0.1)
    >>> right.tolist(), bool((loss < 0.01).all())
    ([1.0, 1.0], True)
    """
    rows = len(views) // 2
    unit = F.normalize(views.float(), dim=1)
    near = unit @ unit.T / temperature
    near = near.masked_fill(torch.eye(2 * rows, dtype=torch.bool, device=near.device), float("-inf"))
    partner = torch.arange(2 * rows, device=near.device).roll(rows)
    losses = F.cross_entropy(near, partner, reduction="none")
    right = (near.argmax(1) == partner).float()
    return losses.view(2, rows).mean(0), right.view(2, rows).mean(0)


class Views(PretextHead):
    """SimCLR (Chen et al. 2020, arXiv:2002.05709): cropped, mirrored and coloured twice, a picture is still the same.

    What is compared is not the summary but what a small perceptron makes of it, which is thrown away afterwards. Other
    rows of the batch are what a view must be told from: larger batches teach more. Where a batch is worked through in
    parts, each part is one by itself.

    The figures of a row: its loss, and which share of its views found each other.
    """

    reads_types = ("image",)

    def __init__(
        self,
        width: int,
        column: Column,
        *,
        temperature: Annotated[float, Field(gt=0, description="of the similarities; lower looks at the nearest")] = 0.2,
        projection: Annotated[int, Field(ge=1, description="units of what is compared")] = 64,
        crop: Annotated[float, Field(gt=0, le=1, description="least share of the area that a view keeps")] = 0.2,
        flip: Annotated[bool, Field(description="left to right, half of the time")] = True,
        rotate: Annotated[float, Field(ge=0, le=180, description="largest turn, in degrees")] = 0.0,
        colour: Annotated[Share, Field(description="largest change of brightness, contrast, saturation")] = 0.4,
    ) -> None:
        super().__init__(column)
        self.temperature = temperature
        self.change = Augment(
            crop=crop, flip=flip, rotate=rotate, brightness=colour, contrast=colour, saturation=colour
        )
        self.project = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, projection))

    def build(self, encoder: Encoder) -> None:
        self.check(encoder.width > 0, "needs a summary of the picture")

    def ask(self, stem: nn.Module, given: ColumnBatch, other: ColumnBatch, draw: Draw) -> Question:
        seeds = (fold(draw.seed, "view", number) for number in range(2))
        views = torch.cat([self.change(given.values, draw.rows, seed, draw.step)[0] for seed in seeds])
        values, mask = stem(views)
        return Question(values, mask, ())

    def judge(self, encoding: Encoding, asked: Asked) -> Tensor:
        return torch.stack(nt_xent(self.project(encoding.pooled), self.temperature), dim=1)

    def figures(self, sums: list[float], rows: int) -> dict[str, float]:
        return {"found": sums[0] / max(rows, 1)}
