"""Texts in blocks: no token lost or learned twice, and none judged without what is known before it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zhixing.columns import Column
from zhixing.columns.category import Category
from zhixing.columns.column import Ragged
from zhixing.columns.text import Text
from zhixing.columns.vocabulary import END
from zhixing.data.batches import ColumnBatch
from zhixing.data.packing import overlapping, pack, packed_column
from zhixing.data.prepare import Prepared

MANY = settings(max_examples=80, deadline=None, derandomize=True)
LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=12)


def column_of(length: int, packed: bool = True) -> Text:
    column = Text(tokenizer="byte", length=length, packed=packed)
    column.role = "output"
    column.fit(pa.chunked_array([["abc"]]), Path)
    return column


def prepared_of(lengths: dict[str, list[int]]) -> tuple[Prepared, list[list[int]]]:
    """Texts whose tokens are all different, so that each can be followed; the rows of the parts take turns."""
    sizes, split = [], {}
    flat = [(turn, part, size) for part, some in lengths.items() for turn, size in enumerate(some)]
    order = sorted(range(len(flat)), key=lambda place: flat[place][0])
    for part in lengths:
        split[part] = np.array([row for row, place in enumerate(order) if flat[place][1] == part], np.int64)
    sizes = [flat[place][2] for place in order]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    tokens = np.arange(100, 100 + offsets[-1], dtype=np.int32)
    texts = [tokens[a:b].tolist() for a, b in pairwise(offsets)]
    return Prepared({"text": Ragged(torch.from_numpy(tokens), offsets)}, split, len(sizes)), texts


def packed_of(lengths: dict[str, list[int]], length: int, seed: int = 0) -> tuple[dict[str, list[list[int]]], Any, Any]:
    """Blocks by part, the texts that they were made of, and the parts' rows."""
    prepared, texts = prepared_of(lengths)
    done = pack(prepared, {"text": column_of(length)}, seed=seed)
    stored = done.columns["text"]
    assert isinstance(stored, Ragged)
    assert stored.values.dtype == torch.int32
    assert done.rows == len(stored.offsets) - 1 == sum(map(len, done.split.values()))
    blocks = {part: [stored.row(row).tolist() for row in rows.tolist()] for part, rows in done.split.items()}
    return blocks, texts, prepared.split


@MANY
@given(LENGTHS, LENGTHS, st.integers(1, 11), st.integers(0, 99))
def test_every_training_token_is_in_one_block_once(train, test, length, seed) -> None:
    blocks, texts, split = packed_of({"train": train, "test": test}, length, seed)
    seen = [token for block in blocks["train"] for token in block]
    assert sorted(seen) == sorted(token for row in split["train"] for token in texts[row])
    assert all(len(block) == length for block in blocks["train"][:-1])
    assert 0 < len(blocks["train"][-1]) <= length
    behind = {text[0]: text for text in (texts[row] for row in split["train"])}
    place = 0
    while place < len(seen):  # texts are whole, whatever their order
        text = behind[seen[place]]
        assert seen[place : place + len(text)] == text
        place += len(text)


@MANY
@given(LENGTHS, LENGTHS, LENGTHS, st.integers(1, 11))
def test_every_held_out_token_is_scored_once_after_what_came_before_it(train, validation, test, length) -> None:
    blocks, texts, split = packed_of({"train": train, "validation": validation, "test": test}, length)
    for part in ("validation", "test"):
        whole = [token for row in split[part] for token in texts[row]]  # in order
        scored = [token for block in blocks[part] for token in block if token > 0]
        assert scored == whole
        for block in blocks[part]:
            assert len(block) <= length
            context = [-token for token in block if token < 0]
            assert block[: len(context)] == [-token for token in context]  # it comes first
            first = whole.index(block[len(context)])
            assert whole[first - len(context) : first] == context  # and is what stood there
            assert len(context) >= (length // 2 if first else 0)


@MANY
@given(LENGTHS, st.integers(1, 11), st.integers(0, 9))
def test_one_seed_gives_one_order(lengths, length, seed) -> None:
    parts = {"train": lengths, "test": lengths}
    one, other = packed_of(parts, length, seed)[0], packed_of(parts, length, seed)[0]
    assert one == other
    assert packed_of(parts, length, seed + 1)[0]["test"] == one["test"]


def test_another_seed_gives_another_order() -> None:
    parts = {"train": [3] * 20}
    assert packed_of(parts, 6, 0)[0] != packed_of(parts, 6, 1)[0]


def test_parts_without_rows_have_no_blocks() -> None:
    blocks, _, _ = packed_of({"train": [4, 4], "validation": [], "test": []}, 3)
    assert [len(block) for block in blocks["train"]] == [3, 3, 2]
    assert blocks["validation"] == blocks["test"] == []
    assert overlapping(np.zeros(0, np.int32), 5) == []


def test_rows_that_have_no_text_are_passed_over() -> None:
    column = column_of(4)
    done = column.tensorize(pa.array(["ab", None, "", "cde"]), Path)
    assert done.lengths is not None
    offsets = np.concatenate([[0], np.cumsum(done.lengths)]).astype(np.int64)
    stored = {"text": Ragged(torch.from_numpy(done.values), offsets)}
    split = {"train": np.array([1, 2], np.int64), "test": np.arange(4, dtype=np.int64)}
    packed = pack(Prepared(stored, split, 4), {"text": column}, seed=0)
    blocks = packed.columns["text"]
    assert isinstance(blocks, Ragged)
    assert [blocks.row(row).tolist() for row in packed.split["train"]] == [[END]]  # an empty text is its end alone
    scored = [token for row in packed.split["test"] for token in blocks.row(int(row)).tolist() if token > 0]
    a = ord("a") + 4
    assert scored == [a, a + 1, END, END, a + 2, a + 3, a + 4, END]


def test_nothing_else_is_packed() -> None:
    prepared, _ = prepared_of({"train": [2, 3]})
    plain: dict[str, Column] = {"text": column_of(4, packed=False)}
    assert pack(prepared, plain, seed=0) is prepared
    kinds: dict[str, Column] = {"kind": Category(), "text": column_of(4)}
    assert packed_column(kinds) == "text"
    assert packed_column({"kind": Category()}) is None
    table = Prepared({"kind": ColumnBatch(torch.zeros(3))}, {"train": np.arange(3)}, 3)
    assert pack(table, {"kind": Category()}, seed=0) is table
