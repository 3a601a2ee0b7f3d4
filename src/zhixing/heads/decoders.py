"""What writes a text: a Transformer, token after token, or an alignment of the input's steps with it.

Shape legend: B rows, T tokens of the text, S tokens of the input, D width, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..columns.vocabulary import BEGIN, END, PAD
from ..errors import DataError, UsageError
from ..layers.attention import Attention
from ..layers.packed import packed, packed_linear
from ..layers.recurrent import AdditiveAttention
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
from .search import Search, Steps, stream

__all__ = ["CTC", "DECODERS", "Decoder", "RecurrentDecoder", "TransformerDecoder"]

Smoothing = Annotated[float, Field(ge=0, lt=1, description="label smoothing")]
ROOM = 64  # slots that a cache is made longer by: all of them are looked at in each step
NOTHING = -1e4  # the logarithm of no chance; finite, and within half precision


class Decoder(nn.Module):
    """Base of the decoders, which are made for an input's ``width`` (0: there is none), a number of tokens and the
    most tokens of a text.

    ``goal`` is the metric that a model is chosen by. Targets [B, T] end with END, then PAD; a negative token is seen
    and not predicted (it stands there for context alone).
    """

    goal: ClassVar[str]
    forced: ClassVar[bool]

    def forward(self, encoding: Encoding, target: Tensor | None = None) -> Tensor:
        raise AssertionError(f"{type(self).__name__} has no forward")

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The mean loss of each row's tokens, [B]."""
        raise AssertionError(f"{type(self).__name__} has no loss")

    def keep(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What the metrics read."""
        raise AssertionError(f"{type(self).__name__} has no keep")

    def write(self, encoding: Encoding, settings: Search, most: int, prompt: Tensor | None = None) -> Tensor:
        """The texts [B, T'] that are found for the encodings, perhaps going on from a prompt [B, T]."""
        return torch.stack(list(self.stream(encoding, settings, most, prompt)), dim=1)

    def stream(self, encoding: Encoding, settings: Search, most: int, prompt: Tensor | None = None) -> Steps:
        """The same texts as they grow: the tokens [B] of each step, PAD where a text has ended."""
        raise AssertionError(f"{type(self).__name__} has no stream")

    def ready(self, rows: int) -> Self:
        """A copy for writing ``rows`` texts at a time, faster on a CPU; weights not laid out anew are shared."""
        return packed(self, rows)

    def looks(self, encoding: Encoding, target: Tensor) -> Tensor | None:
        """Where the decoder looks in the input as it writes each token of the targets, [B, T, S]; None if nowhere."""
        return None


class Forced(Decoder):
    """Base of those that score each token by all that came before it: forward gives the scores [B, T, V]."""

    goal, forced = "perplexity", True
    smoothing: float
    token_bytes: Tensor
    absent: Tensor
    lead: Tensor

    def __init__(self) -> None:
        super().__init__()
        # All three follow from the column's tokenizer: nothing of them has to be kept with the weights.
        self.register_buffer("token_bytes", torch.zeros(0), persistent=False)  # or [V], see count_bytes
        self.register_buffer("absent", torch.zeros(0, dtype=torch.int64), persistent=False)
        self.register_buffer("lead", torch.zeros(0, dtype=torch.int64), persistent=False)

    def count_bytes(self, token_bytes: Tensor) -> None:
        """Say how many bytes each token stands for, [V]."""
        self.token_bytes = token_bytes.to(self.token_bytes.device)

    def follow(self, absent: Sequence[int], lead: Sequence[int]) -> None:
        """Say which tokens never come, and which stand between BEGIN and each text: published weights want both."""
        self.absent, self.lead = (torch.tensor(ids, dtype=torch.int64) for ids in (absent, lead))

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        losses, real = self.token_losses(prediction, target, self.smoothing)
        return losses.sum(1) / real.sum(1).clamp(min=1)

    def keep(self, prediction: Tensor, target: Tensor) -> Tensor:
        """For each row the sum of its tokens' losses, how many are right when the true ones before are known, how many
        there are, and how many bytes they stand for: [B, 4] float64."""
        losses, real = self.token_losses(prediction, target, 0.0)
        right = (prediction.argmax(-1) == target) & real
        bytes_ = self.token_bytes[torch.where(real, target, PAD)] if len(self.token_bytes) else torch.zeros_like(losses)
        return torch.stack([part.double().sum(1) for part in (losses, right, real, bytes_)], dim=1)

    @staticmethod
    def token_losses(prediction: Tensor, target: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
        real = target > PAD
        wanted = torch.where(real, target, -100)
        losses = F.cross_entropy(
            prediction.flatten(0, 1), wanted.flatten(), reduction="none", label_smoothing=smoothing, ignore_index=-100
        )
        return losses.view(target.shape), real


def shifted(target: Tensor) -> Tensor:
    """What is read when each token of a target is predicted: the one before it, BEGIN before the first of a text.

    >>> shifted(torch.tensor([[7, 8, END, 9, END, 0]])).tolist()
    [[2, 7, 8, 2, 9, 2]]
    """
    before = F.pad(target.abs()[:, :-1], (1, 0), value=BEGIN)
    return torch.where(before == END, BEGIN, before)


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
        self.out: nn.Module | None = None if tie else nn.Linear(width, vocabulary, bias=False)

    def ready(self, rows: int) -> Self:
        out = super().ready(rows)
        if out.out is None:
            out.out = packed_linear(self.embed.weight, None, rows)
        return out

    def vectors(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.embed(tokens) * self.scale
        return out

    def scores(self, hidden: Tensor) -> Tensor:
        scores: Tensor = F.linear(hidden, self.embed.weight) if self.out is None else self.out(hidden)
        return scores.index_fill(-1, self.absent, NOTHING) if len(self.absent) else scores

    def forward(self, encoding: Encoding, target: Tensor | None = None) -> Tensor:
        assert target is not None
        read = shifted(self.after_lead(target))
        x_BTD = self.vectors(read)
        if self.packed:
            pieces, at = texts_of(read)
            return self.scores(self.stack(x_BTD, None, at=at, pieces=pieces)[:, len(self.lead) :])
        source = self.project(encoding.tokens)
        if not self.prefix:
            return self.scores(self.stack(x_BTD, source=source, source_real=encoding.mask)[:, len(self.lead) :])
        before = real_of(encoding)
        real = torch.cat([before, torch.ones_like(read, dtype=torch.bool)], dim=1)
        at = (real.cumsum(1) - 1).clamp(min=0)
        hidden = self.stack(torch.cat([source.to(x_BTD.dtype), x_BTD], dim=1), real, at=at)
        return self.scores(hidden[:, before.shape[1] + len(self.lead) :])

    def after_lead(self, tokens: Tensor) -> Tensor:
        """Texts [B, T] behind what stands before each of them."""
        return torch.cat([self.lead.expand(len(tokens), -1), tokens], dim=1) if len(self.lead) else tokens

    @torch.no_grad()
    def stream(self, encoding: Encoding, settings: Search, most: int, prompt: Tensor | None = None) -> Steps:
        rows = len(encoding.pooled)
        read, room = torch.full((rows, 1), BEGIN, device=encoding.pooled.device), None
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
            real = torch.cat([real_of(encoding), real], dim=1)
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


def without_last_end(tokens: Tensor) -> Tensor:
    """Texts [B, T] whose END, where one stands after all else, is padding: from there they go on.

    >>> without_last_end(torch.tensor([[7, END, 8, END, 0], [7, 8, 9, 7, 8]])).tolist()
    [[7, 3, 8, 0, 0], [7, 8, 9, 7, 8]]
    """
    left = (tokens > PAD).flip(1).cumsum(1).flip(1)  # real tokens from each place on
    return torch.where((tokens == END) & (left == 1), PAD, tokens)


def real_of(encoding: Encoding) -> Tensor:
    """Which tokens of an encoding are real, [B, S]."""
    if encoding.mask is not None:
        return encoding.mask
    return torch.ones(encoding.tokens.shape[:2], dtype=torch.bool, device=encoding.tokens.device)


class Memory:
    """What a recurrent decoder remembers: its state [B, D], and the input's tokens with their mask."""

    def __init__(self, state: Tensor, source: Tensor, real: Tensor) -> None:
        self.state, self.source, self.real = state, source, real

    def pick(self, rows: Tensor) -> Memory:
        return Memory(*(tensor.index_select(0, rows) for tensor in (self.state, self.source, self.real)))


class RecurrentDecoder(Forced):
    """A gated recurrent unit that looks at the input before each token (Bahdanau et al. 2015, arXiv:1409.0473)."""

    def __init__(
        self,
        width_in: int,
        vocabulary: int,
        length: int,
        *,
        width: Width = 256,
        dropout: Dropout = 0.1,
        smoothing: Smoothing = 0.0,
    ) -> None:
        super().__init__()
        if not width_in:
            raise UsageError("a gru decoder reads an input", place="decoder", mend="Take the transformer decoder.")
        self.smoothing = smoothing
        self.embed = nn.Embedding(vocabulary, width)
        self.start = nn.Linear(width_in, width)
        self.attention = AdditiveAttention(width_in, hidden=width, query_width=width)
        self.cell = nn.GRUCell(width + width_in, width)
        self.join = nn.Linear(2 * width + width_in, width)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, vocabulary)

    def remember(self, encoding: Encoding) -> Memory:
        real = real_of(encoding)
        mean = (encoding.tokens * real[:, :, None]).sum(1) / real.sum(1, keepdim=True).clamp(min=1)
        return Memory(self.start(mean).tanh(), encoding.tokens, real)

    def step(self, tokens: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        vector = self.dropout(self.embed(tokens))
        seen, _ = self.attention(memory.source, memory.real, memory.state)
        state = self.cell(torch.cat([vector, seen], dim=1), memory.state)
        hidden = self.join(torch.cat([state, seen.to(state.dtype), vector.to(state.dtype)], dim=1)).tanh()
        return self.out(self.dropout(hidden)), Memory(state, memory.source, memory.real)

    def forward(self, encoding: Encoding, target: Tensor | None = None) -> Tensor:
        assert target is not None
        memory, scores = self.remember(encoding), []
        for tokens in shifted(target).unbind(1):
            one, memory = self.step(tokens, memory)
            scores.append(one)
        return torch.stack(scores, dim=1)

    def looks(self, encoding: Encoding, target: Tensor) -> Tensor | None:
        memory, weights = self.remember(encoding), []
        for tokens in shifted(target).unbind(1):
            weights.append(self.attention(memory.source, memory.real, memory.state)[1])
            _, memory = self.step(tokens, memory)
        return torch.stack(weights, dim=1)

    def stream(self, encoding: Encoding, settings: Search, most: int, prompt: Tensor | None = None) -> Steps:
        begin = torch.full((len(encoding.pooled),), BEGIN, device=encoding.pooled.device)
        logits, memory = self.step(begin, self.remember(encoding))
        return stream(logits, memory, self.step, settings, most)


class CTC(Decoder):
    """Each step of the input says a token or nothing; repeats without a nothing between them are one token
    (Graves et al. 2006, "Connectionist temporal classification"). For an input longer than its text, as speech is.

    Padding says nothing with certainty, so that it changes neither loss nor text. PAD is the "nothing" of the paper.
    """

    goal, forced = "cer", False

    def __init__(self, width_in: int, vocabulary: int, length: int) -> None:
        super().__init__()
        if not width_in:
            raise UsageError("ctc aligns an input with a text", place="decoder", mend="Take the transformer decoder.")
        self.out = nn.Linear(width_in, vocabulary)

    def forward(self, encoding: Encoding, target: Tensor | None = None) -> Tensor:
        scores: Tensor = self.out(encoding.tokens)
        scores = scores.log_softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))
        if encoding.mask is None:
            return scores
        nothing = torch.full_like(scores[0, 0], NOTHING)
        nothing[PAD] = 0.0
        return torch.where(encoding.mask[:, :, None], scores, nothing)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Of a row whose input has too few steps for its text the loss is 0: nothing can be learned of it."""
        lengths = ((target > PAD) & (target != END)).sum(1)
        # Padding may not count as steps: there, a text that is too long would be possible, at the cost of NOTHING.
        place = torch.arange(1, prediction.shape[1] + 1, device=target.device)
        steps = torch.where(prediction[:, :, END] > NOTHING, place, 0).amax(1)
        losses = F.ctc_loss(
            prediction.transpose(0, 1), target, steps, lengths, blank=PAD, reduction="none", zero_infinity=True
        )
        return losses / (target > PAD).sum(1).clamp(min=1)

    def keep(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The likeliest text, one token a step, [B, S]."""
        best = prediction.argmax(-1)
        before = F.pad(best[:, :-1], (1, 0), value=PAD)
        kept = (best != PAD) & (best != before)
        order = (~kept).to(torch.uint8).argsort(dim=1, stable=True)
        return torch.where(kept, best, PAD).gather(1, order)

    def write(self, encoding: Encoding, settings: Search, most: int, prompt: Tensor | None = None) -> Tensor:
        said: Tensor = self(encoding)
        return self.keep(said, said)[:, :most]

    def stream(self, encoding: Encoding, settings: Search, most: int, prompt: Tensor | None = None) -> Steps:
        yield from self.write(encoding, settings, most, prompt).unbind(1)  # all at once: what is sent back is too late


DECODERS: dict[str, Callable[..., Any]] = {"transformer": TransformerDecoder, "gru": RecurrentDecoder, "ctc": CTC}
