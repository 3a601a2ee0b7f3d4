"""Texts that are written token by token, as two graphs: one that reads the input, and one step of the writing, whose
memory goes in and comes out.

A reader feeds the step the tokens that every text begins with, then the likeliest one each time, until END.

Shape legend: B rows, T tokens that are fed, P slots of tokens fed before, S tokens of the input, G heads of keys, C
units of a head, D units of a state, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ..columns import Column
from ..columns.vocabulary import BEGIN, END, PAD
from ..data.batches import Batch
from ..errors import UsageError
from ..heads import TextHead
from ..heads.decoder_recurrent import Memory
from ..heads.decoders import RecurrentDecoder, TransformerDecoder
from ..layers.attention import Attention, KeysValues, Mask
from ..layers.transformer import Cache, TransformerBlock
from ..model import Model
from ..models.encoding import Encoding
from .answers import Output, largest
from .graph import Part, Port, Reading

__all__ = ["STEPS", "Source", "Step", "text_facts", "writing_parts"]

LOOKED = 8  # tokens that are compared


class Step(Part):
    """Base of the steps: ``tokens`` [B, T] and a memory in, ``scores`` [B, V] of the next token and the memory out."""

    memory: list[Port]  # what goes on from step to step
    given: list[Port]  # what stays the same

    def __init__(self, name: str, model: Model, source: Source | None) -> None:
        super().__init__()
        self.name, self.head = name, cast(TextHead, model.head(name))
        self.source: list[Source] = [] if source is None else [source]  # not a part of this one
        self.lay_out(cast(Any, self.head.decoder))
        self.inputs = [Port("tokens", name, torch.int64, ("batch", "tokens")), *self.memory, *self.given]
        self.outputs = {"scores": Output("", "scores", facts={"column": name})}
        self.outputs |= {f"next_{port.name}": Output("", "memory", facts={"column": name}) for port in self.memory}
        self.eval()

    def lay_out(self, decoder: Any) -> None:
        """Say what is remembered."""
        raise AssertionError(f"{type(self).__name__} has no lay_out")

    def begin(self, encoding: Encoding) -> tuple[Tensor, ...]:
        """The memory before the first token, and what stays, of an input."""
        raise AssertionError(f"{type(self).__name__} has no begin")

    def nothing(self, rows: int) -> tuple[Tensor, ...]:
        """The memory of nothing."""
        return tuple(torch.zeros(self.sides(port, rows), dtype=port.dtype) for port in self.memory)

    @staticmethod
    def sides(port: Port, rows: int) -> list[int]:
        return [rows if side == "batch" else 0 if isinstance(side, str) else side for side in port.shape]

    def first(self, batch: Batch) -> tuple[Tensor, ...]:
        """What the first step takes."""
        rows = len(batch)
        lead = cast(Any, self.head.decoder).lead
        tokens = torch.cat([torch.full((rows, 1), BEGIN), lead.expand(rows, -1)], dim=1)
        if self.source:
            return (tokens, *self.source[0](*self.source[0].example(batch)))
        given = batch.columns[self.name].values
        prompt = given[:, : max(1, given.shape[1] // 2)]
        return (torch.cat([tokens, torch.where(prompt == END, PAD, prompt)], dim=1), *self.nothing(rows))

    def feeds(self, batch: Batch) -> Iterator[tuple[Tensor, ...]]:
        feed = self.first(batch)
        for _ in range(LOOKED):
            yield feed
            feed = self.after(feed, 1)

    def after(self, feed: tuple[Tensor, ...], copies: int) -> tuple[Tensor, ...]:
        """What the step takes after this one, of the likeliest token."""
        with torch.no_grad():
            scores, *memory = self(*feed)
        tokens = scores[:, END:].argmax(-1, keepdim=True) + END
        return (tokens.expand(-1, copies), *memory, *feed[1 + len(memory) :])

    def example(self, batch: Batch) -> tuple[Tensor, ...]:
        """A step in the middle of a text, of two tokens, so that no axis has the size of another by chance."""
        feed = self.first(batch)
        for _ in range(3):
            feed = self.after(feed, 1)
        return self.after(feed, self.fed)

    fed = 2

    def differences(self, wanted: Sequence[Tensor], got: Sequence[Tensor]) -> dict[str, float]:
        apart = [largest(one.double() - other.double()) for one, other in zip(wanted[1:], got[1:], strict=True)]
        chances = [tensors[0].double().softmax(-1) for tensors in (wanted, got)]
        return {self.name: largest(chances[0] - chances[1]), f"{self.name} (memory)": max(apart)}


class TransformerStep(Step):
    """Of a Transformer: keys and values of each block for all tokens so far, and which of them are real."""

    def lay_out(self, decoder: TransformerDecoder) -> None:
        self.memory = [Port("mask", self.name, torch.bool, ("batch", "slots"))]
        self.given = []
        for number, block in enumerate(decoder.stack.blocks):
            assert isinstance(block, TransformerBlock)
            own = cast(Attention, block.attention.branch)
            shape = ("batch", own.kv_heads, "slots", own.head_width)
            self.memory += [Port(f"{part}_{number}", self.name, torch.float32, shape) for part in ("keys", "values")]
            if block.cross is not None:
                cross = cast(Attention, block.cross.branch)
                shape = ("batch", cross.kv_heads, "source_steps", cross.head_width)
                self.given += [
                    Port(f"source_{part}_{number}", self.name, torch.float32, shape) for part in ("keys", "values")
                ]
        if self.given:
            self.given.insert(0, Port("source_mask", self.name, torch.bool, ("batch", "source_steps")))

    def begin(self, encoding: Encoding) -> tuple[Tensor, ...]:
        decoder = cast(TransformerDecoder, self.head.decoder)
        source, real = decoder.project(encoding.tokens), encoding.real
        if decoder.prefix:
            before = self.nothing_like(source)
            _, memory = self.go_on(source, real, before, ())
            return memory
        pairs = []
        for block in decoder.stack.blocks:
            assert isinstance(block, TransformerBlock)
            assert block.cross is not None
            pairs += [*cast(Attention, block.cross.branch).keys_values(source)]
        return (*self.nothing_like(source), real, *pairs)

    def nothing_like(self, source: Tensor) -> tuple[Tensor, ...]:
        """An empty memory of as many rows."""
        return tuple(
            source.new_zeros(
                [source.shape[0] if side == "batch" else 0 if isinstance(side, str) else side for side in port.shape],
                dtype=port.dtype,
            )
            for port in self.memory
        )

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        decoder, (tokens, *state) = cast(TransformerDecoder, self.head.decoder), tensors
        memory, given = state[: len(self.memory)], state[len(self.memory) :]
        real = tokens > PAD
        hidden, after = self.go_on(decoder.vectors(tokens), real, memory, given)
        place = torch.arange(tokens.shape[1], device=tokens.device)
        last = torch.where(real, place, 0).amax(1)
        newest = hidden.gather(1, last[:, None, None].expand(-1, 1, hidden.shape[2])).squeeze(1)
        return (decoder.scores(newest), *after)

    def go_on(
        self, x_BTD: Tensor, real: Tensor, memory: Sequence[Tensor], given: Sequence[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        stack = cast(TransformerDecoder, self.head.decoder).stack
        (mask, *pairs), steps = memory, x_BTD.shape[1]

        def both(tensors: Sequence[Tensor]) -> tuple[KeysValues, ...]:
            return tuple(KeysValues(*tensors[at : at + 2]) for at in range(0, len(tensors), 2))

        wide = [F.pad(pair, (0, 0, 0, steps)) for pair in pairs]
        at = F.pad((mask.cumsum(1) - 1).clamp(min=0), (0, steps))
        filled = cast(Tensor, mask.shape[1])
        source_mask = Mask.of(given[0]) if given else Mask()
        cache = Cache(both(wide), both(given[1:]), source_mask, F.pad(mask, (0, steps)), at, filled)
        hidden, cache = stack.step(x_BTD, cache, real)
        return hidden, (cache.real, *(part for block in cache.blocks for part in block))


class RecurrentStep(Step):
    """Of a recurrent network: its state; the input's tokens stay."""

    fed = 1

    def lay_out(self, decoder: RecurrentDecoder) -> None:
        width = decoder.attention.states.in_features
        self.memory = [Port("state", self.name, torch.float32, ("batch", decoder.cell.hidden_size))]
        self.given = [
            Port("source", self.name, torch.float32, ("batch", "source_steps", width)),
            Port("source_mask", self.name, torch.bool, ("batch", "source_steps")),
        ]

    def begin(self, encoding: Encoding) -> tuple[Tensor, ...]:
        memory = cast(RecurrentDecoder, self.head.decoder).remember(encoding)
        return memory.state, memory.source, memory.real

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        decoder, (tokens, *state) = cast(RecurrentDecoder, self.head.decoder), tensors
        scores, memory = decoder.step(tokens[:, -1], Memory(*state))
        return scores, memory.state


