"""Zhixing beside its peers: one JSON line for each workload and batch size, and a table.

Every peer's program trains the same network on the same rows with the same optimizer, in its default setting and in
its best (its own mixed precision and compilation). Rounds are interleaved: each peer once, then each again. Rows a
second are of all epochs after the first; ``seconds`` are of the whole process, from its start to the tested model.
``ratio`` is ours over theirs, the median over rounds, with its least and most: a tie where 1 lies between them.
``ceiling`` is the share that our arithmetic has of a matrix product in bf16 and in fp32, measured in the same run.

    python -m benchmarks.peers [--workload cnn …] [--batch 32 128] [--peer bare …] [--mode default best] [--rounds 5]
    python -m benchmarks.peers --workload cnn --rows 60000 --epochs 5 --rounds 1     # whole programs
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zhixing.data.source import open_source

from ..registry import DOWNLOADS
from .environments import HERE, PEERS, interpreter, versions

# workload: rows of an epoch, and multiplications of one row's forward pass
WORKLOADS = {
    "mlp": (50_000, 784 * 64 + 64 * 64 + 64 * 10),
    "cnn": (8_000, 26 * 26 * 9 * 32 + 11 * 11 * 9 * 32 * 64 + 9 * 9 * 64 * 64 + 576 * 64 + 640),
    "lstm": (8_000, 28 * 4 * 64 * (28 + 64 + 64 + 64) + 640),
    "transformer2": (4_000, 28 * (28 * 128 + 2 * (12 * 128**2 + 2 * 28 * 128)) + 1_280),
    "transformer6": (1_200, 28 * (28 * 256 + 6 * (12 * 256**2 + 2 * 28 * 256)) + 2_560),
}
TESTED = 2_000


def data(path: Path, rows: int) -> None:
    """``rows`` digits for training, and some of the others, as every peer reads them."""
    os.environ.setdefault("ZHIXING_DATA", str(DOWNLOADS))
    table = open_source("mnist")
    pictures, labels, split = table["image"], table["label"], np.asarray(table.data[table.split_column].to_pylist())
    order = np.random.default_rng(0).permutation(np.flatnonzero(split == "train"))
    whole = rows >= len(order) - 1_000
    parts = {
        "train": order[: min(rows, len(order) - 1_000)],
        "validation": order[-1_000:],
        "test": np.flatnonzero(split == "test")[: None if whole else TESTED],
    }
    stacked = np.concatenate([chunk.to_numpy_ndarray() for chunk in pictures.chunks]).reshape(-1, 28, 28)
    names = np.asarray(labels.to_pylist()).astype(np.int64)
    out = {f"image_{part}": stacked[some] for part, some in parts.items()}
    np.savez(path, **out, **{f"label_{part}": names[some] for part, some in parts.items()})


def once(peer: str, path: Path, workload: str, batch: int, epochs: int, mode: str, seed: int) -> dict[str, Any] | None:
    """One process of a peer; None where it fails."""
    program, environment, settings = PEERS[peer]
    command = [str(interpreter(environment)), str(HERE / program), str(path), workload, str(batch), str(epochs), mode]
    started = time.perf_counter()
    done = subprocess.run(
        [*command, str(seed)], capture_output=True, text=True, check=False, env={**os.environ, **settings}
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        print(f"{peer} {workload} {mode} failed: {done.stderr.strip().splitlines()[-1:]}", flush=True)
        return None
    return {**json.loads(done.stdout.strip().splitlines()[-1]), "seconds": seconds}


def ceiling(dtype: torch.dtype, size: int = 1536) -> float:
    """Multiplications a second of a square matrix product, the best of some."""
    one, other = (torch.randn(size, size).to(dtype) for _ in range(2))
    best = 0.0
    for _ in range(8):
        started = time.perf_counter()
        one @ other
        best = max(best, size**3 / (time.perf_counter() - started))
    return best


def compare(workload: str, batch: int, given: argparse.Namespace) -> dict[str, Any]:
    rows, multiplications = WORKLOADS[workload]
    rows = given.rows or rows
    peers = [("zhixing", "default"), *((peer, mode) for peer in given.peer if peer != "zhixing" for mode in given.mode)]
    found: dict[tuple[str, str], list[dict[str, Any]]] = {one: [] for one in peers}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.npz"
        data(path, rows)
        for place in range(given.rounds):
            for peer, mode in list(found):
                one = once(peer, path, workload, batch, given.epochs, mode, seed=place)
                if one is None:
                    del found[peer, mode]
                else:
                    found[peer, mode].append(one)
    ours = found.pop(("zhixing", "default"))
    top = {str(dtype).removeprefix("torch."): ceiling(dtype) for dtype in (torch.bfloat16, torch.float32)}
    worked = 3 * multiplications * middle(ours, "rows_per_second")
    return {
        "workload": workload,
        "batch": batch,
        "rows": rows,
        "epochs": given.epochs,
        "rounds": given.rounds,
        "threads": torch.get_num_threads(),
        "zhixing": summary(ours),
        "ceiling": {name: round(worked / rate, 3) for name, rate in top.items()},
        "peers": {f"{peer} {mode}": beside(theirs, ours) for (peer, mode), theirs in found.items()},
    }


def middle(runs: list[dict[str, Any]], name: str) -> float:
    return statistics.median(one[name] for one in runs)


def summary(runs: list[dict[str, Any]]) -> dict[str, float]:
    return {
        "rows_per_second": round(middle(runs, "rows_per_second")),
        "accuracy": round(statistics.mean(one["accuracy"] for one in runs), 4),
        "seconds": round(middle(runs, "seconds"), 2),
        "peak_memory_mb": round(middle(runs, "peak_memory") / 2**20),
    }


def beside(theirs: list[dict[str, Any]], ours: list[dict[str, Any]]) -> dict[str, Any]:
    pairs = list(zip(ours, theirs, strict=True))
    ratios = sorted(own["rows_per_second"] / other["rows_per_second"] for own, other in pairs)
    whole = statistics.median(other["seconds"] / own["seconds"] for own, other in pairs)
    tie = ratios[0] <= 1 <= ratios[-1]
    spread = [round(ratios[0], 2), round(ratios[-1], 2)]
    return {
        **summary(theirs),
        "ratio": round(statistics.median(ratios), 2),
        "spread": spread,
        "tie": tie,
        "whole_process_ratio": round(whole, 2),
    }


def table(line: dict[str, Any]) -> None:
    """For people."""
    head = f"{line['workload']} at batch {line['batch']}"
    print(f"{head:38}{'rows/s':>10}{'accuracy':>10}{'seconds':>9}{'MB':>7}{'ratio':>7}  spread")
    for name, one in {"zhixing": line["zhixing"], **line["peers"]}.items():
        ratio = f"{one['ratio']:7.2f}  {one['spread'][0]:.2f}–{one['spread'][1]:.2f}" if "ratio" in one else ""
        tie = " tie" if one.get("tie") else ""
        figures = (
            f"{one['rows_per_second']:10,.0f}{one['accuracy']:10.4f}{one['seconds']:9.1f}{one['peak_memory_mb']:7}"
        )
        print(f"{name:38}{figures}{ratio}{tie}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--batch", nargs="+", type=int, default=[32, 128])
    parser.add_argument("--peer", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--mode", nargs="+", choices=["default", "best"], default=["default", "best"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--epochs", type=int, default=3)
    given = parser.parse_args()
    print(json.dumps({"versions": {peer: versions(PEERS[peer][1]) for peer in given.peer}}), flush=True)
    for workload in given.workload:
        for batch in given.batch:
            line = compare(workload, batch, given)
            print(json.dumps(line), flush=True)
            table(line)


if __name__ == "__main__":
    main()
