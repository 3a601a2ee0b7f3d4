"""Texts that are more than one string: conversations, and pairs of which one is preferred."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from .column import Finding, Tensorized, is_text
from .template import holds_turns, spell_within, turns_of
from .tokenizer_plain import Tokenizer, flat
from .vocabulary import END, PAD

__all__ = ["FORMS", "Form", "holds_pairs"]

CHOSEN, REJECTED = "chosen", "rejected"


def holds_pairs(kind: pa.DataType) -> bool:
    """Whether cells are pairs ``{chosen, rejected}`` of texts."""
    return bool(pa.types.is_struct(kind)) and {field.name for field in kind} >= {CHOSEN, REJECTED}


def said(cell: Any) -> list[str]:
    """The texts of a conversation; nothing of one that is malformed."""
    try:
        return [turn.text for turn in turns_of(cell)] if cell is not None else []
    except ValueError:
        return []


def both(cell: Any) -> list[str]:
    """The texts of a pair.

    Raises:
        ValueError: one is missing.
    """
    texts = [cell.get(CHOSEN), cell.get(REJECTED)]
    if not all(isinstance(text, str) for text in texts):
        lost = " and ".join(name for name, text in zip((CHOSEN, REJECTED), texts, strict=True) if text is None)
        raise ValueError(f"a pair without what was {lost}" if lost else "a pair of what are no texts")
    return texts


def spell_prompt(codec: Tokenizer, template: str, cell: Any, room: int) -> tuple[list[int], str]:
    if isinstance(cell, str) and not cell.strip():
        raise ValueError("empty text")
    return spell_within(codec, template, turns_of(cell), room)


def spell_pair(codec: Tokenizer, template: str, cell: Any, room: int) -> tuple[list[int], str]:
    """The preferred text, then the other one as negative tokens, then padding up to twice the longer text: of a batch
    of such rows it is known how long a text is at most, without a look at the tokens."""
    texts = both(cell)
    rows = [[*(int(token) for token in codec.encode([text])[0]), END] for text in texts]
    remark = "both texts of the pair are the same" if texts[0] == texts[1] else ""
    if (longest := max(map(len, rows))) > room:
        remark = f"{longest} tokens, of which the first {room} are kept"
    chosen, rejected = (row[:room] for row in rows)
    filling = [PAD] * abs(len(chosen) - len(rejected))
    return [*chosen, *(-token for token in rejected), *filling], remark


class Form(NamedTuple):
    """What such cells are: whether a type of cells is of this form, the texts in a cell, and its tokens in so much
    room, with a remark where something is odd."""

    holds: Callable[[pa.DataType], bool]
    texts: Callable[[Any], list[str]]
    spell: Callable[[Tokenizer, str, Any, int], tuple[list[int], str]]

    def all_texts(self, values: pa.ChunkedArray) -> list[str]:
        """Those of all cells that can be read."""
        out = list[str]()
        for cell in values.to_pylist():
            try:
                out += [] if cell is None else self.texts(cell)
            except ValueError:
                continue
        return out

    def rows(
        self, codec: Tokenizer, template: str, cells: list[Any], room: int
    ) -> Iterator[tuple[list[int], Finding | None]]:
        """The tokens of each cell, none where it is empty or cannot be read, and what is to be said of it."""
        for index, cell in enumerate(cells):
            try:
                ids, remark = self.spell(codec, template, cell, room) if cell is not None else ([], "")
                yield ids, Finding(index, remark, "suspect") if remark else None
            except ValueError as error:
                yield [], Finding(index, str(error))

    def tensorize(self, codec: Tokenizer, template: str, cells: list[Any], room: int) -> Tensorized:
        done = list(self.rows(codec, template, cells, room))
        ids, lengths = flat(row for row, _ in done)
        present = np.asarray(lengths > 0)
        return Tensorized(ids, present, [found for _, found in done if found is not None], lengths=lengths)


FORMS: dict[str, Form] = {
    "conversation": Form(lambda kind: holds_turns(kind) or is_text(kind), said, spell_prompt),
    "pair": Form(holds_pairs, both, spell_pair),
}
