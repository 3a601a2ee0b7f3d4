"""Seconds of the whole process to a stated accuracy: recipes of Zhixing beside the textbook Keras program.

Ours is ``zhixing train`` with a recipe that comes with it. Its learning rate goes down by the end of the last epoch, so
that their number is to be known: it is the least of 1, 2, 3, 4, 6, 8, 12, … with which validation rows reach the
accuracy, found beforehand with another seed, in ``choosing_seconds``, which are not counted. Keras trains with a
constant rate and stops after the first epoch in which its validation rows reach it, 15 at most; that it knows the
target is to its advantage. Rows for testing are read once, after that. Each starts cold: nothing that it could have
stored before is there.

``reached`` is how many seeds have the accuracy on the rows for validation, ``holds`` on those for testing;
``to_accuracy`` the median of ``seconds`` where all reached it.

    python -m benchmarks.time_to_accuracy [--target mnist-0.990 …] [--beside keras-tensorflow-cnn …] [--seeds 3]
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
from typing import Any, NamedTuple

import numpy as np

from zhixing.data.source import open_source

from .command import trained
from .data import fashion_mnist
from .peers.environments import HERE, PEERS, interpreter, versions
from .registry import DOWNLOADS


class Target(NamedTuple):
    """A data set of the catalogue, the recipe for it, the accuracy, and the numbers of epochs to choose from."""

    data: str
    recipe: str
    accuracy: float
    epochs: tuple[int, ...]


TARGETS = {
    "mnist-0.990": Target("mnist", "mnist-cnn", 0.990, (1, 2, 3, 4, 6, 8)),
    "mnist-0.994": Target("mnist", "mnist-cnn", 0.994, (4, 6, 8, 12, 16, 24)),
    "fashion-0.93": Target("fashion-mnist", "fashion-mnist-cnn", 0.930, (8, 12, 16, 20, 24)),
}
BESIDE = {
    f"{peer}-{network}": (peer, network)
    for peer in ("keras-tensorflow", "keras-jax")
    for network in ("cnn", "convnet", "mlp")
}
Figures = dict[str, Any]


def ours(target: Target, epochs: int, seed: int) -> Figures:
    """One training, with nothing stored from an earlier one."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ZHIXING_CACHE"] = str(Path(folder) / "cache")
        run = Path(folder) / "run"
        metrics, seconds = trained(f"{target.data} --recipe {target.recipe} --epochs {epochs} --seed {seed}", run)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    seen = [line["metrics"]["label"]["accuracy"] for line in lines if line["kind"] == "validation"]
    return {"epochs": epochs, "validation": max(seen), "reached": max(seen) >= target.accuracy,
            "test": metrics["label"]["accuracy"], "seconds": seconds}  # fmt: skip


def theirs(target: Target, path: Path, name: str, seed: int) -> Figures:
    peer, network = BESIDE[name]
    _, environment, _, settings = PEERS[peer]
    program = [str(interpreter(environment)), str(HERE / "accuracy_keras.py")]
    started = time.perf_counter()
    done = subprocess.run(
        [*program, str(path), network, str(target.accuracy), str(seed)],
        stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **settings},
    )  # fmt: skip
    seconds = time.perf_counter() - started
    return {**json.loads(done.stdout.splitlines()[-1]), "seconds": seconds}


def arrays(data: str, path: Path) -> None:
    """The pictures and classes of a data set as Keras's own loader gives them."""
    table = open_source(data)
    pictures = np.concatenate([chunk.to_numpy_ndarray() for chunk in table["image"].chunks]).reshape(-1, 28, 28)
    names = table["label"].to_pylist()
    labels = np.unique(names, return_inverse=True)[1]
    assert table.split_column is not None
    split = np.asarray(table.data[table.split_column].to_pylist())
    parts = {part: split == part for part in ("train", "test")}
    out = {f"image_{part}": pictures[some] for part, some in parts.items()}
    np.savez(path, **out, **{f"label_{part}": labels[some] for part, some in parts.items()})


def choose(target: Target, seed: int = 1000) -> tuple[int, float]:
    """The least number of epochs that is enough on validation rows, else the greatest; and what it took to find it."""
    spent = 0.0
    for epochs in target.epochs:
        found = ours(target, epochs, seed)
        spent += found["seconds"]
        if found["reached"]:
            break
    return epochs, spent


def summary(runs: list[Figures], accuracy: float) -> Figures:
    seconds = sorted(one["seconds"] for one in runs)
    everyone = all(one["reached"] for one in runs)
    return {
        "to_accuracy": round(statistics.median(seconds), 1) if everyone else None,
        "seconds": round(statistics.median(seconds), 1),
        "spread": [round(seconds[0], 1), round(seconds[-1], 1)],
        "epochs": [one["epochs"] for one in runs],
        "validation": [round(one["validation"], 4) for one in runs],
        "test": [round(one["test"], 4) for one in runs],
        "reached": sum(one["reached"] for one in runs),
        "holds": sum(one["test"] >= accuracy for one in runs),
    }


def compare(name: str, beside: list[str], seeds: int, epochs: int | None) -> Figures:
    target, spent = TARGETS[name], 0.0
    if epochs is None:
        epochs, spent = choose(target)
    runs: dict[str, list[Figures]] = {"zhixing": [], **{one: [] for one in beside}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pictures.npz"
        arrays(target.data, path)
        for seed in range(seeds):
            for one, done in runs.items():
                done.append(ours(target, epochs, seed) if one == "zhixing" else theirs(target, path, one, seed))
    return {
        "target": name,
        "accuracy": target.accuracy,
        "command": f"zhixing train {target.data} --recipe {target.recipe} --epochs {epochs}",
        "choosing_seconds": round(spent, 1),
        "seeds": seeds,
        **{one: summary(done, target.accuracy) for one, done in runs.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", nargs="+", choices=TARGETS, default=list(TARGETS))
    default = ["keras-tensorflow-cnn", "keras-tensorflow-convnet", "keras-jax-cnn"]
    parser.add_argument("--beside", nargs="*", choices=BESIDE, default=default)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="of ours, where they were chosen before")
    given = parser.parse_args()
    os.environ.setdefault("ZHIXING_DATA", str(DOWNLOADS))
    fashion_mnist()
    told = {peer: versions(PEERS[peer].environment) for peer in sorted({BESIDE[one][0] for one in given.beside})}
    for name in given.target:
        print(json.dumps({"versions": told, **compare(name, given.beside, given.seeds, given.epochs)}), flush=True)


if __name__ == "__main__":
    main()
