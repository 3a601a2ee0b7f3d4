"""Whether the model belongs into a thread of the server or into a process of its own.

    python -m benchmarks.serve_worker [--seconds 4 --rounds 5]

The model is called in batches while requests are parsed beside it, as a loop does that refuses most of them, for half
of the time: in a thread of the same process, with Python's usual switching and with the server's, and in another
process. Rounds take turns, so that what else the machine does hits all alike; figures are shares of what the model
does alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h11
import numpy as np
import torch

from zhixing.serve.server import SWITCH

from .serve_load import request_of

USUAL = 0.005


def parse(stop: Any) -> None:
    """Parse and refuse requests for half of the time, in stretches of a few requests."""
    request = request_of("/v1/predict", b"x" * 2000)
    while not stop.is_set():
        since = time.perf_counter()
        for _ in range(4):
            connection = h11.Connection(h11.SERVER)
            connection.receive_data(request)
            while type(connection.next_event()) is not h11.EndOfMessage:
                pass
            connection.send(h11.Response(status_code=429, headers=[("content-length", "0")]))
        time.sleep(time.perf_counter() - since)


@contextmanager
def beside(kind: str) -> Iterator[None]:
    """Parsing in a thread or a process for as long as this lasts."""
    if kind == "alone":
        yield
        return
    process = kind == "process"
    stop: Any = multiprocessing.Event() if process else threading.Event()
    make: Any = multiprocessing.Process if process else threading.Thread
    other = make(target=parse, args=(stop,))
    sys.setswitchinterval(SWITCH if kind == "thread" else USUAL)
    other.start()
    try:
        yield
    finally:
        stop.set()
        other.join()
        sys.setswitchinterval(USUAL)


def rows_per_second(model: Any, batch: Any, seconds: float) -> float:
    done, start = 0, time.perf_counter()
    with torch.inference_mode():
        while time.perf_counter() - start < seconds:
            model(batch)
            done += len(batch)
    return done / (time.perf_counter() - start)


def main() -> None:
    from zhixing.data.batches import Batch, ColumnBatch

    from .serve import SIDE, trained

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    kinds = ("alone", "thread", "thread, usual switching", "process")
    with tempfile.TemporaryDirectory() as folder:
        run = trained(Path(folder) / "resnet18")
    for size in (1, 8, 32):
        pictures = torch.randint(0, 255, (size, 3, SIDE, SIDE), dtype=torch.uint8)
        batch = Batch({run.model.inputs[0]: ColumnBatch(pictures)}, torch.arange(size))
        found: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(args.rounds):
            for kind in kinds:
                with beside(kind):
                    found[kind].append(rows_per_second(run.model, batch, args.seconds))
        alone = np.array(found["alone"])
        shares = {kind: round(float(np.median(np.array(found[kind]) / alone)), 3) for kind in kinds[1:]}
        rate = round(float(np.median(alone)), 1)
        print(json.dumps({"batch": size, "alone_rows_per_second": rate, "share_of_alone": shares}), flush=True)


if __name__ == "__main__":
    main()
