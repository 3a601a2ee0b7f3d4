"""Which part of a text each token stands for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from ..columns.column import Column
from ..columns.segment import cut_words
from ..columns.text import Text
from ..columns.tokenizers import Words
from ..columns.vocabulary import SPECIAL

__all__ = ["pieces_of", "spans"]

Piece = tuple[str, float | None]  # a part of the text, and what it was given; None for what no token stands for


def pieces_of(column: Column, cell: Any, ids: Sequence[int], values: Sequence[float]) -> list[Piece]:
    """A cell's text in pieces with the attribution of each; lists of words or items as these."""
    if not isinstance(column, Text):
        import torch

        names = column.restore(torch.tensor([list(ids)]))[0]
        return alternating([str(name) for name in names], values)
    if column.lists:
        words = cell if isinstance(cell, list) else column.tokens_of(ids)
        return alternating([str(word) for word in words[: len(ids)]], values)
    if not isinstance(cell, str):
        return [(piece, value) for piece, value in zip(column.tokens_of(ids), values, strict=True)]
    text = str(column.normal(pa.array([cell], pa.string()))[0].as_py())
    if isinstance(column.codec, Words):  # those that are unknown to the model stand in the text as they are
        surfaces: list[str | None] = list(cut_words(text, column.codec.segment)[: len(ids)])
    else:
        surfaces = [
            None if token < len(SPECIAL) else piece.removeprefix("##")
            for token, piece in zip(ids, column.tokens_of(ids), strict=True)
        ]
    return spans(text, surfaces, values)


def alternating(names: Sequence[str], values: Sequence[float]) -> list[Piece]:
    out: list[Piece] = []
    for name, value in zip(names, values, strict=True):
        out += [(" ", None), (name, value)] if out else [(name, value)]
    return out


def spans(text: str, surfaces: Sequence[str | None], values: Sequence[float]) -> list[Piece]:
    """The text cut at its tokens, whole: what stands between two tokens has no value.

    Tokens that cannot be found as they are spelled (unknown ones, single bytes of a letter, white space) share, as
    their sum, what stands between the tokens around them; where that is nothing, the next token takes theirs. What
    comes after the last token was not read.

    >>> spans("a cät sat", ["a", "c", None, None, "t", "sat"], [1.0, 2.0, 0.5, 0.5, 3.0, 4.0])
    [('a', 1.0), (' ', None), ('c', 2.0), ('ä', 1.0), ('t', 3.0), (' ', None), ('sat', 4.0)]
    """
    out: list[Piece] = []
    cursor, lost = 0, list[float]()

    def between(stop: int) -> None:
        """Hand out what lies before ``stop`` to the tokens that were not found."""
        gap = text[cursor:stop]
        if not lost:
            out.append((gap, None))
        elif gap:
            inner = gap.strip() or gap
            lead = gap.index(inner)
            out.extend([(gap[:lead], None), (inner, sum(lost)), (gap[lead + len(inner) :], None)])
            lost.clear()

    for surface, value in zip(surfaces, values, strict=True):
        bare = "" if surface is None or "\ufffd" in surface else surface.strip()
        place = text.find(bare, cursor) if bare else -1
        if place < 0:
            lost.append(value)
            continue
        between(place)
        out.append((text[place : place + len(bare)], value + sum(lost)))
        lost.clear()
        cursor = place + len(bare)
    if lost:
        rest = text[cursor:]
        stop = cursor + len(rest) - len(rest.lstrip()) + len((rest.split() or [""])[0])
        between(stop)
        cursor = stop
    out.append((text[cursor:], None))
    if lost and (given := [i for i, (_, value) in enumerate(out) if value is not None]):
        out[given[-1]] = (out[given[-1]][0], (out[given[-1]][1] or 0.0) + sum(lost))
    return [piece for piece in out if piece[0]]
