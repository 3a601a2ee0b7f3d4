"""Masked items of histories."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from ..columns import Column
from ..columns.history import FIRST
from ..columns.vocabulary import UNKNOWN
from ..data.batches import Draw
from .masked_tokens import Cloze

__all__ = ["MaskedItems"]


class MaskedItems(Cloze):
    """BERT4Rec (Sun et al. 2019, arXiv:1904.06690): of the items of each history a ``share`` is hidden and to be told.

    As there, some histories hide their newest item alone, which is what a recommender will be asked for; which ones is
    drawn anew each time, where the paper adds such rows once. A hidden item is one that is not known. The encoder has
    to look both ways: a causal one sees only what came before.
    """

    reads_types = ("history",)
    lowest = FIRST

    def __init__(
        self,
        width: int,
        column: Column,
        *,
        share: Annotated[float, Field(gt=0, lt=1, description="of the items that are hidden")] = 0.2,
        newest: Annotated[float, Field(ge=0, le=1, description="of the histories that hide the newest alone")] = 0.1,
    ) -> None:
        super().__init__(width, column, share=share, blank=UNKNOWN)
        self.newest = newest

    def places(self, ids: Tensor, possible: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        step = torch.arange(ids.shape[1], device=ids.device)
        last = torch.where(possible, step, -1).amax(1, keepdim=True)
        alone = draw.uniform(1, "newest") < self.newest
        possible = torch.where(alone, possible & (step == last), possible)
        return super().places(ids, possible, draw)
