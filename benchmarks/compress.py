"""How much faster compressed models are at batch 1 on one thread than eager float32, and what they lose.

Trains a convolutional network, an LSTM over rows and a Transformer over rows on MNIST, and a Transformer that reads
e-mails; then `zhixing compress` of each with its defaults. Rows are held out: the form is chosen on validation rows,
points lost are of test rows. At least 3 times faster with no more than half a point lost is what is asked for.

    python -m benchmarks.compress [--only cnn lstm transformer emails] [--smaller] [--rounds 9]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .command import trained
from .data import spam
from .registry import DOWNLOADS

ROWS = {
    "cnn": "mnist --recipe mnist-cnn --epochs 3",
    "lstm": "mnist --encoder lstm --epochs 4 --batch-size 64 --lr 0.003",
    "transformer": "mnist --encoder transformer --epochs 4",
    "emails": "emails.jsonl --target label --encoder transformer --epochs 4 --batch-size 32",
}
MORE = {"emails": ["inputs.text.length=256", "inputs.text.tokenizer=bpe", "inputs.text.vocabulary=8000"]}
FORMS = "bf16,torchao_int8,onnx,onnx_dynamic,onnx_static,openvino,openvino_bf16,openvino_int8"
FASTER, LOST = 3.0, 0.005


def compressed(run: Path, methods: str, rounds: int) -> tuple[dict[str, Any], float]:
    """What `zhixing compress` tells of a run, and its seconds."""
    command = [sys.executable, "-m", "zhixing", "compress", str(run), "--json", "--max-drop", str(LOST)]
    command += ["--methods", methods, "--rounds", str(rounds)]
    environment = {**os.environ, "ZHIXING_DATA": str(DOWNLOADS), "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed")
    return json.loads(done.stdout.splitlines()[-1]), time.perf_counter() - started


def line_of(name: str, told: dict[str, Any], seconds: float, training: float) -> dict[str, Any]:
    original = told["candidates"][0]
    chosen = next(one for one in told["candidates"] if one["name"] == told["chosen"])
    faster = original["latency_seconds"] / chosen["latency_seconds"]
    lowest = original["latency_spread"][0] / chosen["latency_spread"][1]
    return {
        "model": name,
        "command": f"zhixing train {ROWS[name]}",
        "chosen": chosen["name"],
        "faster": round(faster, 2),
        "faster_at_worst": round(lowest, 2),
        "milliseconds": [round(one["latency_seconds"] * 1e3, 4) for one in (original, chosen)],
        "megabytes": [round(one["bytes"] / 1e6, 3) for one in (original, chosen)],
        "resident_megabytes": [round(one["memory_bytes"] / 1e6, 1) for one in (original, chosen)],
        "rows_per_second": [round(one["throughput_rows_per_second"]) for one in (original, chosen)],
        "lost_on_validation": round(chosen["drop"], 5),
        "test": told["test"],
        "held": faster >= FASTER and told["test"]["drop"] <= LOST,
        "candidates": [
            {"name": one["name"], "not_measured": one["not_measured"]}
            if one["not_measured"]
            else {
                "name": one["name"],
                "faster": round(original["latency_seconds"] / one["latency_seconds"], 2),
                "lost": round(one["drop"], 5),
            }
            for one in told["candidates"]
        ],
        "seconds": {"training": round(training), "compressing": round(seconds)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--smaller", action="store_true", help="also low-rank factors, pruning and distillation")
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    methods = FORMS + (",low_rank,prune,distil" if given.smaller else "")
    for name in given.only:
        with tempfile.TemporaryDirectory() as scratch:
            run = Path(scratch) / "run"
            source = spam() if name == "emails" else None
            _, training = trained(ROWS[name], run, ["training.threads=1", *MORE.get(name, [])], source=source)
            told, seconds = compressed(run, methods, given.rounds)
        print(json.dumps(line_of(name, told, seconds, training)), flush=True)


if __name__ == "__main__":
    main()
