"""Memory of preparing a large folder of pictures: ``python -m benchmarks.prepare_memory [ROWS]``, one line of JSON.

A few hundred distinct JPEGs are linked to many names, and prepared in processes of their own: all of them, and an
eighth of them. What is stored grows eightfold; the memory must not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

DISTINCT = 300
MEASURE = """
import json, resource, sys, time
from pathlib import Path
import torch
from zhixing.columns import COLUMNS
from zhixing.data.prepare import prepare
from zhixing.data.source import open_source
from zhixing.data.split import SplitSettings, split

def peak():  # of this process alone, in bytes; ru_maxrss would begin with what the parent had
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

torch.set_num_threads(1)
before, start = peak(), time.process_time()
table = open_source(Path(sys.argv[1]))
columns = {"image": COLUMNS["image"](size=int(sys.argv[3])), "label": COLUMNS["category"]()}
columns["label"].role = "output"
prepared = prepare(table, columns, split(table, SplitSettings(), 0, target="label"), cache=Path(sys.argv[2]))
stored = sum(one.values.nbytes for one in prepared.columns.values())
print(json.dumps({"rows": table.rows, "bytes": stored, "seconds": time.process_time() - start,
                  "before": before, "peak": peak()}))
"""


def make(folder: Path, rows: int, side: int = 320) -> None:
    """``rows`` JPEGs of ``side`` x ``side`` in two classes, DISTINCT different ones among them."""
    draw = np.random.default_rng(0)
    originals = folder / "originals"
    originals.mkdir(parents=True)
    for index in range(min(DISTINCT, rows)):
        coarse = Image.fromarray(draw.integers(0, 256, (12, 12, 3), np.uint8))
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(originals / f"{index}.jpg", quality=85)
    for label in "ab":
        (folder / "data" / label).mkdir(parents=True)
    for row in range(rows):
        os.link(originals / f"{row % DISTINCT}.jpg", folder / "data" / "ab"[row % 2] / f"{row:07}.jpg")


def measure(rows: int, size: int = 224) -> dict[str, float]:
    """Prepare so many pictures, in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, rows)
        command = [sys.executable, "-c", MEASURE, str(folder / "data"), str(folder / "cache"), str(size)]
        start = time.perf_counter()
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found: dict[str, float] = json.loads(out.splitlines()[-1])
        return found | {"wall": time.perf_counter() - start}


def compare(rows: int, size: int = 224) -> dict[str, float]:
    small, large = measure(rows // 8, size), measure(rows, size)
    return {
        "rows": large["rows"],
        "stored_bytes": large["bytes"],
        "rows_per_second": round(large["rows"] / large["wall"]),
        "peak_rss_mb": round(large["peak"] / 2**20),
        "growth_mb": round((large["peak"] - large["before"]) / 2**20),
        "an_eighth_rows": small["rows"],
        "an_eighth_stored_bytes": small["bytes"],
        "an_eighth_peak_rss_mb": round(small["peak"] / 2**20),
        "an_eighth_growth_mb": round((small["peak"] - small["before"]) / 2**20),
    }


if __name__ == "__main__":
    print(json.dumps(compare(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)))
