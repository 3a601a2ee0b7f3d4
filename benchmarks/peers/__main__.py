"""Zhixing beside its peers: one JSON line for each workload and batch size, and a table.

Every peer's program trains the same network on the same rows with the same optimizer, in its default setting and in
its best (its own mixed precision and compilation). Rounds are interleaved: each peer once, then each again, one place
further on in the order; before them each runs once for nothing. Rows a second are of all epochs after the first;
``seconds`` are of the whole process, from its start to the tested model. ``ratio`` is ours over theirs, the median
over rounds, with its least and most: a tie where 1 lies between them. ``ceiling`` is the share that our arithmetic has
of a matrix product in bf16 and in fp32, measured before the rounds and after, whichever was faster: neighbours slow it
down as well. What a peer fails at stands under ``failed``.
Compilers find in later rounds what they kept of the first, which is to their advantage.

All have as many parameters, which is checked, but for Keras's LSTM: it has one vector of biases where torch has two.

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

import torch

from .environments import HERE, PEERS, interpreter, versions
from .workloads import WORKLOADS, write

MODES = ["default", "best", "compiled"]
Setup = tuple[str, str]  # a peer and its mode
Figures = dict[str, Any]


def once(setup: Setup, path: Path, workload: str, batch: int, epochs: int, seed: int) -> Figures | str:
    """One process of a peer; where it fails, what it says."""
    peer, mode = setup
    program, environment, _, settings = PEERS[peer]
    command = [str(interpreter(environment)), str(HERE / program), str(path), workload, str(batch), str(epochs), mode]
    started = time.perf_counter()
    done = subprocess.run(
        [*command, str(seed)], capture_output=True, text=True, check=False, env={**os.environ, **settings}
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        return " ".join(done.stderr.strip().splitlines()[-3:]) or f"it ended with {done.returncode}"
    return {**json.loads(done.stdout.strip().splitlines()[-1]), "seconds": seconds}


def ceilings(size: int = 1536) -> dict[str, float]:
    """Multiplications a second of a square matrix product in both formats, the best of some."""
    best = {}
    for dtype in (torch.bfloat16, torch.float32):
        one, other = (torch.randn(size, size).to(dtype) for _ in range(2))
        seconds = []
        for _ in range(50):
            started = time.perf_counter()
            one @ other
            seconds.append(time.perf_counter() - started)
        best[str(dtype).removeprefix("torch.")] = size**3 / min(seconds)
    return best


def warm_up(setups: list[Setup]) -> None:
    """Each program once, so that all it reads from the disk has been read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.npz"
        write(path, "mlp", 256)
        for setup in setups:
            once(setup, path, "mlp", 32, 2, seed=0)


def rounds(setups: list[Setup], path: Path, workload: str, batch: int, given: argparse.Namespace) -> Any:
    """What each gave in all rounds; and what it said of those that failed in one."""
    found: dict[Setup, list[Figures]] = {one: [] for one in setups}
    failed: dict[str, str] = {}
    for place in range(given.rounds):
        turn = place % len(setups)
        for setup in setups[turn:] + setups[:turn]:
            if setup not in found:
                continue
            one = once(setup, path, workload, batch, given.epochs, seed=place)
            if isinstance(one, str):
                del found[setup]
                failed[" ".join(setup)] = one
            else:
                found[setup].append(one)
    return found, failed


def compare(workload: str, batch: int, setups: list[Setup], given: argparse.Namespace) -> dict[str, Any]:
    rows = max(given.rows or WORKLOADS[workload].rows, batch)
    before = ceilings()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npz"
        write(path, workload, rows)
        found, failed = rounds(setups, path, workload, batch, given)
    if setups[0] not in found:
        raise SystemExit(f"ours failed: {failed}")
    ours = found.pop(setups[0])
    sizes = {" ".join(setup): theirs[0]["parameters"] for setup, theirs in found.items()}
    wrong = {name: size for name, size in sizes.items() if size != ours[0]["parameters"]}
    assert not wrong or workload == "lstm", wrong
    top = {name: max(before[name], rate) for name, rate in ceilings().items()}
    worked = 3 * WORKLOADS[workload].multiplications * middle(ours, "rows_per_second")
    return {
        "workload": workload,
        "batch": batch,
        "rows": rows,
        "epochs": given.epochs,
        "rounds": given.rounds,
        "threads": torch.get_num_threads(),
        "parameters": ours[0]["parameters"],
        "zhixing": summary(ours),
        "ceiling": {name: round(worked / rate, 3) for name, rate in top.items()},
        "peers": {" ".join(setup): beside(theirs, ours) for setup, theirs in found.items()},
        "failed": failed,
    }


def middle(runs: list[Figures], name: str) -> float:
    return float(statistics.median(one[name] for one in runs))


def summary(runs: list[Figures]) -> dict[str, float]:
    return {
        "rows_per_second": float(f"{middle(runs, 'rows_per_second'):.4g}"),
        "accuracy": round(statistics.mean(one["accuracy"] for one in runs), 4),
        "seconds": round(middle(runs, "seconds"), 2),
        "peak_memory_mb": round(middle(runs, "peak_memory") / 2**20),
    }


def beside(theirs: list[Figures], ours: list[Figures]) -> Figures:
    """Ratios above 1 say that ours is the faster."""
    pairs = list(zip(ours, theirs, strict=True))
    ratios = sorted(own["rows_per_second"] / other["rows_per_second"] for own, other in pairs)
    whole = sorted(other["seconds"] / own["seconds"] for own, other in pairs)
    return {
        **summary(theirs),
        "ratio": round(statistics.median(ratios), 2),
        "spread": ends(ratios),
        "tie": ratios[0] <= 1 <= ratios[-1],
        "whole_process_ratio": round(statistics.median(whole), 2),
        "whole_process_spread": ends(whole),
    }


def ends(ratios: list[float]) -> list[float]:
    return [round(ratios[0], 2), round(ratios[-1], 2)]


def table(line: dict[str, Any]) -> None:
    """For people."""
    head = f"{line['workload']} at batch {line['batch']}"
    print(f"{head:38}{'rows/s':>10}{'accuracy':>10}{'seconds':>9}{'MB':>7}{'ratio':>7}  spread      whole process")
    for name, one in {"zhixing": line["zhixing"], **line["peers"]}.items():
        figures = f"{one['accuracy']:10.4f}{one['seconds']:9.1f}{one['peak_memory_mb']:7}"
        ratio = ""
        if "ratio" in one:
            spread = f"{one['spread'][0]:.2f}–{one['spread'][1]:.2f}"
            ratio = f"{one['ratio']:7.2f}  {spread:12}{one['whole_process_ratio']:.2f}{' tie' if one['tie'] else ''}"
        print(f"{name:38}{one['rows_per_second']:10,.5g}{figures}{ratio}")
    for name, said in line["failed"].items():
        print(f"{name:38}failed: {said}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--batch", nargs="+", type=int, default=[32, 128])
    parser.add_argument("--peer", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--mode", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--epochs", type=int, default=3)
    given = parser.parse_args()
    peers = [peer for peer in PEERS if peer in given.peer and peer != "zhixing"]
    print(
        json.dumps({"versions": {peer: versions(PEERS[peer].environment) for peer in ["zhixing", *peers]}}), flush=True
    )
    setups = [("zhixing", "default")]
    setups += [(peer, mode) for peer in peers for mode in PEERS[peer].modes if mode in given.mode]
    warm_up(setups)
    for workload in given.workload:
        for batch in given.batch:
            line = compare(workload, batch, setups, given)
            print(json.dumps(line), flush=True)
            table(line)


if __name__ == "__main__":
    main()
