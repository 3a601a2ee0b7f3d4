"""Tokenizers: text to ids and back, learned from training texts, kept as JSON.

The ids 0 to 3 are padding, unknown, begin and end in all of them; none ever stands for a piece of text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..randomness import uniform
from .segment import UNSPACED, share
from .tokenizer_plain import Bytes, Characters, Plan, Tokenizer, Words
from .tokenizer_published import Published
from .tokenizer_subword import BytePairs, SentencePieces, WordPieces
from .vocabulary import BEGIN, END, PAD, UNKNOWN

__all__ = [
    "ALL",
    "BEGIN",
    "END",
    "PAD",
    "TOKENIZERS",
    "UNKNOWN",
    "Plan",
    "Tokenizer",
    "Words",
    "choose",
    "enough",
    "load",
]

ENOUGH = 2**25  # characters that a tokenizer is trained on
MANY = 100_000  # characters from which pairs of bytes can be counted

TOKENIZERS: dict[str, type[Tokenizer]] = {
    "word": Words,
    "character": Characters,
    "byte": Bytes,
    "bpe": BytePairs,
    "wordpiece": WordPieces,
    "sentencepiece": SentencePieces,
}
ALL = TOKENIZERS | {"published": Published}  # with the one that is not learned


def load(name: str, state: dict[str, Any]) -> Tokenizer:
    """The tokenizer of this name, as it was when it gave this state."""
    return ALL[name].from_state(state)


def enough(texts: Sequence[str]) -> Sequence[str]:
    """As many of the texts, drawn at random, as are needed to train a tokenizer."""
    total = sum(map(len, texts))
    if total <= ENOUGH:
        return texts
    drawn = uniform(len(texts), "tokenizer") < ENOUGH / total
    return [text for text, taken in zip(texts, drawn, strict=True) if taken] or texts[:1]


def choose(texts: Sequence[str], role: str) -> str:
    """The tokenizer that fits some training texts.

    Scripts without spaces by characters; else byte pairs where there is text enough to count them; of little text,
    words, since a model learns more of them from few rows, but characters where text is to be written, since a word
    that is missing could never be.
    """
    if share(texts, UNSPACED) > 0.5:
        return "character"
    if sum(map(len, texts)) >= MANY:
        return "bpe"
    return "word" if role == "input" else "character"
