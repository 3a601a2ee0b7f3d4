"""A process of its own that opens one form, and times it whenever it is asked to.

    python -m zhixing.compress.worker FOLDER ROWS

It answers words on standard input with lines of JSON: ``latency``, ``throughput`` and ``memory``. Between them it
sleeps, so that several forms can take turns on one processor.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

__all__ = ["WORDS", "answer_words", "resident"]

SECONDS = 0.25  # of one turn
LEAST = 5  # calls in it


def resident() -> int:
    """Bytes of memory that this process holds."""
    try:
        for line in Path("/proc/self/status").read_text("utf-8").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource  # where there is no /proc: the most that it has held

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def turn(call: Callable[[Any], Any], given: Sequence[Any]) -> tuple[float, float]:
    """The median of the seconds that a call took, one row or batch after another; and the share of the time in which
    this process had a processor, which is less than 1 where others were at work."""
    spans: list[float] = []
    began, worked = time.perf_counter(), time.process_time()
    end = began + SECONDS
    while len(spans) < LEAST or time.perf_counter() < end:
        one = given[len(spans) % len(given)]
        start = time.perf_counter()
        call(one)
        spans.append(time.perf_counter() - start)
    return median(spans), (time.process_time() - worked) / (time.perf_counter() - began)


def answer_words(folder: Path, rows: Path, out: int) -> None:
    """Open a form and answer until nothing more is asked."""
    from safetensors.numpy import load_file

    from .runtime import open_runtime

    runtime = open_runtime(folder)
    batches: dict[str, dict[str, Any]] = {}
    for name, array in load_file(rows).items():
        place, _, column = name.partition("/")
        batches.setdefault(place, {})[column] = array
    single = [runtime.ready(one) for place, one in sorted(batches.items()) if place.startswith("one")]
    many = [runtime.ready(one) for place, one in sorted(batches.items()) if place.startswith("many")]
    size = len(next(iter(next(one for place, one in batches.items() if place.startswith("many")).values())))
    for given in (*single, *many):  # libraries choose their ways at the first call of each shape
        runtime(given)

    def throughput(told: tuple[float, float]) -> tuple[float, float]:
        return size / told[0], told[1]

    words: dict[str, Callable[[], Any]] = {
        "latency": lambda: turn(runtime, single),
        "throughput": lambda: throughput(turn(runtime, many)),
        "memory": resident,
    }
    tell(out, "ready")
    for line in sys.stdin:
        tell(out, words[line.strip()]())


WORDS = ("latency", "throughput", "memory")


def tell(out: int, value: Any) -> None:
    os.write(out, (json.dumps({"value": value}) + "\n").encode())


def main() -> None:
    out = os.dup(1)
    os.dup2(2, 1)  # what libraries print must not come between the answers
    try:
        answer_words(Path(sys.argv[1]), Path(sys.argv[2]), out)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # told of in the table, as the reason why this form has no figures
        os.write(out, (json.dumps({"error": f"{type(error).__name__}: {error}"}) + "\n").encode())
        sys.exit(1)


if __name__ == "__main__":
    main()
