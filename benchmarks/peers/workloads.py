"""What is trained, and the rows of it that every peer reads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zhixing.data.source import open_source

from ..data import english_dictionary
from ..registry import DOWNLOADS

__all__ = ["WORKLOADS", "Workload", "write"]

CHARACTERS = 255  # of a row of text; with its end, 256 tokens


class Workload(NamedTuple):
    """``rows`` of an epoch, ``held`` for validation and twice as many digits, or as many texts, for testing;
    ``multiplications`` are of one row's forward pass."""

    rows: int
    held: int
    multiplications: int


def residual(side: int = 32) -> int:
    """Multiplications of ResNet-18 with one 3x3 convolution as its stem."""
    total, channels = side**2 * 9 * 64 + 4 * side**2 * 9 * 64**2, 64
    for _ in range(3):
        side, channels = side // 2, 2 * channels
        total += side**2 * channels**2 * (9 // 2 + 3 * 9 + 1)  # the first convolution and the shortcut read half
    return total + channels * 10


WORKLOADS = {
    "mlp": Workload(50_000, 1_000, 784 * 64 + 64 * 64 + 64 * 10),
    "cnn": Workload(8_000, 1_000, 26 * 26 * 9 * 32 + 11 * 11 * 9 * 32 * 64 + 9 * 9 * 64 * 64 + 576 * 64 + 640),
    "lstm": Workload(8_000, 1_000, 28 * 4 * 64 * (28 + 64 + 64 + 64) + 640),
    "transformer2": Workload(4_000, 1_000, 28 * (28 * 128 + 2 * (12 * 128**2 + 2 * 28 * 128)) + 1_280),
    "transformer6": Workload(1_200, 250, 28 * (28 * 256 + 6 * (12 * 256**2 + 2 * 28 * 256)) + 2_560),
    "resnet18": Workload(256, 128, residual()),
    "gpt": Workload(64, 16, 256 * (6 * (12 * 384**2 + 2 * 256 * 384) + 260 * 384)),
}


def write(path: Path, workload: str, rows: int | None = None) -> None:
    """The rows of a workload as one ``.npz``: ``image_train`` and ``label_train``, or ``text_train``; so for
    ``validation`` and ``test``. All digits that are left for training take all 10,000 for testing with them."""
    chosen = WORKLOADS[workload]
    rows = rows or chosen.rows
    held = min(chosen.held, rows)
    arrays = texts(rows, held) if workload == "gpt" else digits(rows, held)
    if workload == "resnet18":
        for name in [name for name in arrays if name.startswith("image")]:
            arrays[name] = np.pad(arrays[name], ((0, 0), (2, 2), (2, 2)))
    np.savez(path, **arrays)


def digits(rows: int, held: int) -> dict[str, Any]:
    """Pictures [N, 28, 28] uint8 of MNIST and their classes."""
    os.environ.setdefault("ZHIXING_DATA", str(DOWNLOADS))
    table = open_source("mnist")
    pictures, labels, split = table["image"], table["label"], np.asarray(table.data[table.split_column].to_pylist())
    order = np.random.default_rng(0).permutation(np.flatnonzero(split == "train"))
    whole = rows >= len(order) - held
    parts = {
        "train": order[: min(rows, len(order) - held)],
        "validation": order[-held:],
        "test": np.flatnonzero(split == "test")[: None if whole else 2 * held],
    }
    stacked = np.concatenate([chunk.to_numpy_ndarray() for chunk in pictures.chunks]).reshape(-1, 28, 28)
    names = np.asarray(labels.to_pylist()).astype(np.int64)
    out = {f"image_{part}": stacked[some] for part, some in parts.items()}
    return {**out, **{f"label_{part}": names[some] for part, some in parts.items()}}


def texts(rows: int, held: int) -> dict[str, Any]:
    """Strings of 255 ASCII characters each, from an English dictionary; those for testing stand last in it."""
    text = english_dictionary().read_text("utf-8", "replace").encode("ascii", "ignore").decode("ascii")
    text = text.replace("\0", "")
    pieces = [text[start : start + CHARACTERS] for start in range(0, len(text) - CHARACTERS, CHARACTERS)]
    pieces = [piece for piece in pieces if piece == piece.strip()]
    rest, parts = pieces[: -2 * held], {"validation": pieces[-2 * held : -held], "test": pieces[-held:]}
    order = np.random.default_rng(0).permutation(len(rest))[:rows]
    parts["train"] = [rest[row] for row in order]
    return {f"text_{part}": np.asarray(some) for part, some in parts.items()}
