"""What it is worth to keep freed memory from step to step, beside giving it back as the C library would.

Whether the C library gives memory back at the end of a step hangs on what lies behind it, so that some processes are
slow where others of the same program are not: each round is a process of its own, the two ways alternate, and the
spread is told. Of workloads of ``benchmarks.peers``: rows a second of training, pages of memory that the process was
handed, and its largest memory, as medians; ``ratio`` is of speeds, above 1 where keeping is faster. That both ways
come to the same accuracy is checked.

    python -m benchmarks.memory_kept [--workload lstm …] [--batch 128] [--rounds 7] [--epochs 3]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import runpy
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from zhixing.training import surroundings

from .peers.environments import HERE
from .peers.workloads import WORKLOADS, write

WAYS = ("kept", "given_back")


def child(way: str, arguments: list[str]) -> None:
    """Our program of ``benchmarks.peers``; then the pages that the process was handed."""
    if way == "given_back":
        vars(surroundings)["memory_kept"] = contextlib.nullcontext
    sys.path.insert(0, str(HERE))
    sys.argv = ["peer_zhixing.py", *arguments]
    runpy.run_path(str(HERE / "peer_zhixing.py"), run_name="__main__")
    print(json.dumps({"pages": resource.getrusage(resource.RUSAGE_SELF).ru_minflt}))


def once(way: str, path: Path, workload: str, batch: int, epochs: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.memory_kept", "--child", way, str(path), workload]
    done = subprocess.run(
        [*command, str(batch), str(epochs), "default", "0"], stdout=subprocess.PIPE, text=True, check=True
    )
    figures, pages = done.stdout.splitlines()[-2:]
    return {**json.loads(figures), **json.loads(pages)}


def measure(workload: str, batch: int, epochs: int, rounds: int) -> dict[str, Any]:
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npz"
        write(path, workload)
        for place in range(rounds):
            for way in WAYS if place % 2 else reversed(WAYS):
                found[way].append(once(way, path, workload, batch, epochs))
    accuracies = {one["accuracy"] for runs in found.values() for one in runs}
    assert len(accuracies) == 1, accuracies
    speeds = [[one["rows_per_second"] for one in found[way]] for way in WAYS]
    ratios = sorted(own / other for own, other in zip(*speeds, strict=True))
    return {
        "workload": workload,
        "batch": batch,
        "epochs": epochs,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        **{way: summary(runs) for way, runs in found.items()},
        "ratio": round(statistics.median(ratios), 2),
        "spread": [round(ratios[0], 2), round(ratios[-1], 2)],
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    speeds = sorted(one["rows_per_second"] for one in runs)
    return {
        "rows_per_second": float(f"{statistics.median(speeds):.4g}"),
        "spread": [float(f"{speed:.4g}") for speed in (speeds[0], speeds[-1])],
        "pages": round(statistics.median(one["pages"] for one in runs)),
        "peak_memory_mb": round(statistics.median(one["peak_memory"] for one in runs) / 2**20),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", nargs="+", choices=WORKLOADS, default=["lstm"])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=3)
    given = parser.parse_args()
    for workload in given.workload:
        print(json.dumps(measure(workload, given.batch, given.epochs, given.rounds)), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3:])
    else:
        main()
