"""20,000 JPEGs to tensors: Zhixing beside a torch DataLoader and Hugging Face ``datasets``.

Each is a process of its own, its input in the disk's cache: ``zhixing`` reads the folder and stores all pictures as
uint8 at one size, ``zhixing again`` finds them stored; ``loader`` goes through the folder once with two worker
processes and keeps what it read in memory, which it has to do anew each time; ``datasets`` reads an ``imagefolder`` and
maps it to arrays on disk in two processes, and finds them in ``datasets again``. The sum of all pixels has to be the
same for all. Rows a second are without the time that imports take, ``seconds`` are of the whole process. Memory is that
of the process and all below it, pages that are shared counted once: ``held_mb`` without those of files, which can be
dropped at any time. ``ratio`` is ours over theirs, the median over rounds with its least and most.

    python -m benchmarks.data_preparation [--side 64 160] [--rounds 5] [--rows 20000]

Pictures are patches of scikit-learn's two photographs, of 64 x 64, or of 160 x 160 that are brought to 96 x 96.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from .peers.environments import HERE, interpreter, versions
from .registry import made_once

PATCH = 160
STORED = {64: 64, 160: 96}  # side of the JPEGs: side of what is stored
# name: program, environment, whether it finds what it stored
CONTENDERS = {
    "zhixing": ("prepare_zhixing.py", None, False),
    "zhixing again": ("prepare_zhixing.py", None, True),
    "loader": ("prepare_loader.py", "torch", False),
    "datasets": ("prepare_datasets.py", "torch", False),
    "datasets again": ("prepare_datasets.py", "torch", True),
}
OURS = {"loader": "zhixing", "datasets": "zhixing", "datasets again": "zhixing again"}  # beside what each is put
Figures = dict[str, float]


def jpegs(side: int, rows: int) -> Path:
    """A folder with so many different JPEGs in two class folders."""
    from sklearn.datasets import load_sample_image

    def make(folder: Path, scratch: Path) -> None:
        random = np.random.default_rng(0)
        for name, photo in (("flower", "flower.jpg"), ("temple", "china.jpg")):
            (folder / name).mkdir()
            pixels = load_sample_image(photo)
            for number in range(rows // 2):
                top, left = (int(random.integers(0, room - PATCH)) for room in pixels.shape[:2])
                patch = Image.fromarray(pixels[top : top + PATCH, left : left + PATCH])
                patch.resize((side, side), Image.Resampling.BICUBIC).save(
                    folder / name / f"{number:05}.jpg", quality=90
                )

    return made_once(f"jpegs-{side}-{rows}", make)


def memory(root: psutil.Process) -> tuple[int, int]:
    """Bytes of a process and all below it, in all and without those of files; shared pages are divided."""
    total = held = 0
    try:
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0, 0
    for process in family:
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text("utf-8").splitlines()[1:]
        except (FileNotFoundError, ProcessLookupError):
            continue
        kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        total += kilobytes["Pss"]
        held += kilobytes["Pss_Anon"] + kilobytes["Pss_Shmem"]
    return 1024 * total, 1024 * held


def watch(process: subprocess.Popen[str], ended: threading.Event, peaks: list[int]) -> None:
    root = psutil.Process(process.pid)
    while not ended.wait(0.25):
        peaks[:] = map(max, peaks, memory(root))


def once(name: str, folder: Path, cache: Path, side: int) -> Figures:
    """One process. The memory is that until all is stored: pixels are added up after it."""
    program, environment, _ = CONTENDERS[name]
    settings = {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    command = [str(interpreter(environment)), str(HERE / program), str(folder), str(cache), str(side)]
    peaks, ended = [0, 0], threading.Event()
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **settings}) as process:
        watcher = threading.Thread(target=watch, args=(process, ended, peaks))
        watcher.start()
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - started
        ended.set()
        total = process.communicate()[0]
        watcher.join()
    if process.returncode:
        raise SystemExit(f"{name} failed")
    told = json.loads(line)
    return {
        "rows": told["rows"], "rows_per_second": told["rows"] / told["work"], "seconds": seconds,
        "peak_memory_mb": peaks[0] / 2**20, "held_mb": peaks[1] / 2**20, "sum": int(total),
    }  # fmt: skip


def compare(side: int, rows: int, rounds: int) -> dict[str, Any]:
    folder, found = jpegs(side, rows), {name: list[Figures]() for name in CONTENDERS}
    once("loader", folder, folder, STORED[side])  # so that the folder has been read
    for place in range(rounds):
        with tempfile.TemporaryDirectory() as scratch:
            programs = ["prepare_zhixing.py", "prepare_loader.py", "prepare_datasets.py"]
            turn = place % len(programs)
            for program in programs[turn:] + programs[:turn]:
                cache = Path(scratch) / program
                cache.mkdir()
                for name in [name for name in CONTENDERS if CONTENDERS[name][0] == program]:
                    found[name].append(once(name, folder, cache, STORED[side]))
    sums = {(one["rows"], one["sum"]) for runs in found.values() for one in runs}
    assert len(sums) == 1, f"not the same pictures: {sums}"
    return {
        "rows": rows,
        "jpeg_side": side,
        "stored_side": STORED[side],
        "jpeg_mb": round(sum(path.stat().st_size for path in folder.glob("*/*")) / 2**20, 1),
        "rounds": rounds,
        "cores": os.cpu_count(),
        **{name: summary(runs) for name, runs in found.items()},
        "ratio": {theirs: ratio(found[ours], found[theirs]) for theirs, ours in OURS.items()},
    }


def summary(runs: list[Figures]) -> Figures:
    return {
        name: round(statistics.median(one[name] for one in runs), 2 if name == "seconds" else None)
        for name in ("rows_per_second", "seconds", "peak_memory_mb", "held_mb")
    }


def ratio(ours: list[Figures], theirs: list[Figures]) -> list[float]:
    """Rows a second, ours over theirs: the median, the least, the most."""
    found = sorted(own["rows_per_second"] / other["rows_per_second"] for own, other in zip(ours, theirs, strict=True))
    return [round(one, 2) for one in (statistics.median(found), found[0], found[-1])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", nargs="+", type=int, choices=STORED, default=list(STORED))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=20_000)
    given = parser.parse_args()
    for side in given.side:
        line = {"versions": versions("torch"), **compare(side, given.rows, given.rounds)}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
