"""A Transformer that writes token after token, with or without an input.

Shape legend: B rows, T tokens of the text, S tokens of the input, D width, V tokens of the vocabulary.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..columns.vocabulary import BEGIN, END, PAD
from ..errors import DataError, UsageError
from ..layers.attention import Attention
from ..layers.packed import packed_linear
from ..layers.positions import Learned
from ..layers.transformer import (
    BlockSettings,
    Cache,
    Depth,
    Dropout,
    Heads,
    Transformer,
    TransformerBlock,
    TransformerSettings,
    Width,
)
from ..models.encoding import Encoding
from .decoder import NOTHING, Forced, Smoothing, shifted
from .search import Search, Steps, stream

__all__ = ["TransformerDecoder"]

ROOM = 64  # slots that a cache is made longer by: all of them are looked at in each step


def texts_of(read: Tensor) -> tuple[Tensor, Tensor]:
    """Where several texts stand in a row, the number of each token's text and its place in it, [B, T] each.

    >>> [one.tolist() for one in texts_of(torch.tensor([[2, 7, 8, 2, 9]]))]
    [[[1, 1, 1, 2, 2]], [[0, 1, 2, 0, 1]]]
    """
    begins = read == BEGIN
    begins[:, 0] = True
    place = torch.arange(read.shape[1], device=read.device).expand_as(read)
    start = torch.where(begins, place, 0).cummax(1).values
    return begins.cumsum(1), place - start


class DecoderBlocks(BlockSettings):
    """Settings of a decoder's blocks, which are causal."""

    heads: Heads = 4
    dropout: Dropout = 0.1


