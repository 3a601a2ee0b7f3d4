"""A language model's own text as what it reads: which tokens speak for the one that comes next.

Shape legend: B rows, T tokens of the text, D width, V tokens of the vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..columns import Column
from ..columns.text import Text
from ..columns.vocabulary import BEGIN, PAD
from ..data.batches import Batch
from ..heads import Head, TextHead
from ..heads.decoder import shifted
from ..heads.decoder_transformer import TransformerDecoder, texts_of, without_last_end
from ..model import Model
from ..models.encoding import Encoding
from ..models.prompt import Prompt
from .goals import Ask, Goal, picked, place_of

__all__ = ["Context", "Next", "Spoken", "before", "encode", "next_token", "spoken"]


class Context(nn.Module):
    """The stack of a language model as an encoder of the tokens so far; its summary is what the next is told from."""

    pooling = "last"

    def __init__(self, decoder: TransformerDecoder) -> None:
        super().__init__()
        assert decoder.packed
        assert not len(decoder.lead)
        self.decoder = decoder

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Encoding:
        """``values`` [B, T] as the decoder reads them after BEGIN; ``mask`` is of those that count: the first ones."""
        real = values > PAD if mask is None else mask
        begin = torch.full_like(values[:, :1], BEGIN)
        pieces, at = texts_of(torch.cat([begin, values], dim=1))
        # Looked up apart, so that only the text's own vectors can be put in the place of others.
        first = nn.functional.embedding(begin, self.decoder.embed.weight) * self.decoder.scale
        hidden = self.decoder.stack(torch.cat([first, self.decoder.vectors(values)], dim=1), at=at, pieces=pieces)
        last = real.sum(1)
        return Encoding(hidden[torch.arange(len(values), device=values.device), last], hidden[:, 1:], real)


def encode(model: Model, batch: Batch) -> Encoding:
    """What answers are given from: the joined encoding of a batch, or what a language model has read of its text."""
    if model.inputs:
        return model.encode(batch)
    name = model.outputs[0]
    context, read, mask, _ = before(model.head(name), batch.columns[name].values, None)
    out: Encoding = context(read, mask)
    return out


class Spoken(nn.Module):
    """The prompt that a decoder reads itself, as an encoder: the vectors that stand for its tokens there."""

    def __init__(self, decoder: TransformerDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Encoding:
        vectors = self.decoder.vectors(values)
        real = values > PAD if mask is None else mask
        return Encoding(vectors[:, 0, :0], vectors, real, ids=values.masked_fill(~real, PAD))


def spoken(encoder: Any, head: Head) -> Any:
    """An encoder, or where it leaves all reading to the decoder, one that gives the decoder's own vectors."""
    if not isinstance(encoder, Prompt):
        return encoder
    assert isinstance(head, TextHead)
    assert isinstance(head.decoder, TransformerDecoder)
    return Spoken(head.decoder)


class Next(Head):
    """Scores of the token that comes next, [B, V]."""

    def __init__(self, decoder: TransformerDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, encoding: Encoding, target: Tensor | None = None) -> Tensor:
        return self.decoder.scores(encoding.pooled)


def before(head: Head, values: Tensor, step: int | None) -> tuple[Context, Tensor, Tensor, Tensor | None]:
    """What is read of texts [B, T]: the encoder, the tokens as it reads them, and which of them count.

    All of a text is read, or those tokens that stand before ``step``; no more than the model can. With a step there is
    also the token [B] that stands there: of a shorter text the last.
    """
    assert isinstance(head, TextHead)
    assert isinstance(head.decoder, TransformerDecoder)
    given = without_last_end(values.abs())
    count = (given > PAD).sum(1)
    most = head.decoder.length - 1  # places, less that of BEGIN
    known = count.clamp(max=most) if step is None else torch.minimum(count - 1, count.new_tensor(min(step, most)))
    known = known.clamp(min=0)
    wide = max(1, int(known.max()) if len(known) else 1)
    read = shifted(nn.functional.pad(given, (0, 1)))[:, 1 : wide + 1]
    mask = torch.arange(wide, device=values.device) < known[:, None]
    there = None if step is None else given.gather(1, known[:, None])[:, 0]
    return Context(head.decoder), read, mask, there


def next_token(head: Head, column: Column, encoding: Encoding, ask: Ask, there: Tensor | None) -> Goal:
    """The logit of the token that comes next: the likeliest, the one that stands ``there`` [B], or one that is named.

    Raises:
        UsageError: no token is spelled so.
    """
    assert isinstance(head, TextHead)
    assert isinstance(head.decoder, TransformerDecoder)
    assert isinstance(column, Text)
    following = Next(head.decoder)
    target = following(encoding).argmax(-1) if there is None else there
    if ask.label is not None:
        tokens = column.tokens_of(range(column.spec().vocabulary))
        target = torch.full_like(target, place_of(ask.label, tokens, "token"))
    names = column.tokens_of(target.tolist())
    return Goal(following, target, picked, "logit", names, lambda said, wanted: picked(said.softmax(-1), wanted))
