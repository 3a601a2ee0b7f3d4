"""What every peer's program takes and prints. Imports NumPy alone: peers live in environments of their own.

A program is called as ``program.py DATA.npz WORKLOAD BATCH EPOCHS MODE SEED`` and prints one JSON line at its end.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any, NamedTuple

import numpy as np


class Job(NamedTuple):
    """What is to be trained. ``mode``: ``default``, or ``best``, the peer's own mixed precision and compilation."""

    data: str
    workload: str
    batch: int
    epochs: int
    mode: str
    seed: int


def job() -> Job:
    data, workload, batch, epochs, mode, seed = sys.argv[1:7]
    return Job(data, workload, int(batch), int(epochs), mode, int(seed))


def arrays(path: str) -> tuple[Any, Any, Any, Any]:
    """Pictures [N, 28, 28] float32 from 0 to 1 and classes [N] int64: of training, then of testing."""
    found = np.load(path, allow_pickle=False)
    x, x_test = (np.asarray(found[f"image_{part}"], np.float32) / 255 for part in ("train", "test"))
    return x, found["label_train"], x_test, found["label_test"]


class Clock:
    """The time at which each epoch ended."""

    def __init__(self, rows: int) -> None:
        self.rows, self.ends = rows, [time.perf_counter()]

    def epoch(self) -> None:
        self.ends.append(time.perf_counter())

    def speed(self) -> float:
        """Rows a second, of all epochs after the first, in which things are compiled and warmed up."""
        return self.rows * (len(self.ends) - 2) / (self.ends[-1] - self.ends[1])


def tell(speed: float, accuracy: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"rows_per_second": speed, "accuracy": float(accuracy), "peak_memory": peak}), flush=True)
