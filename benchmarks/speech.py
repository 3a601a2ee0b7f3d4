"""Czech speech to characters by CTC: what a network learns of 200 utterances, and how far that carries.

Characters wrong, missing or added, as a share of the true ones: of the 200 utterances themselves, and of 200 others
from other levels of the game.

    python -m benchmarks.speech [--epochs 80] [--utterances 200] [--set …]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

import zhixing as zx

from .command import trained
from .data import czech_speech


def utterances(count: int, held_out: int = 200) -> Path:
    """``count`` clips for training, 20 for validation, ``held_out`` from other levels for testing; in small letters."""
    source = czech_speech()
    rows = [json.loads(line) for line in source.read_text("utf-8").splitlines()]
    levels = sorted({row["level"] for row in rows})
    order = np.random.default_rng(0).permutation(len(levels))
    place = {levels[level]: rank for rank, level in enumerate(order)}
    rows.sort(key=lambda row: place[row["level"]])  # whole levels, in a random order; stable
    border = rows[-held_out - 20]["level"]
    own = [row for row in rows if place[row["level"]] < place[border]][:count]
    chosen = [(row, "train") for row in own]
    chosen += [(row, "validation") for row in rows[-held_out - 20 : -held_out]]
    chosen += [(row, "test") for row in rows[-held_out:]]
    path = source.with_name(f"split-{count}.jsonl")
    with path.open("w", encoding="utf-8") as out:
        for row, part in chosen:
            text = "".join(letter for letter in row["text"].lower() if letter.isalpha() or letter == " ").strip()
            out.write(json.dumps({"audio": row["audio"], "text": text, "split": part}, ensure_ascii=False) + "\n")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=float, default=80)
    parser.add_argument("--utterances", type=int, default=200)
    parser.add_argument("--set", nargs="*", default=[])
    given = parser.parse_args()
    path = utterances(given.utterances)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        command = f"split.jsonl --target text --recipe speech --epochs {given.epochs:g}"
        metrics, seconds = trained(command, folder, given.set, source=path)
        learned = zx.load(folder).evaluate(part="train")
    line = {
        "command": f"zhixing train {command}",
        "utterances": given.utterances,
        "seconds": round(seconds),
        "cer_of_training": round(learned["text"]["cer"], 4),
        "held_out": {name: round(metrics["text"][name], 4) for name in ("cer", "wer")},
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
