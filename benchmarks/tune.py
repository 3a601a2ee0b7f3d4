"""Tuning against random search and the built-in default, at equal epochs: ``python -m benchmarks.tune``.

For each data set and seed, `zhixing tune` (Hyperband and TPE) and random search (the same ranges, every trial trained
whole, the default recipe among them as in ours) may train the same number of epochs in all. What each takes for the
best by its validation rows is then trained with fresh seeds, as is the default recipe, and measured on test rows that
neither has seen. Prints a line of JSON for each data set: mean test accuracies over the seeds.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch

from zhixing.tune.search import Ask, tune

from .data import fashion_mnist, series
from .registry import DOWNLOADS

EPOCHS, WHOLE = 9, 6  # of one training; trainings that the budget is worth
RANDOM_SPLIT = {"train": 0.6, "validation": 0.2, "test": 0.2, "by": "stratified"}


def digits(folder: Path) -> dict[str, Any]:
    return {"data": {"source": "digits", "split": RANDOM_SPLIT}}


def fashion(folder: Path) -> dict[str, Any]:
    """A subset, drawn once: 400 pictures to learn from, 200 to choose by, 1,000 of the test set."""
    source, chance = fashion_mnist(), np.random.default_rng(0)
    pixels, labels = [], []
    for part, count in (("train", 600), ("t10k", 1000)):
        images = idx(source / f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
        chosen = chance.permutation(len(images))[:count]
        pixels.append(images[chosen])
        labels.append(idx(source / f"{part}-labels-idx1-ubyte.gz", 8)[chosen].astype(str))
    which = np.repeat(["train", "validation", "test"], [400, 200, 1000])
    path = folder / "fashion.npz"
    np.savez(path, image=np.concatenate(pixels), label=np.concatenate(labels), part=which)
    split = {"by": "column", "column": "part"}
    return {"data": {"source": str(path), "split": split}, "outputs": {"label": {"type": "category"}}}


def idx(path: Path, head: int) -> np.ndarray[Any, Any]:
    return np.frombuffer(gzip.decompress(path.read_bytes())[head:], np.uint8)


def vowels(folder: Path) -> dict[str, Any]:
    """Its own 370 test rows; of the 270 others, three in ten to choose by."""
    return {
        "data": {"source": str(series("JapaneseVowels")), "split": {"train": 0.56, "validation": 0.24, "test": 0.2}}
    }


DATA = {"digits": digits, "fashion": fashion, "vowels": vowels}
RIVALS = {"tune": {"sampler": "tpe", "halving": 3}, "random": {"sampler": "random", "halving": 1}}


def one_seed(raw: dict[str, Any], seed: int, folder: Path, seeds: int) -> dict[str, float]:
    """Test accuracy of what each found, of the default, and the epochs that each took."""
    out: dict[str, float] = {}
    plain = {**raw, "seed": seed, "training": {"epochs": EPOCHS, "threads": 1}}
    for name, how in RIVALS.items():
        ask = Ask(total_epochs=WHOLE * EPOCHS, confirm=seeds, **how)  # type: ignore[arg-type]
        found = tune(plain["data"]["source"], plain, ask, out=folder / f"{name}-{seed}", device="cpu")
        metric = next(iter(found["best"]["values"]))
        out[name] = found["confirm"]["best"][metric]["mean"]
        out[f"{name}_epochs"] = found["epochs"]
        out[f"{name}_trials"] = found["trials"]
        out[f"{name}_validation"] = found["best"]["values"][metric]
        out["default"] = found["confirm"]["default"][metric]["mean"]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description="Tuning, random search and the default at equal epochs.")
    parser.add_argument("--data", choices=list(DATA), nargs="*", default=list(DATA))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--fresh", type=int, default=2, help="seeds that each recipe found is trained with anew")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.setdefault("ZHIXING_DATA", str(DOWNLOADS))
    for name in arguments.data:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            os.environ["ZHIXING_CACHE"] = f"{folder}/cache"
            raw = DATA[name](Path(folder))
            each = [one_seed(raw, seed, Path(folder), arguments.fresh) for seed in range(arguments.seeds)]
        means = {key: round(fmean(one[key] for one in each), 4) for key in each[0]}
        told = {"data": name, "seeds": len(each), "budget_epochs": WHOLE * EPOCHS, **means}
        for rival in ("random", "default"):
            ahead = [one["tune"] - one[rival] for one in each]
            told[f"ahead_of_{rival}"] = round(fmean(ahead), 4)
            told[f"ahead_of_{rival}_deviation"] = round(stdev(ahead), 4) if len(ahead) > 1 else None
            told[f"ahead_of_{rival}_seeds"] = sum(one > 0 for one in ahead)
        print(json.dumps(told | {"seconds": round(time.perf_counter() - began, 1)}), flush=True)


if __name__ == "__main__":
    main()
