"""Masked tokens: some are hidden, and are to be told from those around them.

Shape legend: B rows, T tokens, K hidden ones of a row at most, D width, V tokens of the vocabulary.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..columns import Column
from ..columns.text import Text
from ..columns.vocabulary import BEGIN, END
from ..data.batches import ColumnBatch, Draw
from ..models.encoding import Asked, Encoder, Encoding
from .head import PretextHead, Question

__all__ = ["Cloze", "MaskedTokens", "choose_places"]

MASKS = ("[MASK]", "<mask>")  # as published vocabularies spell it


def choose_places(order: Tensor, possible: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Of each row's ``possible`` places [B, T], a share, at least one, by the lowest numbers of ``order`` [B, T].

    Gives the places [B, K], K the same for all rows, and which of them count [B, K]. Nothing here waits for the device.

    >>> order = torch.tensor([[0.4, 0.1, 0.2, 0.3]])
    >>> choose_places(order, torch.tensor([[True, True, False, True]]), 0.7)
    (tensor([[1, 3, 0]]), tensor([[ True,  True, False]]))
    """
    most = max(1, math.ceil(share * order.shape[1]))
    count = possible.sum(1, keepdim=True)
    wanted = torch.minimum((share * count).round().long().clamp(min=1), count)
    place = order.masked_fill(~possible, 2.0).argsort(dim=1, stable=True)[:, :most]
    return place, torch.arange(most, device=order.device) < wanted


class Cloze(PretextHead):
    """Base of what hides tokens. Scores are products with the encoder's own vectors of tokens, where it has such.

    The figures of a row are its mean loss; then the sum of losses, tokens told right, and tokens hidden.
    """

    reads = "tokens"
    lowest: int  # of the ids that may be hidden

    def __init__(self, width: int, column: Column, *, share: float, blank: int) -> None:
        super().__init__(column)
        self.width, self.share, self.blank = width, share, blank
        self.vocabulary = self.input.spec().vocabulary

    def build(self, encoder: Encoder) -> None:
        name = type(encoder).__name__
        self.check(getattr(encoder, "shrink", 1) == 1, f"needs a token for each step, which {name} has not")
        table = getattr(encoder, "item_embedding", None)
        width = self.width if table is None else table.embedding_dim
        self.transform = nn.Sequential(nn.Linear(self.width, width), nn.GELU(), nn.LayerNorm(width))
        self.bias = nn.Parameter(torch.zeros(self.vocabulary))
        self.own = nn.Linear(width, self.vocabulary, bias=False) if table is None else None
        self.table: list[Any] = [table]  # in a list, so that it stays the encoder's alone

    def scores(self, hidden: Tensor) -> Tensor:
        """Scores of all tokens [..., V] of vectors [..., D]."""
        table: Tensor = (self.table[0] if self.own is None else self.own).weight
        return F.linear(self.transform(hidden), table, self.bias)

    def places(self, ids: Tensor, possible: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        return choose_places(draw.uniform(ids.shape[1], "places"), possible, self.share)

    def hidden_as(self, truth: Tensor, draw: Draw, place: Tensor, steps: int) -> Tensor:
        """What stands in the place of the hidden tokens [B, K]."""
        return torch.full_like(truth, self.blank)

    def ask(self, stem: nn.Module, given: ColumnBatch, other: ColumnBatch, draw: Draw) -> Question:
        ids, mask = stem(*given)
        possible = ids >= self.lowest
        if mask is not None:
            possible = possible & mask
        place, counts = self.places(ids, possible, draw)
        truth = ids.gather(1, place)
        seen = torch.where(counts, self.hidden_as(truth, draw, place, ids.shape[1]), truth)
        return Question(ids.scatter(1, place, seen), mask, (place, torch.where(counts, truth, 0)))

    def judge(self, encoding: Encoding, asked: Asked) -> Tensor:
        place, truth = asked
        tokens = encoding.tokens
        scores = self.scores(tokens.gather(1, place.unsqueeze(-1).expand(-1, -1, tokens.shape[-1])))
        losses = F.cross_entropy(scores.flatten(0, 1).float(), truth.flatten(), ignore_index=0, reduction="none")
        total, hidden = losses.view_as(truth).sum(1), (truth > 0).sum(1)
        right = ((scores.argmax(-1) == truth) & (truth > 0)).sum(1)
        return torch.stack([total / hidden.clamp(min=1), total, right, hidden], dim=1)

    def figures(self, sums: list[float], rows: int) -> dict[str, float]:
        total, right, hidden = sums
        count = max(hidden, 1.0)
        return {"perplexity": math.exp(min(total / count, 700)), "masked_accuracy": right / count}


class MaskedTokens(Cloze):
    """Masked language modelling (Devlin et al. 2019, arXiv:1810.04805): of the tokens of each text a ``share`` is to be
    told; of these eight in ten are hidden, one is another token, and one is left as it is.

    What hides a token is the mask token of a published vocabulary; in one of our own, the id that begins texts and that
    texts that are read never hold. Each text counts the same, however long.
    """

    reads_types = ("text",)
    lowest = END + 1

    def __init__(
        self,
        width: int,
        column: Column,
        *,
        share: Annotated[float, Field(gt=0, lt=1, description="of the tokens that are to be told")] = 0.15,
        hidden: Annotated[float, Field(ge=0, le=1, description="of these, those that are hidden")] = 0.8,
        swapped: Annotated[float, Field(ge=0, le=1, description="of these, those that are another token")] = 0.1,
    ) -> None:
        super().__init__(width, column, share=share, blank=BEGIN)
        self.hidden, self.swapped = hidden, swapped
        self.check(hidden + swapped <= 1, f"hides {hidden:g} and swaps {swapped:g} of its tokens, more than all", "")
        assert isinstance(self.input, Text)
        if self.input.tokenizer == "published":
            pieces = (self.input.codec.piece(token) for token in range(self.vocabulary))
            self.blank = next((token for token, piece in enumerate(pieces) if piece in MASKS), BEGIN)

    def hidden_as(self, truth: Tensor, draw: Draw, place: Tensor, steps: int) -> Tensor:
        chance = draw.uniform(steps, "how").gather(1, place)
        other = draw.uniform(steps, "which").gather(1, place) * (self.vocabulary - self.lowest)
        some = self.lowest + other.long().clamp(max=self.vocabulary - self.lowest - 1)
        shown = torch.where(chance < self.hidden + self.swapped, some, truth)
        return torch.where(chance < self.hidden, self.blank, shown)
