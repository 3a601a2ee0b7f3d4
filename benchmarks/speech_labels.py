"""Spoken words as classes: the speech command with another column to predict, and with another table.

``speaker``: which of two voices speaks a Czech utterance (1,303 clips, named so in their files). ``word``: which of the
six commonest words an utterance begins with. Levels of the game that are tested are not trained on. Beside the share of
the commonest class.

    python -m benchmarks.speech_labels [--set training.epochs=20 …]
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from .command import trained
from .data import czech_speech

WORDS = 6


def clips() -> dict[str, list[dict[str, str]]]:
    """By task: rows of a clip, its label and its split."""
    rows = [json.loads(line) for line in czech_speech().read_text("utf-8").splitlines()]
    levels = sorted({row["level"] for row in rows})
    order = np.random.default_rng(0).permutation(len(levels))
    parts = {levels[level]: rank / len(levels) for rank, level in enumerate(order)}
    out: dict[str, list[dict[str, str]]] = {"speaker": [], "word": []}
    for row in rows:
        part = "train" if (place := parts[row["level"]]) < 0.7 else "validation" if place < 0.8 else "test"
        voice = re.search(r"-([mv])-", row["audio"])
        words = re.findall(r"\w+", row["text"].lower())
        labels = {"speaker": voice[1] if voice else None, "word": words[0] if words else None}
        for task, label in labels.items():
            if label is not None:
                out[task].append({"audio": row["audio"], "label": label, "split": part})
    common = {word for word, _ in Counter(row["label"] for row in out["word"]).most_common(WORDS)}
    out["word"] = [row for row in out["word"] if row["label"] in common]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="*", default=["speaker", "word"])
    parser.add_argument("--set", nargs="*", default=[])
    given = parser.parse_args()
    for task, rows in clips().items():
        if task not in given.task:
            continue
        path = czech_speech().with_name(f"{task}.jsonl")
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
        with tempfile.TemporaryDirectory() as scratch:
            command = f"{task}.jsonl --target label --epochs 15 --batch-size 16"
            metrics, seconds = trained(command, Path(scratch) / "run", given.set, source=path)
        tested = [row["label"] for row in rows if row["split"] == "test"]
        line = {
            "command": f"zhixing train {command}",
            "clips": len(rows),
            "tested": len(tested),
            "seconds": round(seconds),
            "accuracy": round(metrics["label"]["accuracy"], 4),
            "commonest_class": round(Counter(tested).most_common(1)[0][1] / len(tested), 4),
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
