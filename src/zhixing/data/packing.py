"""Texts behind each other in rows of one length, for language models: no padding, and no text is cut off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from ..columns import Column
from ..columns.column import Ragged
from ..randomness import permutation
from .prepare import Prepared

__all__ = ["pack", "packed_column"]


def packed_column(columns: Mapping[str, Column]) -> str | None:
    """The column whose texts are to be packed, if there is one."""
    return next((name for name, column in columns.items() if getattr(column, "packed", False)), None)


def pack(prepared: Prepared, columns: Mapping[str, Column], *, seed: int) -> Prepared:
    """Rows of blocks in place of rows of the table, where a column is packed; else the same.

    Training texts are put behind each other in a random order and cut into blocks of the column's length, each token
    in one block. The others stay in order, and their blocks overlap by half: of each but the first, the first half is
    context alone, written as negative tokens, so that no token is predicted from less than half a block of what is
    before it in its text.
    """
    name = packed_column(columns)
    if name is None:
        return prepared
    stored, length = prepared.columns[name], columns[name].spec().shape[0]
    assert isinstance(stored, Ragged)
    parts, split, first = [], {}, 0
    for part, rows in prepared.split.items():
        if part == "train":
            rows = rows[permutation(len(rows), seed, "packing")]
        tokens = flat(stored, rows)
        cut = blocks(tokens, length) if part == "train" else overlapping(tokens, length)
        split[part] = np.arange(first, first + len(cut))
        first += len(cut)
        parts += cut
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in parts])]).astype(np.int64)
    whole = torch.from_numpy(np.concatenate(parts) if parts else np.zeros(0, np.int32))
    return replace(prepared, columns={name: Ragged(whole, offsets)}, split=split, rows=first)


def flat(stored: Ragged, rows: NDArray[np.int64]) -> NDArray[np.int32]:
    """The tokens of these rows, behind each other."""
    lengths = stored.lengths_of(rows)
    place = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.asarray(stored.values.numpy()[np.repeat(stored.offsets[rows], lengths) + place])


def blocks(tokens: NDArray[np.int32], length: int) -> list[NDArray[np.int32]]:
    return [tokens[start : start + length] for start in range(0, len(tokens), length)]


def overlapping(tokens: NDArray[np.int32], length: int) -> list[NDArray[np.int32]]:
    """Blocks of which each but the first begins with context.

    >>> [one.tolist() for one in overlapping(np.arange(1, 8, dtype=np.int32), 4)]
    [[1, 2, 3, 4], [-3, -4, 5, 6], [-5, -6, 7]]
    """
    if length == 1:
        return blocks(tokens, 1)
    stride = length // 2
    out = [tokens[:length]] if len(tokens) else []
    for start in range(length, len(tokens), stride):
        context = tokens[start - (length - stride) : start]
        out.append(np.concatenate([-context, tokens[start : start + stride]]))
    return out
