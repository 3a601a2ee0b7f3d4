"""What a server keeps to: beside the model called directly, far beyond its capacity, with hostile clients, at its end.

    python -m benchmarks.serve --saturation --overload --hostile --sigterm --tagged [--seconds 120]

Each flag is a scenario that prints a line of JSON; without any, all are run. The model is a ResNet-18 on pictures of
96 x 96, sent as JPEG in base64, on one thread; the load comes from this process.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

import zhixing as zx

from .serve_hostile import hostile
from .serve_load import Seen, Target, closed_loop, open_loop, percentile, request_of

SIDE = 96
WAIT_MS = 5.0
CLIENTS = 64


def trained(folder: Path) -> zx.Run:
    """A ResNet-18 that has seen one epoch of noise: what it says is of no account here."""
    random = np.random.default_rng(0)
    pictures = list(random.integers(0, 255, (64, SIDE, SIDE, 3), dtype=np.uint8))
    encoder = {"photo": {"type": "image", "encoder": {"name": "resnet18"}}}
    recipe = {"inputs": encoder, "outputs": {"label": {"type": "category"}}}
    return zx.train({"photo": pictures, "label": [str(i % 10) for i in range(64)]}, recipe=recipe, epochs=1, out=folder)


def pictures(count: int) -> list[bytes]:
    """Requests of one picture each, all different."""
    random, out = np.random.default_rng(1), []
    for _ in range(count):
        smooth = Image.fromarray(random.integers(0, 255, (8, 8, 3), dtype=np.uint8)).resize((SIDE, SIDE))
        buffer = io.BytesIO()
        smooth.save(buffer, "JPEG")
        row = {"photo": {"base64": base64.b64encode(buffer.getvalue()).decode()}}
        out.append(request_of("/v1/predict", json.dumps({"rows": [row], "probabilities": True}).encode()))
    return out


@contextmanager
def server(run: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """``zhixing serve`` in a process of its own: the process, and its port."""
    command = [sys.executable, "-m", "zhixing", "serve", str(run), "--port", "0", "--threads", "1", "--json", *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        yield process, int(json.loads(process.stdout.readline())["url"].rpartition(":")[2])
    finally:
        process.terminate()
        process.wait(90)


def memory(process: subprocess.Popen[str]) -> float:
    return float(psutil.Process(process.pid).memory_info().rss / 2**20)


def batch_size(port: int) -> float:
    """The mean size of the batches so far, by the server's own counters."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    found = {line.split("{")[0]: float(line.split()[-1]) for line in lines if line.startswith("zhixing_batch_rows_")}
    return found["zhixing_batch_rows_sum"] / max(1, found["zhixing_batch_rows_count"])


def direct(run: zx.Run, size: int, seconds: float) -> float:
    """Rows a second of the model alone, called with tensors in batches of this size."""
    from zhixing.data.batches import Batch, ColumnBatch

    shape, name = (size, 3, SIDE, SIDE), run.model.inputs[0]
    batch = Batch({name: ColumnBatch(torch.randint(0, 255, shape, dtype=torch.uint8))}, torch.arange(size))
    done = 0
    with torch.inference_mode():
        for _ in range(3):
            run.model(batch)
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            run.model(batch)
            done += size
        return done / (time.perf_counter() - start)


def taking(requests: list[bytes]) -> Callable[[int], bytes]:
    return lambda number: requests[number % len(requests)]


def saturation(run: zx.Run, args: argparse.Namespace) -> dict[str, Any]:
    """Closed loop with more clients than fill two batches, against the model called directly, turn about."""
    requests, served, alone = pictures(256), list[float](), list[float]()
    with server(run.path, "--max-batch", str(args.batch)) as (_, port):

        async def load(seconds: float) -> float:
            target = Target(port)
            seen = await closed_loop(target, taking(requests), max(CLIENTS, 2 * args.batch), seconds)
            target.close()
            return seen.count(200) / seconds

        asyncio.run(load(2))
        for _ in range(args.rounds):
            served.append(asyncio.run(load(args.seconds / 8)))
            alone.append(direct(run, args.batch, args.seconds / 8))
        size = batch_size(port)
    share = float(np.median([one / other for one, other in zip(served, alone, strict=True)]))
    return {
        "rows_per_second": [round(x, 1) for x in served], "direct_rows_per_second": [round(x, 1) for x in alone],
        "mean_batch": round(size, 1), "batch": args.batch, "share_of_direct": round(share, 3), "asked": 0.9,
    }  # fmt: skip


