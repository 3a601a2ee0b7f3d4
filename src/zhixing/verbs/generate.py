"""Generate: texts as they are written, piece by piece.

A language model goes on from a beginning; a model with one input writes what it makes of a cell of it (a text to
translate, a recording to write down).

Shape legend: B texts that are written at once, T tokens.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from ..columns import Column
from ..columns.text import Text
from ..columns.vocabulary import BEGIN, END, PAD
from ..data.batches import Batches
from ..data.prepare import encode_all
from ..data.table import Problem, Table
from ..errors import DataError, UsageError, did_you_mean
from ..heads.decoders import Decoder
from ..heads.search import Search
from ..heads.text import TextHead, as_texts
from ..model import Model, blank_encoding
from ..models.encoding import Encoding
from ..pretrained import open_model, untrained
from ..recipe import Recipe
from .sources import as_table
from .transcribe import Listener, listener_of

__all__ = ["Ending", "Piece", "Plan", "Rates", "Tail", "Writer", "published"]

MOST = 8192  # tokens of a published model's window, where its weights know more places
FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16}
Ending = Literal["end", "stop", "length"]


class Piece(NamedTuple):
    """What is new of one text. ``ended`` is None while it goes on; then it says why no more comes: the model ended the
    text, a stop string came (which is no part of it), or there is no room for more."""

    row: int
    text: str
    ended: Ending | None = None


@dataclass(frozen=True)
class Plan:
    """How texts are written: changes of the model's own :class:`Search` settings, strings that end a text, and whether
    each phrase of a recording is to have a line of its own, with the times at which it is said."""

    search: Mapping[str, Any] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    timestamps: bool = False

    def settings(self, head: TextHead) -> Search:
        """The search settings of a head with these changes.

        Raises:
            UsageError: a setting that is not known, or out of bounds; a stop string that is empty.
        """
        if not all(self.stop):
            raise UsageError("a stop string is empty", place="stop", mend="Leave it out.")
        try:
            return Search(**{**head.search.model_dump(), **self.search})
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            mend = did_you_mean(name, Search.model_fields) if first["type"] == "extra_forbidden" else ""
            raise UsageError(f"{first['msg']}, not {first['input']!r}", place=name, mend=mend) from None


@dataclass
class Rates:
    """Speed as it was: tokens of all texts, seconds to the first of them and to the last."""

    tokens: int = 0
    steps: int = 0
    first: float = 0.0
    seconds: float = 0.0

    @property
    def per_second(self) -> float:
        """Tokens a second after the first step; with a single step, of that."""
        if self.steps < 2:
            return self.tokens / self.seconds if self.seconds else 0.0
        return self.tokens * (self.steps - 1) / self.steps / max(self.seconds - self.first, 1e-9)

    def __str__(self) -> str:
        return f"{self.tokens} tokens, {self.per_second:.1f} a second; the first after {self.first:.2f} s"


class Tail:
    """The text of one row: what of it may be shown as tokens come.

    Held back is what may still change: a character whose bytes have not all come, and the beginning of a stop string.
    """

    def __init__(self, column: Text, stop: Sequence[str] = ()) -> None:
        self.column, self.stop = column, stop
        self.ids: list[int] = []
        self.shown = ""
        self.ended: Ending | None = None

    def push(self, token: int) -> str:
        """What a further token adds to what is shown."""
        if token == END:
            return self.close("end")
        self.ids.append(token)
        text = self.whole()
        found = [place for mark in self.stop if (place := text.find(mark)) >= 0]
        if found:
            self.ended = "stop"
            return self.show(text[: min(found)])
        return self.show(text[: len(text) - self.held(text)])

    def close(self, why: Ending) -> str:
        """What was held back, now that no more comes."""
        self.ended = why
        return self.show(self.whole())

    def whole(self) -> str:
        return as_texts(self.column.restore(torch.tensor([self.ids], dtype=torch.int64)))[0]

    def held(self, text: str) -> int:
        """How many characters at the end are not to be shown yet."""
        sure = len(text.rstrip("\ufffd"))  # stands for bytes that make no character yet
        begun = (
            size
            for mark in self.stop
            for size in range(min(len(mark) - 1, sure), 0, -1)
            if text[:sure].endswith(mark[:size])
        )
        return len(text) - sure + max(begun, default=0)

    def show(self, text: str) -> str:
        if not text.startswith(self.shown):  # a tokenizer that rewrites what came before: it may come round again
            return ""
        new, self.shown = text[len(self.shown) :], text
        return new


class Writer:
    """A model made ready to write one of its outputs; it may write many times.

    Args:
        output: the output of type text; open: the only one.
        precision: ``fp32``, or ``bf16``, which takes half the memory and, where the hardware has it, less time.

    Raises:
        UsageError: the model writes no text, or several.

    Example::

        writer = Writer(run.settings, run.fitted, run.model, run.device)
        for piece in writer.stream(["Once upon a time"], Plan({"most": 20})):
            print(piece.text, end="", flush=True)
        print(writer.rates)
    """

    def __init__(
        self,
        recipe: Recipe,
        columns: Mapping[str, Column],
        model: Model,
        device: torch.device,
        *,
        output: str | None = None,
        precision: str = "fp32",
    ) -> None:
        self.recipe, self.columns, self.model, self.device = recipe, columns, model, device
        self.name = chosen_output(model, output)
        if precision not in FORMATS:
            raise UsageError(f"there is no number format {precision!r}", mend=did_you_mean(precision, FORMATS))
        head, column = model.head(self.name), columns[self.name]
        assert isinstance(head, TextHead)
        assert isinstance(column, Text)
        self.head, self.column, self.dtype = head, column, FORMATS[precision]
        self.decoder = head.decoder if precision == "fp32" else copy.deepcopy(head.decoder).to(self.dtype)
        self.kept: dict[bool, Decoder] = {}
        self.problems: list[Problem] = []
        self.rates = Rates()

    def stream(self, prompts: Sequence[Any], plan: Plan = Plan()) -> Iterator[Piece]:
        """Pieces of the texts that follow these beginnings, or that are made of these cells of the model's input.

        What is odd about a prompt, and does not stop it, lies in ``problems`` afterwards, the speed in ``rates``.

        Raises:
            DataError: a prompt cannot be read, or is too long to go on from.
            UsageError: the model has several inputs, or a setting is wrong.
        """
        started = time.perf_counter()
        settings = plan.settings(self.head)
        if not prompts:
            raise UsageError("there is nothing to write for", mend="Give a text to go on from; an empty one will do.")
        listener = listener_of(self.columns, self.model, self.device)
        if plan.timestamps and listener is None:
            raise UsageError("this model tells no times", mend="Leave out timestamps, or take one such as Whisper.")
        table = as_table(self.recipe, list(prompts))
        if listener is not None and (
            plan.timestamps or any(listener.is_long(cell, table.locate) for cell in table[listener.read].to_pylist())
        ):
            return self.listen(listener, table, plan, settings, started)
        encoding, prompt = self.read(prompts)
        return self.pieces(encoding, prompt, settings, plan.stop, started)

    def listen(self, listener: Listener, table: Table, plan: Plan, settings: Search, started: float) -> Iterator[Piece]:
        """Pieces of what is said in recordings of any length, phrase by phrase."""
        self.rates, self.problems = Rates(), []
        for row, cell in enumerate(table[listener.read].to_pylist()):
            try:
                samples = listener.samples(cell, table.locate)
            except ValueError as error:
                raise DataError(f"a prompt cannot be read: {error}", place=table.where(row)) from None
            text = ""
            for segment in listener.segments(samples, settings):
                self.clock(started, len(self.column.codec.encode([segment.text])[0]))
                new = segment.line() if plan.timestamps else f" {segment.text}" if text else segment.text
                text += new
                yield Piece(row, new)
            yield Piece(row, "", "end")

    @property
    def prompted(self) -> Text | None:
        """The column of prompts that the decoder reads itself, where the model has such an input and no other."""
        names = [name for name, settings in self.recipe.inputs.items() if settings.encoder.name == "prompt"]
        column = self.columns[names[0]] if names else None
        return column if isinstance(column, Text) else None

    def go_on(self, ids: Sequence[int], plan: Plan = Plan()) -> Iterator[Piece]:
        """Pieces of the text of a language model that follows these tokens, BEGIN before them."""
        prompt = torch.tensor([ids], dtype=torch.int64, device=self.device)
        settings, started = plan.settings(self.head), time.perf_counter()
        encoding = blank_encoding(1, self.device)
        if self.prompted is None:
            return self.pieces(encoding, prompt, settings, plan.stop, started)
        encoding = encoding._replace(ids=torch.nn.functional.pad(prompt, (1, 0), value=BEGIN))
        return self.pieces(encoding, None, settings, plan.stop, started)

    @torch.inference_mode()
    def read(self, prompts: Sequence[Any]) -> tuple[Encoding, Tensor | None]:
        """The encoding of prompts, and (of a language model) their tokens [B, T]."""
        asked = list(self.recipe.inputs) or [self.name]
        table = as_table(self.recipe, list(prompts))
        encoded, self.problems = encode_all(table, {name: self.columns[name] for name in asked})
        fatal = [problem for problem in self.problems if problem.fatal]
        if fatal:
            raise DataError(f"a prompt cannot be read: {fatal[0]}")
        batches = Batches({name: one.batch for name, one in encoded.items()}, self.device)
        batch = batches.gather(np.arange(len(prompts), dtype=np.int64))
        encoding = self.model.encode(batch)
        return encoding, None if self.model.inputs else batch.columns[self.name].values

    @torch.inference_mode()
    def pieces(
        self, encoding: Encoding, prompt: Tensor | None, settings: Search, stop: Sequence[str], started: float
    ) -> Iterator[Piece]:
        tails = [Tail(self.column, stop) for _ in range(len(encoding.pooled))]
        self.rates = Rates()
        encoding = encoding._replace(pooled=encoding.pooled.to(self.dtype), tokens=encoding.tokens.to(self.dtype))
        decoder = self.ready(len(tails))
        steps = decoder.stream(encoding, settings, settings.most or self.head.most, prompt)
        stopped: Tensor | None = None
        while True:
            try:
                tokens = steps.send(stopped)
            except StopIteration:
                break
            going = [row for row, tail in enumerate(tails) if tail.ended is None]
            found = tokens.tolist()
            self.clock(started, sum(found[row] != PAD for row in going))
            for row in going:
                new = "" if found[row] == PAD else tails[row].push(found[row])
                if new or tails[row].ended:
                    yield Piece(row, new, tails[row].ended)
            stopped = torch.tensor([tail.ended is not None for tail in tails], device=tokens.device) if stop else None
        for row, tail in enumerate(tails):
            if tail.ended is None:
                yield Piece(row, tail.close("length"), "length")

    def ready(self, rows: int) -> Decoder:
        """The decoder, laid out for so many texts; kept for the next time."""
        one = rows == 1
        if one not in self.kept:
            self.kept = {one: self.decoder.eval().ready(rows)}  # and no other, which would take as much memory
        return self.kept[one]

    def clock(self, started: float, tokens: int) -> None:
        rates = self.rates
        rates.seconds = time.perf_counter() - started
        rates.first = rates.first or rates.seconds
        rates.tokens, rates.steps = rates.tokens + tokens, rates.steps + 1


def chosen_output(model: Model, output: str | None) -> str:
    texts = [name for name in model.outputs if isinstance(model.head(name), TextHead)]
    if not texts:
        raise UsageError("the model writes no text", mend="Ask for its answers with predict.")
    if output is None and len(texts) > 1:
        raise UsageError(f"the model writes {', '.join(texts)}", mend="Say which, with output.")
    if output is not None and output not in texts:
        raise UsageError(f"there is no output of text {output!r}", mend=did_you_mean(output, texts))
    return output or texts[0]


def published(path: str | Path) -> tuple[Recipe, dict[str, Column], Model]:
    """A published model that writes, in its folder or GGUF file, as what a :class:`Writer` takes.

    It is a language model, or a pair of stacks such as T5 and Whisper, which writes what it makes of its input.

    Raises:
        UsageError: there is no model, or it is none that goes on from a text.
        DataError: a file is damaged.
    """
    model = open_model(path)
    joins = model.plan("decoder").fixed.get("join") == "cross"
    length = min(model.layout.positions() or MOST, MOST)
    text = {"type": "text", "length": length, "decoder": str(path)}
    if not joins:
        return untrained({"outputs": {"text": {**text, "packed": True}}})
    read = {"type": model.layout.reads, "encoder": str(path)}
    return untrained(
        {"inputs": {"input": read | ({"length": length} if read["type"] == "text" else {})}, "outputs": {"text": text}}
    )
