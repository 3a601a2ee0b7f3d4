"""Calibration on MNIST and the e-mails: the calibration error before and after, and how often sets hold the truth.

Temperature and sets are fitted on validation rows and measured on test rows, as every run does. The coverage that is
asked is 90 %. With n rows to fit on and m to measure, a share of 0.9 is known to sqrt(0.09 (1 / n + 1 / m)), which
stands beside it: half a point for MNIST, a point for the e-mails. So the mean over seeds counts, each of which divides
the rows anew (but for MNIST's own test rows) and trains anew.

    python -m benchmarks.calibration [--only mnist emails] [--seeds 3]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

from .command import trained
from .data import spam

COMMANDS = {
    "mnist": "mnist --encoder mlp --epochs 3",
    "emails": "emails.jsonl --target label --epochs 8 --lr 0.01 --encoder bag --set inputs.text.tokenizer=word "
    "inputs.text.length=512 data.split.train=0.5 data.split.validation=0.25 data.split.test=0.25",
}
SOURCES = {"mnist": lambda: None, "emails": spam}


def one(name: str, seed: int) -> dict[str, Any]:
    words, _, settings = COMMANDS[name].partition(" --set ")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        trained(f"{words} --seed {seed}", folder, settings.split(), source=SOURCES[name]())
        evaluation = json.loads((folder / "evaluation.json").read_text("utf-8"))
    output = evaluation["outputs"]["label"]
    told, rows = output["calibration"], evaluation["rows"]
    spread = math.sqrt(0.09 * (1 / told["calibration_rows"] + 1 / rows))
    line = {"data": name, "seed": seed, "accuracy": round(output["metrics"]["accuracy"], 4)}
    line |= {key: round(told[key], 4) for key in ("temperature", "ece_before", "ece_after")}
    for sets, found in told["sets"].items():
        line |= {f"{sets}_{key}": round(value, 4) for key, value in found.items()}
    return line | {"rows_fitted": told["calibration_rows"], "rows_measured": rows, "standard_error": round(spread, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(COMMANDS), default=list(COMMANDS))
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    for name in given.only:
        found = []
        for seed in range(given.seeds):
            found.append(one(name, seed))
            print(json.dumps(found[-1]), flush=True)
        keys = ("ece_before", "ece_after", "threshold_coverage", "adaptive_coverage")
        means = {key: round(statistics.mean(line[key] for line in found), 4) for key in keys}
        print(json.dumps({"data": name, "asked": 0.9, "seeds": given.seeds, "mean": means}), flush=True)


if __name__ == "__main__":
    main()