def overload(run: zx.Run, args: argparse.Namespace) -> dict[str, Any]:
    """Open loop at ten times what the server can do within its patience, which follows from the p99 without load.

    ``capacity`` is without patience, in whole batches; ``saturated`` is with it, in batches that are small enough for
    the answer to come in time; ``goodput`` is the share of the latter that is answered in the flood.
    """
    requests = pictures(256)
    flags = ["--wait-ms", str(WAIT_MS), "--max-batch", str(args.batch)]

    async def quiet(port: int, rate: float, seconds: float) -> float:
        target = Target(port)
        await open_loop(target, taking(requests), rate, 2)
        seen = await open_loop(target, taking(requests), rate, seconds)
        target.close()
        return percentile(seen.seconds[200], 0.99)

    with server(run.path, *flags) as (_, port):
        capacity = asyncio.run(closed(port, requests, args.seconds / 12))
        light = 0.05 * capacity
        first = asyncio.run(quiet(port, light, args.seconds / 4))
    flags += ["--patience-ms", str(args.patience or round(first))]
    with server(run.path, *flags) as (process, port):
        saturated = asyncio.run(closed(port, requests, args.seconds / 4, fill=True))
        unloaded = asyncio.run(quiet(port, light, args.seconds / 4))
        before = memory(process)
        found, recovery = asyncio.run(flood(port, requests, 10 * saturated, args.seconds, unloaded))
        grown = memory(process) - before
    refused = found.seconds.get(429, []) + found.seconds.get(503, [])
    answered = found.seconds.get(200, [])
    return {
        "capacity_rows_per_second": round(capacity, 1), "saturated_rows_per_second": round(saturated, 1),
        "offered_per_second": round(10 * saturated, 1),
        "flags": " ".join(flags), "unloaded_p99_ms": unloaded, "accepted_p99_ms": percentile(answered, 0.99),
        "allowed_p99_ms": round(2 * unloaded + WAIT_MS, 2), "refused_p99_ms": percentile(refused, 0.99),
        "goodput": round(len(answered) / args.seconds / saturated, 3),
        "goodput_of_capacity": round(len(answered) / args.seconds / capacity, 3), "accepted": len(answered),
        "refused": len(refused), "lost": found.lost, "late": found.late,
        "grown_mb": round(grown, 1), "recovery_seconds": recovery,
    }  # fmt: skip


async def closed(port: int, requests: list[bytes], seconds: float, *, fill: bool = False) -> float:
    """Rows a second with as many clients as keep the server busy."""
    target = Target(port)
    seen = await closed_loop(target, taking(requests), 16 if fill else CLIENTS, seconds)
    target.close()
    return seen.count(200) / seconds


async def flood(port: int, requests: list[bytes], rate: float, seconds: float, unloaded: float) -> tuple[Any, float]:
    """The flood, and how long after it a request is answered as fast as before it."""
    target = Target(port)
    seen = await open_loop(target, taking(requests), rate, seconds)
    target.close()
    end = time.perf_counter()
    while time.perf_counter() - end < 30:
        since, target = time.perf_counter(), Target(port)
        status, _, _ = await target.ask(requests[0])
        target.close()
        if status == 200 and 1000 * (time.perf_counter() - since) <= unloaded:
            break
    return seen, round(time.perf_counter() - end, 3)


def sigterm(run: zx.Run, args: argparse.Namespace) -> dict[str, Any]:
    """A signal under load, again and again: what was sent on an open connection is answered."""
    requests, lost, answered, statuses = pictures(64), 0, 0, list[int | None]()
    for turn in range(args.signals):
        with server(run.path, "--max-batch", "8") as (process, port):
            found = asyncio.run(until_gone(process, port, requests, 0.5 + 0.02 * turn))
            statuses.append(process.wait(60))
        lost, answered = lost + found.lost + found.late, answered + found.count(200)
    return {"signals": args.signals, "answered": answered, "lost": lost, "exit_statuses": sorted(set(statuses))}


async def until_gone(process: subprocess.Popen[str], port: int, requests: list[bytes], after: float) -> Seen:
    """Load with a signal in the midst of it."""
    target = Target(port)
    asyncio.get_running_loop().call_later(after, process.terminate)
    seen = await closed_loop(target, taking(requests), 16, after + 2)
    target.close()
    return seen


def tagged(run: zx.Run, args: argparse.Namespace) -> dict[str, Any]:
    """Ten thousand requests of different pictures from many clients: each answer is that of a batch of one."""
    distinct = pictures(500)
    expected: list[dict[str, float]] = []

    async def everything(port: int) -> tuple[int, float]:
        target, wrong, worst = Target(port), 0, 0.0
        for request in distinct:  # one at a time: batches of one
            expected.append(probabilities(await target.ask(request)))

        async def client(first: int) -> None:
            nonlocal wrong, worst
            for number in range(first, args.requests, CLIENTS):
                tag = (7 * number) % len(distinct)
                found = probabilities(await target.ask(distinct[tag]))
                off = max(abs(found[name] - expected[tag][name]) for name in expected[tag])
                worst = max(worst, off)
                wrong += off > 1e-4

        await asyncio.gather(*(client(first) for first in range(CLIENTS)))
        target.close()
        return wrong, worst

    with server(run.path) as (_, port):
        wrong, worst = asyncio.run(everything(port))
    apart = min(
        max(abs(one[name] - other[name]) for name in one)
        for place, one in enumerate(expected[:100]) for other in expected[:place]
    )  # fmt: skip
    return {"requests": args.requests, "wrong": wrong, "largest_difference": worst, "nearest_pictures_differ": apart}


def probabilities(answer: tuple[int, dict[str, str], bytes]) -> dict[str, float]:
    assert answer[0] == 200, answer
    return dict(json.loads(answer[2])["rows"][0]["probabilities"]["label"])


SCENARIOS = {"saturation": saturation, "overload": overload, "hostile": hostile, "sigterm": sigterm, "tagged": tagged}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in SCENARIOS:
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--patience", type=float, help="milliseconds; open: from the p99 without load")
    parser.add_argument("--signals", type=int, default=50)
    parser.add_argument("--requests", type=int, default=10_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [name for name in SCENARIOS if getattr(args, name)] or list(SCENARIOS)
    with tempfile.TemporaryDirectory() as folder:
        run = trained(Path(folder) / "resnet18")
        for name in chosen:
            print(json.dumps({"scenario": name, **SCENARIOS[name](run, args)}), flush=True)


if __name__ == "__main__":
    main()
