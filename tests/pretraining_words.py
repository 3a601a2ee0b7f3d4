"""Words that texts to learn from without labels are made of."""

from __future__ import annotations

__all__ = ["WORDS"]

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "saw",
    "that",
    "dog",
    "run",
    "far",
    "away",
    "from",
    "home",
    "again",
]
