"""Zhixing as a person starts it from Python, with no setting touched but those that every peer is given."""

from __future__ import annotations

import json
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from protocol import job, tell

import zhixing as zx

ENCODERS = {
    "mlp": {"name": "mlp", "widths": [64, 64]},
    "cnn": {"name": "cnn", "layers": [32, "pool", 64, "pool", 64], "dense": [64]},
    "lstm": {"name": "lstm", "width": 64, "layers": 2},
    "transformer2": {"name": "transformer", "width": 128, "depth": 2, "heads": 4},
    "transformer6": {"name": "transformer", "width": 256, "depth": 6, "heads": 4},
    "resnet18": {"name": "resnet18"},
}
DECODER = {
    "name": "transformer", "width": 384, "depth": 6, "heads": 6, "positions": "learned", "feed_forward": "gelu_tanh",
    "dropout": 0.0,
}  # fmt: skip


def columns(workload: str) -> dict[str, Any]:
    """Which columns are read and which are predicted."""
    if workload == "gpt":
        return {"outputs": {"text": {"type": "text", "tokenizer": "byte", "length": 256, "decoder": DECODER}}}
    return {
        "inputs": {"image": {"type": "image", "encoder": ENCODERS[workload]}},
        "outputs": {"label": {"type": "category"}},
    }


def speed_of(lines: list[dict[str, Any]], epochs: int) -> float:
    """Rows a second of the log's lines that begin after the first epoch, in which things are warmed up. Each line is
    of the steps since the line before, without validation."""
    first = lines[-1]["step"] / epochs
    spans = [
        (line["step"] - before["step"], line["rows_per_second"])
        for before, line in pairwise(lines)
        if before["step"] >= first
    ]
    return sum(steps for steps, _ in spans) / sum(steps / speed for steps, speed in spans)


def main() -> None:
    given = job()
    raw = {
        **columns(given.workload),
        "training": {
            "epochs": given.epochs, "batch_size": given.batch, "optimizer": {"name": "adam", "lr": 1e-3},
            "schedule": {"name": "constant"},
        },
        "seed": given.seed,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run = zx.train(given.data, recipe=raw, out=Path(folder) / "run", quiet=True)
        lines = [json.loads(line) for line in (run.path / "timings.jsonl").read_text("utf-8").splitlines()]
        outputs = json.loads((run.path / "evaluation.json").read_text("utf-8"))["outputs"]
        size = json.loads((run.path / "environment.json").read_text("utf-8"))["parameters"]
    figures = next(iter(outputs.values()))["metrics"]
    accuracy = figures["token_accuracy"] if given.workload == "gpt" else figures["accuracy"]
    tell(speed_of(lines, given.epochs), accuracy, size)


if __name__ == "__main__":
    main()
