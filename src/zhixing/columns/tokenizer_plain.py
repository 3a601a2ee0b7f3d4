"""What a tokenizer is; and those that learn no more than a list: words, characters, bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .segment import cut_words, join_words
from .vocabulary import SPECIAL, UNKNOWN, commonest, ids_of

__all__ = ["Bytes", "Characters", "Plan", "Tokenizer", "Words", "codes", "flat"]

FIRST = len(SPECIAL)
Ids = tuple[NDArray[np.int32], NDArray[np.int64]]


class Plan(NamedTuple):
    """What is asked of a tokenizer: its number of ids at most, the least count of a word, how words are found."""

    size: int
    at_least: int = 1
    segment: str = "none"


class Tokenizer(ABC):
    """Base of the tokenizers: text to ids and back.

    ``encode`` gives the ids of all texts behind each other, [S] int32, and how many are whose, [N]. The same training
    texts give the same ids, on any machine and in any number of threads.
    """

    size: int  # ids, the four special ones among them
    most: int | None = None  # tokens of a text at most
    frame: tuple[bool, bool] = (False, False)  # whether begin and end stand around a text that is read
    lead: tuple[int, ...] = ()  # what stands before a text that is written

    @classmethod
    @abstractmethod
    def train(cls, texts: Sequence[str], plan: Plan) -> Self:
        """Learn from texts."""

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> Ids:
        """Texts to ids."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Ids, none of them padding, begin or end, to text, with a mark where a token is unknown."""

    @abstractmethod
    def piece(self, token: int) -> str:
        """What an id that is not special stands for, for a person."""

    def bytes_of_pieces(self) -> list[int] | None:
        """How many bytes of UTF-8 each id stands for, where that is so for all; 0 for special ones."""
        return None

    def absent(self) -> list[int]:
        """The ids that a model never is to give; what is trained here learns them by itself."""
        return []

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """All that was learned, as JSON."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Take back what :meth:`state` gave."""


def flat(rows: Iterable[Sequence[int]]) -> Ids:
    rows = list(rows)
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    return np.fromiter(chain.from_iterable(rows), np.int32, int(lengths.sum())), lengths


class Words(Tokenizer):
    """Whole words and punctuation marks; a word that is rare or new is unknown."""

    def __init__(self, entries: Sequence[str], segment: str = "none") -> None:
        self.entries, self.segment = list(entries), segment
        self.size = FIRST + len(self.entries)

    @classmethod
    def train(cls, texts: Sequence[str], plan: Plan) -> Self:
        counts = Counter(chain.from_iterable(cut_words(text, plan.segment) for text in texts))
        return cls(commonest(counts, plan.size - FIRST, plan.at_least), plan.segment)

    def encode(self, texts: Sequence[str]) -> Ids:
        cut = [cut_words(text, self.segment) for text in texts]
        words = pa.array(list(chain.from_iterable(cut)), pa.string())
        return self.look_up(words), np.fromiter(map(len, cut), np.int64, len(cut))

    def look_up(self, words: pa.Array) -> NDArray[np.int32]:
        """The id of each word."""
        return ids_of(words, self.entries, first=FIRST, unknown=UNKNOWN)

    def decode(self, ids: Sequence[int]) -> str:
        return join_words([SPECIAL[token] if token < FIRST else self.piece(token) for token in ids])

    def piece(self, token: int) -> str:
        return self.entries[token - FIRST]

    def state(self) -> dict[str, Any]:
        return {"entries": self.entries, "segment": self.segment}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        return cls([str(word) for word in state["entries"]], str(state["segment"]))


class Characters(Tokenizer):
    """Unicode characters (code points); one that is rare or new is unknown."""

    def __init__(self, entries: Sequence[str]) -> None:
        self.entries = list(entries)
        self.size = FIRST + len(self.entries)
        self.table = np.full(0x110000, UNKNOWN, np.int32)
        self.table[codes(self.entries)] = np.arange(FIRST, self.size)

    @classmethod
    def train(cls, texts: Sequence[str], plan: Plan) -> Self:
        found, counts = np.unique(codes(texts), return_counts=True)
        counted = {chr(code): int(count) for code, count in zip(found, counts, strict=True)}
        return cls(commonest(counted, plan.size - FIRST, plan.at_least))

    def encode(self, texts: Sequence[str]) -> Ids:
        return self.table[codes(texts)], np.fromiter(map(len, texts), np.int64, len(texts))

    def decode(self, ids: Sequence[int]) -> str:
        return "".join("\ufffd" if token < FIRST else self.piece(token) for token in ids)

    def piece(self, token: int) -> str:
        return self.entries[token - FIRST]

    def state(self) -> dict[str, Any]:
        return {"entries": self.entries}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        return cls([str(character) for character in state["entries"]])


def codes(texts: Sequence[str]) -> NDArray[np.uint32]:
    return np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32)


class Bytes(Tokenizer):
    """The bytes of UTF-8: nothing to learn, nothing unknown, and four times as many tokens."""

    size = FIRST + 256

    @classmethod
    def train(cls, texts: Sequence[str], plan: Plan) -> Self:
        return cls()

    def encode(self, texts: Sequence[str]) -> Ids:
        raw = [text.encode() for text in texts]
        ids = np.frombuffer(b"".join(raw), np.uint8).astype(np.int32) + FIRST
        return ids, np.fromiter(map(len, raw), np.int64, len(raw))

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(token - FIRST for token in ids if token >= FIRST).decode(errors="replace")

    def bytes_of_pieces(self) -> list[int] | None:
        return [0] * FIRST + [1] * (self.size - FIRST)

    def piece(self, token: int) -> str:
        byte = token - FIRST
        return chr(byte) if 0x20 <= byte < 0x7F else f"<{byte:02X}>"

    def state(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        return cls()
