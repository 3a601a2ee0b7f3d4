"""What every peer's program takes and prints. Imports NumPy alone: peers live in environments of their own.

A program is called as ``program.py DATA.npz WORKLOAD BATCH EPOCHS MODE SEED`` and prints one JSON line at its end.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = ["VOCABULARY", "Clock", "Job", "arrays", "job", "peak", "tell"]

BEGIN, END, SPECIAL = 2, 3, 4  # bytes of a text come after four special tokens
VOCABULARY = SPECIAL + 256


class Job(NamedTuple):
    """What is to be trained. ``mode``: ``default``, ``best`` (the peer's own mixed precision and compilation), or
    ``compiled``, where the two are told apart."""

    data: str
    workload: str
    batch: int
    epochs: int
    mode: str
    seed: int

    @property
    def test_batch(self) -> int:
        """Rows that are tested at a time."""
        return 32 if self.workload in ("resnet18", "gpt") else 1000


def job() -> Job:
    data, workload, batch, epochs, mode, seed = sys.argv[1:7]
    return Job(data, workload, int(batch), int(epochs), mode, int(seed))


def arrays(path: str) -> tuple[Any, Any, Any, Any]:
    """What is read and what is to be said: of training, then of testing.

    Pictures [N, H, W] float32 from 0 to 1 and classes [N] int64; or tokens [N, 256] int64 of texts, that which begins
    a text first, and the tokens that follow each of them.
    """
    found = np.load(path, allow_pickle=False)
    if "text_train" in found:
        train, test = tokens(found["text_train"]), tokens(found["text_test"])
        return train[:, :-1], train[:, 1:], test[:, :-1], test[:, 1:]
    x, x_test = (np.asarray(found[f"image_{part}"], np.float32) / 255 for part in ("train", "test"))
    return x, found["label_train"], x_test, found["label_test"]


def tokens(texts: Any) -> Any:
    """Strings of one length as ids: BEGIN, the bytes, END."""
    codes = np.ascontiguousarray(texts).view(np.uint32).reshape(len(texts), -1).astype(np.int64) + SPECIAL
    return np.pad(np.pad(codes, ((0, 0), (1, 0)), constant_values=BEGIN), ((0, 0), (0, 1)), constant_values=END)


class Clock:
    """The time at which each epoch ended."""

    def __init__(self, rows: int) -> None:
        self.rows, self.ends = rows, [time.perf_counter()]

    def epoch(self) -> None:
        self.ends.append(time.perf_counter())

    def speed(self) -> float:
        """Rows a second, of all epochs after the first, in which things are compiled and warmed up."""
        return self.rows * (len(self.ends) - 2) / (self.ends[-1] - self.ends[1])


def peak() -> int:
    """Bytes that this program alone held at most: ru_maxrss would begin with what its parent had."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def tell(speed: float, accuracy: float, parameters: int) -> None:
    """The last line."""
    figures = {"rows_per_second": speed, "accuracy": float(accuracy), "peak_memory": peak(), "parameters": parameters}
    print(json.dumps(figures), flush=True)