class TransformerDecoder(Forced):
    """A causal Transformer (Vaswani et al. 2017; without an input, as GPT: Radford et al. 2019).

    It attends to the input's tokens, or (``join: prefix``) reads them before its own, as a language model that goes on
    from them. Scores of tokens are products with their vectors (``tie``: Press and Wolf 2017, arXiv:1608.05859).
    """

    def __init__(
        self,
        width_in: int,
        vocabulary: int,
        length: int,
        *,
        width: Width = 256,
        depth: Depth = 4,
        join: Annotated[
            Literal["cross", "prefix"], Field(description="attend to the input, or read it before the text")
        ] = "cross",
        tie: Annotated[bool, Field(description="one table for tokens read and tokens scored")] = True,
        score_bias: Annotated[bool, Field(description="a bias for each token's score, as Marian has it")] = False,
        smoothing: Smoothing = 0.0,
        **block: Annotated[Any, DecoderBlocks],
    ) -> None:
        super().__init__()
        chosen = DecoderBlocks(**block)
        if width_in and join == "prefix" and chosen.positions == "learned":
            raise UsageError(
                "learned positions are as many as a text has tokens, with none left for the input before it",
                place="decoder",
                mend="Choose positions: sinusoidal or rotary, or join: cross.",
            )
        self.prefix, self.smoothing, self.length = bool(width_in) and join == "prefix", smoothing, length
        self.packed = not width_in
        self.scale = width**0.5 if chosen.positions == "sinusoidal" else 1.0
        self.embed = nn.Embedding(vocabulary, width)
        # With sinusoids tokens are scaled up, as in the paper; scores then start near 0 and the loss near log V.
        nn.init.normal_(self.embed.weight, std=width**-0.5 if chosen.positions == "sinusoidal" else 0.02)
        self.project = nn.Linear(width_in, width) if width_in not in (0, width) else nn.Identity()
        blocks = TransformerSettings(**chosen.keywords(), causal=True)
        self.stack = Transformer(width, depth, blocks, length=length, cross=bool(width_in) and not self.prefix)
        self.out: nn.Module | None = None if tie else nn.Linear(width, vocabulary, bias=score_bias)
        self.score_bias = nn.Parameter(torch.zeros(vocabulary)) if tie and score_bias else None

    def ready(self, rows: int) -> Self:
        out = super().ready(rows)
        if out.out is None:
            out.out = packed_linear(self.embed.weight, self.score_bias, rows)
        return out

    def make_room(self, prompt: int) -> None:
        """Say that texts go on from prompts of so many tokens, which take places of their own."""
        self.length += prompt
        if isinstance(self.stack.positions, Learned):
            self.stack.positions = Learned(self.embed.embedding_dim, length=self.length)

    def vectors(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.embed(tokens) * self.scale
        return out

    def scores(self, hidden: Tensor) -> Tensor:
        out = self.out
        scores: Tensor = F.linear(hidden, self.embed.weight, self.score_bias) if out is None else out(hidden)
        return scores.index_fill(-1, self.absent, NOTHING) if len(self.absent) else scores

    def forward(self, encoding: Encoding, target: Tensor | None = None) -> Tensor:
        assert target is not None
        if encoding.ids is not None:
            return self.after_prompt(encoding.ids, encoding.tokens, target)
        read = shifted(self.after_lead(target))
        x_BTD = self.vectors(read)
        if self.packed:
            pieces, at = texts_of(read)
            return self.scores(self.stack(x_BTD, None, at=at, pieces=pieces)[:, len(self.lead) :])
        source = self.project(encoding.tokens)
        if not self.prefix:
            return self.scores(self.stack(x_BTD, source=source, source_real=encoding.mask)[:, len(self.lead) :])
        before = encoding.real
        real = torch.cat([before, torch.ones_like(read, dtype=torch.bool)], dim=1)
        at = (real.cumsum(1) - 1).clamp(min=0)
        hidden = self.stack(torch.cat([source.to(x_BTD.dtype), x_BTD], dim=1), real, at=at)
        return self.scores(hidden[:, before.shape[1] + len(self.lead) :])

    def after_prompt(self, prompt: Tensor, vectors: Tensor, target: Tensor) -> Tensor:
        """Scores of texts [B, T] that go on from prompts [B, S], of which the last token's hidden state says the
        first. ``vectors`` [B, S, D] stand in the place of those of the prompt; [B, S, 0]: they are looked up."""
        prompt = begun(prompt)
        vectors = vectors if vectors.shape[2] else self.vectors(prompt)
        order = (prompt > PAD).to(torch.uint8).argsort(dim=1, stable=True)  # the padding first, the text after it
        before = vectors.gather(1, order[:, :, None].expand_as(vectors))
        x_BTD = torch.cat([before, self.vectors(target.abs()[:, :-1])], dim=1)
        real = torch.cat([prompt.gather(1, order) > PAD, torch.ones_like(target[:, :-1], dtype=torch.bool)], dim=1)
        at = (real.cumsum(1) - 1).clamp(min=0)
        return self.scores(self.stack(x_BTD, real, at=at)[:, prompt.shape[1] - 1 :])

    def after_lead(self, tokens: Tensor) -> Tensor:
        """Texts [B, T] behind what stands before each of them."""
        return torch.cat([self.lead.expand(len(tokens), -1), tokens], dim=1) if len(self.lead) else tokens

    @torch.no_grad()
    def stream(self, encoding: Encoding, settings: Search, most: int, prompt: Tensor | None = None) -> Steps:
        rows = len(encoding.pooled)
        read, room = torch.full((rows, 1), BEGIN, device=encoding.pooled.device), None
        if encoding.ids is not None:  # from which texts go on; they take no place of theirs
            read = begun(encoding.ids)
        if len(self.lead):
            prompt = self.after_lead(read[:, :0] if prompt is None else prompt)
        if prompt is not None:
            given = without_last_end(prompt.abs())
            longest, room = self.room_after(given)
            read, most = torch.cat([read, given], dim=1), min(most, longest)
        real, x_BTD = read > PAD, self.vectors(read)
        source, source_real = None, None
        if self.prefix:
            x_BTD = torch.cat([self.project(encoding.tokens).to(x_BTD.dtype), x_BTD], dim=1)
            real = torch.cat([encoding.real, real], dim=1)
        elif not self.packed:
            source, source_real = self.project(encoding.tokens), encoding.mask
        slots = x_BTD.shape[1] + min(most, ROOM)
        cache = self.stack.start(rows, slots, source=source, source_real=source_real)
        filled = x_BTD.shape[1]  # as the host counts: the cache's own count may lie on a device
        hidden, cache = self.stack.step(x_BTD, cache, real)
        place = torch.arange(real.shape[1], device=real.device)
        last = torch.where(real, place, 0).amax(1)

        def advance(tokens: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
            nonlocal filled, slots
            if filled == slots:
                cache, slots = cache.widened(ROOM), slots + ROOM
            filled += 1
            # Of a text that has ended PAD is read: it takes no place, so that no more than `length` are ever needed.
            hidden, cache = self.stack.step(self.vectors(tokens[:, None]), cache, tokens[:, None] > PAD)
            return self.scores(hidden[:, 0]), cache

        first = self.scores(hidden[torch.arange(rows, device=last.device), last])
        yield from stream(first, cache, advance, settings, most, room)

    def room_after(self, given: Tensor) -> tuple[int, Tensor]:
        """How many tokens may follow these beginnings [B, T]: the most of any, and of each [B]. The last of a text is
        not read, so that it needs no place."""
        lengths = (given > PAD).sum(1)
        longest, shortest = (int(lengths.max()), int(lengths.min())) if len(lengths) else (0, 0)
        if longest > self.length // 2:
            raise DataError(
                f"a beginning has {longest} tokens, more than half of the {self.length} that are read",
                mend="Give a shorter one.",
            )
        return self.length - shortest, self.length - lengths

    def looks(self, encoding: Encoding, target: Tensor) -> Tensor | None:
        """Attention of the last block to the input, as the mean over heads."""
        block = self.stack.blocks[-1]
        assert isinstance(block, TransformerBlock)
        if block.cross is None:
            return None
        attention, seen = block.cross.branch, list[Tensor]()
        assert isinstance(attention, Attention)

        def note(module: nn.Module, given: Any, named: dict[str, Any]) -> None:
            seen.append(attention.weights(*given, **named))

        handle = attention.register_forward_pre_hook(note, with_kwargs=True)
        try:
            self(encoding, target)
        finally:
            handle.remove()
        return seen[0][:, len(self.lead) :]


def begun(prompt: Tensor) -> Tensor:
    """Prompts [B, S]; one that asks nothing is BEGIN, with which texts begin.

    >>> begun(torch.tensor([[7, 8], [0, 0]])).tolist()
    [[7, 8], [2, 0]]
    """
    blank = (prompt <= PAD).all(1, keepdim=True) & (torch.arange(prompt.shape[1], device=prompt.device) == 0)
    return torch.where(blank, BEGIN, prompt)


def without_last_end(tokens: Tensor) -> Tensor:
    """Texts [B, T] whose END, where one stands after all else, is padding: from there they go on.

    >>> without_last_end(torch.tensor([[7, END, 8, END, 0], [7, 8, 9, 7, 8]])).tolist()
    [[7, 3, 8, 0, 0], [7, 8, 9, 7, 8]]
    """
    left = (tokens > PAD).flip(1).cumsum(1).flip(1)  # real tokens from each place on
    return torch.where((tokens == END) & (left == 1), PAD, tokens)
