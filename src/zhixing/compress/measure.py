"""Measuring: what of the truth a form still tells, how fast it is, and what it takes.

Speed and memory are those of a process that does nothing else, on one thread. All processes are started first; then
they take turns, round after round, each time in another order, so that a machine that slows down slows down for all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from ..columns import Column
from ..data.batches import Batches
from ..errors import ZhixingError
from ..heads import Head
from ..verbs.collect import EXACT, Collected, metrics_of, pass_through
from .runtime import Arrays
from .subject import arrays_of

__all__ = ["Timed", "collected", "drop", "goals", "sample_rows", "time_forms"]

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")
PATIENCE = 300.0  # seconds that a process may take for one answer
SINGLE, BATCHED = 64, 8  # rows that are answered one by one; batches


# Accuracy -----------------------------------------------------------------------------------------------------------


def collected(model: Any, batches: Batches, rows: NDArray[np.int64], *, alone: bool = False) -> Collected:
    """What a model or a compressed one says of rows; ``alone``: each by itself."""
    most = 1 if alone else 64 if batches.ragged else 256
    return pass_through(model, batches, rows, EXACT, most, (True, False))


def goals(model: Any, columns: Mapping[str, Column], seen: Collected) -> dict[str, float]:
    """The metric of each output that a model is chosen by."""
    metrics = metrics_of(model, columns, seen)
    return {name: metrics[name].get(model.head(name).goal, float("nan")) for name in model.outputs}


def drop(head: Head, original: float, candidate: float) -> float:
    """How much worse a figure is than the original's: by so much of a share, as accuracy; of an error relatively.

    >>> from zhixing.heads import CategoryHead, NumberHead
    >>> round(drop(CategoryHead, 0.99, 0.98), 4), round(drop(NumberHead, 2.0, 2.1), 4)
    (0.01, 0.05)
    """
    if head.higher:
        return original - candidate
    return candidate / original - 1 if original else float(candidate > 0)


# Speed --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timed:
    """Figures of one form: medians over the rounds, and the lowest and highest round.

    ``latency`` in seconds a row at batch 1, ``throughput`` in rows a second, ``memory`` in bytes. ``share`` is the part
    of its time in which the process had a processor: far below 1, the machine was busy with something else.
    """

    latency: float
    latency_spread: tuple[float, float]
    throughput: float
    throughput_spread: tuple[float, float]
    memory: int
    share: float = 1.0

    def plain(self) -> dict[str, Any]:
        return {
            "latency_seconds": self.latency,
            "latency_spread": list(self.latency_spread),
            "throughput_rows_per_second": self.throughput,
            "throughput_spread": list(self.throughput_spread),
            "memory_bytes": self.memory,
            "processor_share": self.share,
        }


def sample_rows(batches: Batches, rows: NDArray[np.int64], inputs: list[str], size: int) -> dict[str, NDArray[Any]]:
    """Rows to be timed with, spread over ``rows``: some one by one, and some batches of ``size``; ``one-007/text``."""

    def spread(count: int) -> NDArray[np.int64]:
        return rows[np.linspace(0, len(rows) - 1, count).round().astype(np.int64)]

    parts: dict[str, Arrays] = {}
    for place, row in enumerate(spread(min(SINGLE, len(rows)))):
        parts[f"one-{place:03}"] = arrays_of(batches.gather(row[None]), inputs)
    for place, some in enumerate(np.split(spread(BATCHED * size), BATCHED)):
        parts[f"many-{place:03}"] = arrays_of(batches.gather(some), inputs)
    return {f"{place}/{name}": np.ascontiguousarray(x) for place, part in parts.items() for name, x in part.items()}


class Worker:
    """A process that opens one form and times it when it is asked to."""

    def __init__(self, folder: Path, rows: Path) -> None:
        self.log = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the process)
        self.process = subprocess.Popen(  # noqa: S603  (this package's own module)
            [sys.executable, "-m", f"{__package__}.worker", str(folder), str(rows)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env={**os.environ, **ONE_THREAD},
        )  # fmt: skip

    def ask(self, word: str) -> Any:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended; what it said last tells why
            self.process.stdin.write(word + "\n")
            self.process.stdin.flush()
        return self.hear()

    def hear(self) -> Any:
        """Its next answer.

        Raises:
            MeasureError: it has ended, or does not answer.
        """
        assert self.process.stdout is not None
        watch = threading.Timer(PATIENCE, self.process.kill)
        watch.start()
        try:
            line = self.process.stdout.readline()
        finally:
            watch.cancel()
        if not line:
            raise MeasureError(f"the process that ran it ended with status {self.process.wait()}{self.last_words()}")
        told = json.loads(line)
        if "error" in told:
            raise MeasureError(told["error"])
        return told["value"]

    def last_words(self) -> str:
        self.log.seek(0)
        lines = self.log.read().decode("utf-8", "replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.log):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


class MeasureError(ZhixingError):
    """A form that could not be timed; the message is the reason that stands in the table."""


def time_forms(
    folders: Sequence[Path], rows: Mapping[str, NDArray[Any]], *, rounds: int, progress: Any = lambda done, of: None
) -> list[Timed | MeasureError]:
    """Time forms side by side; for each its figures, or why there are none."""
    found: dict[int, Timed | MeasureError] = {}
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        path = Path(scratch) / "rows.safetensors"
        save_file(dict(rows), str(path))
        workers: dict[int, Worker] = {}
        for number, folder in enumerate(folders):
            worker = workers[number] = Worker(folder, path)
            stack.callback(worker.close)
            try:
                worker.hear()
            except MeasureError as error:
                found[number] = error
                del workers[number]
        told: dict[int, dict[str, list[tuple[float, float]]]] = {n: {"latency": [], "throughput": []} for n in workers}
        for turn in range(rounds):
            order = sorted(workers)
            for number in order if turn % 2 == 0 else reversed(order):
                try:
                    for word, values in told[number].items():
                        values.append(workers[number].ask(word))
                except MeasureError as error:
                    found[number] = error
                    del workers[number]
            progress(turn + 1, rounds)
        for number, worker in workers.items():
            found[number] = timed(told[number], worker.ask("memory"))
    return [found[number] for number in range(len(folders))]


def timed(told: Mapping[str, list[tuple[float, float]]], memory: int) -> Timed:
    latency, throughput = ([value for value, _ in told[word]] for word in ("latency", "throughput"))
    share = median(share for turns in told.values() for _, share in turns)
    return Timed(
        median(latency), (min(latency), max(latency)),
        median(throughput), (min(throughput), max(throughput)), memory, min(share, 1.0),
    )  # fmt: skip
