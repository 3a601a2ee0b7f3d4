"""The textbook programs of sequences: one command or a few lines each, and what they reach.

python -m benchmarks.sequences [--only lstm-mnist forecast copy reverse vowels motions]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import zhixing as zx

from .data import series


def lstm_mnist(folder: str) -> dict[str, Any]:
    """Two LSTM(64) on each other read a digit row by row."""
    run = zx.train(
        "mnist", encoder={"name": "lstm", "width": 64, "layers": 2}, epochs=5, batch_size=64, lr=0.003, out=folder
    )
    return {"accuracy": run.evaluate()["label"]["accuracy"], "least": 0.975}


def forecast(folder: str) -> dict[str, Any]:
    """A recurrent regressor, 50 units over the last 10 months of the Southern Oscillation's sea temperature, says the
    next; beside the last value and the same month of the year before. The last fifth of the months is for testing."""
    from statsmodels.datasets import elnino

    table = elnino.load_pandas().data.set_index("YEAR")
    values = table.to_numpy().ravel()  # month after month, 1950 to 2010
    log = {"month": np.arange(len(values)), "temperature": values}
    raw = {
        "data": {
            "reshape": {"name": "windows", "time": "month", "values": ["temperature"], "past": 10, "future": 1},
            "others": "unused",
        },
        "inputs": {"past": {"type": "series", "encoder": {"name": "rnn", "width": 50}}},
        "outputs": {"future": {"type": "series"}},
        "training": {"epochs": 200, "batch_size": 32, "optimizer": {"name": "adamw", "lr": 0.003}},
    }
    run = zx.train(log, recipe=raw, out=folder)
    rmse = run.evaluate()["future"]["rmse"]
    start = len(values) - test_rows(folder)
    test = np.arange(start, len(values))
    naive = float(np.sqrt(np.mean((values[test] - values[test - 1]) ** 2)))
    seasonal = float(np.sqrt(np.mean((values[test] - values[test - 12]) ** 2)))
    return {"rmse": rmse, "rmse_of_last_value": naive, "rmse_of_same_month": seasonal, "test_months": len(test)}


def test_rows(folder: str) -> int:
    return int(json.loads((Path(folder) / "evaluation.json").read_text("utf-8"))["rows"])


def strings(task: Callable[[str], str], folder: str) -> dict[str, Any]:
    """A Transformer learns to write 30 letters that it never saw in this order."""
    rng = np.random.default_rng(0)
    texts = ["".join(letters) for letters in rng.choice(list("abcdefghijklmnopqrstuvwxyz"), (22_000, 30))]
    parts = ["train"] * 20_000 + ["validation"] * 1_000 + ["test"] * 1_000
    table = {"given": texts, "written": [task(text) for text in texts], "split": parts}
    model = {"name": "transformer", "width": 64, "depth": 2, "heads": 4}
    raw = {
        "inputs": {"given": {"type": "text", "tokenizer": "character", "encoder": model}},
        "outputs": {"written": {"type": "text", "tokenizer": "character", "decoder": {**model, "dropout": 0.0}}},
        "training": {"epochs": 5, "batch_size": 64, "optimizer": {"name": "adamw", "lr": 0.003}, "clip": 1.0},
    }
    run = zx.train(table, recipe=raw, out=folder)
    return {"exact": run.evaluate()["written"]["exact"], "least": 0.99}


def copy(folder: str) -> dict[str, Any]:
    return strings(lambda text: text, folder)


def reverse(folder: str) -> dict[str, Any]:
    return strings(lambda text: text[::-1], folder)


def classified(name: str, encoder: dict[str, Any], least: float | None, folder: str, epochs: int) -> dict[str, Any]:
    run = zx.train(
        str(series(name)), target="label", encoder=encoder, epochs=epochs, batch_size=16, lr=0.003, out=folder,
        settings=["data.split={train: 0.9, validation: 0, test: 0.1}"],
    )  # fmt: skip
    return {"accuracy": run.evaluate()["label"]["accuracy"], "rows": test_rows(folder), "least": least}


PROGRAMS: dict[str, Callable[[str], dict[str, Any]]] = {
    "lstm-mnist": lstm_mnist,
    "forecast": forecast,
    "copy": copy,
    "reverse": reverse,
    "vowels-gru": lambda folder: classified(
        "JapaneseVowels", {"name": "gru", "bidirectional": True, "dropout": 0.3}, 0.97, folder, 60
    ),
    "vowels-transformer": lambda folder: classified(
        "JapaneseVowels", {"name": "transformer", "width": 64, "dropout": 0.2}, 0.96, folder, 60
    ),
    "motions-gru": lambda folder: classified("BasicMotions", {"name": "gru"}, 1.0, folder, 60),
    "motions-transformer": lambda folder: classified(
        "BasicMotions", {"name": "transformer", "width": 64, "dropout": 0.1}, None, folder, 60
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    given = parser.parse_args()
    for name in given.only:
        with tempfile.TemporaryDirectory() as scratch:
            started = time.perf_counter()
            found = PROGRAMS[name](f"{scratch}/run")
            seconds = round(time.perf_counter() - started, 1)
        rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}
        print(json.dumps({"program": name, **rounded, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
