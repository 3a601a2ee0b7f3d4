"""How long a cold process takes: help, the import, and the first prediction of a saved run, beside bare ones.

Each round starts every command once, in turn. One JSON line with the median seconds of each, its least and most:

================  =============================================================================================
python            ``python -c pass``
help              ``zhixing --help``
import            ``python -c "import zhixing"``
import_torch      ``python -c "import torch"``
bare_prediction   a program of ten lines: load weights with safetensors, read a picture, predict
prediction        ``zhixing predict RUN digit.png`` of a textbook CNN trained on MNIST
bare_training     a program of a dozen lines: the same network, an epoch of 2,000 digits, accuracy on 200
training          ``zhixing train digits.npz --encoder cnn --epochs 1``, with its checkpoint, report and all
================  =============================================================================================

    python -m benchmarks.start_up [--rounds 15]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import zhixing as zx

from .peers.workloads import write

NETWORK = """
import sys, numpy, torch
from torch import nn
network = nn.Sequential(
    nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 64), nn.ReLU(), nn.Linear(64, 10),
)
"""
BARE = f"""{NETWORK}
from PIL import Image
from safetensors.torch import load_file
weights = load_file(sys.argv[1])
network.load_state_dict(dict(zip(network.state_dict(), weights.values())))
picture = torch.from_numpy(numpy.asarray(Image.open(sys.argv[2]).convert("L"), numpy.float32) / 255)[None, None]
with torch.no_grad():
    print(int(network(picture).argmax()))
"""
BARE_TRAINING = f"""{NETWORK}
rows = {{name: torch.from_numpy(array) for name, array in numpy.load(sys.argv[1]).items()}}
optimizer = torch.optim.Adam(network.parameters())
for part in torch.randperm(len(rows["label_train"])).split(32):
    optimizer.zero_grad()
    scores = network(rows["image_train"][part, None] / 255)
    nn.functional.cross_entropy(scores, rows["label_train"][part]).backward()
    optimizer.step()
with torch.no_grad():
    said = network(rows["image_test"][:, None] / 255).argmax(1)
print(float((said == rows["label_test"]).float().mean()))
"""


def prepare(folder: Path) -> tuple[Path, Path, Path, Path]:
    """A run, a picture, weights of the same network in a file of their own, and digits to train on."""
    import torch
    from safetensors.torch import save_file
    from torch import nn

    run = zx.train("mnist", encoder="cnn", epochs=0.1, out=folder / "run", quiet=True)
    Image.fromarray(np.full((28, 28), 9, np.uint8)).save(folder / "digit.png")
    sizes = ((32, 1, 3, 3), (64, 32, 3, 3), (64, 64, 3, 3), (64, 576), (10, 64))
    layers: list[torch.Tensor] = []
    for size in sizes:
        layers += [torch.randn(size) * 0.05, torch.zeros(size[0])]
    save_file({f"{number:02}": nn.Parameter(layer).detach() for number, layer in enumerate(layers)}, folder / "bare")
    write(folder / "digits.npz", "cnn", 2000)
    return run.path, folder / "digit.png", folder / "bare", folder / "digits.npz"


def commands(folder: Path) -> dict[str, list[str]]:
    run, picture, weights, digits = prepare(folder)
    python, command = sys.executable, [sys.executable, "-m", "zhixing"]
    return {
        "python": [python, "-c", "pass"],
        "help": [*command, "--help"],
        "import": [python, "-c", "import zhixing"],
        "import_torch": [python, "-c", "import torch"],
        "bare_prediction": [python, "-c", BARE, str(weights), str(picture)],
        "prediction": [*command, "predict", str(run), str(picture)],
        "bare_training": [python, "-c", BARE_TRAINING, str(digits)],
        "training": [*command, "train", str(digits), "--encoder", "cnn", "--epochs", "1"],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asked = commands(Path(folder))
        took: dict[str, list[float]] = {name: [] for name in asked}
        for _ in range(arguments.rounds + 1):
            for name, command in asked.items():
                began = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True, cwd=folder)
                took[name].append(time.perf_counter() - began)
    found: dict[str, object] = {"rounds": arguments.rounds}
    for name, seconds in took.items():
        kept = seconds[1:]  # the first warms the disk's cache
        found[name] = {
            "seconds": round(statistics.median(kept), 3),
            "spread": [round(min(kept), 3), round(max(kept), 3)],
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