class Source(Reading):
    """The graph that reads the input, up to what the first step takes beside its tokens."""

    def __init__(self, columns: Mapping[str, Column], model: Model, kind: type[Step], name: str) -> None:
        super().__init__(columns, model)
        self.step = kind(name, model, None)
        for port in (*self.step.memory, *self.step.given):
            self.outputs[port.name] = Output("", "memory", facts={"column": name})
        self.eval()

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return self.step.begin(self.encode(tensors))


STEPS: dict[type, type[Step]] = {TransformerDecoder: TransformerStep, RecurrentDecoder: RecurrentStep}


def writing_parts(columns: Mapping[str, Column], model: Model, name: str) -> dict[str, Part]:
    """The graphs of one output that is a text: ``encoder``, where there is an input, and ``step``.

    Raises:
        UsageError: there is no step for this decoder.
    """
    head = model.head(name)
    kind = STEPS.get(type(head.decoder)) if isinstance(head, TextHead) else None
    if kind is None:
        raise UsageError(f"the output {name!r} cannot be written step by step", mend="Take another decoder.")
    if not model.inputs:
        return {"step": kind(name, model, None)}
    source = Source(columns, model, kind, name)
    return {"encoder": source, "step": kind(name, model, source)}


def text_facts(model: Model, name: str) -> dict[str, Any]:
    """What a reader is to know to write texts as ``predict`` does, but for beams and chance, which it leaves out."""
    head = cast(TextHead, model.head(name))
    decoder = cast(Any, head.decoder)
    lead, length = decoder.lead.tolist(), getattr(decoder, "length", None)
    most = min(head.most, length - len(lead)) if lead and length else head.most
    return {
        "column": name, "begin": [BEGIN, *lead], "end": END, "most": most, "length": length,
        "search": head.search.model_dump(),
    }  # fmt: skip
