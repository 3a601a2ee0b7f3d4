"""What pretraining without labels is worth where labels are few: the same encoder from scratch and pretrained.

E-mails (subject and body alone): masked tokens on the unlabelled training e-mails of benchmarks/emails.py, then 200 of
them with labels; the test is all of its test part. Fashion-MNIST: two views of each of the 60,000 training pictures,
then 500 with labels; the test is the published one. Each of the two is `zhixing pretrain` and `zhixing train`, in
processes of their own. A seed draws the labelled rows, the weights and the order; test rows are never pretrained on.
Settings were chosen with --rows validation, which measures on rows of the training part that nothing else sees.

    OMP_NUM_THREADS=1 python -m benchmarks.pretrain [--tasks emails photos] [--seeds 3] [--rows test]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from zhixing.data.source_idx import read_idx_array

from .data import fashion_mnist
from .emails import emails
from .fine_tune import as_it_came


class Task(NamedTuple):
    """How a task's tables are made, and the settings of its trainings."""

    tables: Callable[[Path, str, int], tuple[Path, Path]]  # without labels; with few, and what is measured on
    column: str
    encoder: str  # in full, for both
    data: list[str]  # settings of the column, for both
    pretrain: list[str]
    train: list[str]


def drawn(labels: list[Any], places: list[int], count: int, seed: int) -> list[int]:
    """``count`` of these rows in proportion of the classes."""
    random, kept = np.random.default_rng(seed), list[int]()
    for name in sorted(set(labels)):
        own = [place for place in places if labels[place] == name]
        kept += random.choice(own, round(count * len(own) / len(places)), replace=False).tolist()
    return sorted(kept)


def email_tables(folder: Path, part: str, seed: int) -> tuple[Path, Path]:
    rows = [{**row, "text": as_it_came(row["text"])} for row in emails()[1]]
    if part == "validation":  # which are few: every fourth training row is one more
        rows = [{**row, "split": part} if row["split"] == "train" and n % 4 == 1 else row for n, row in enumerate(rows)]
    known = [place for place, row in enumerate(rows) if row["split"] == "train"]
    few = drawn([row["label"] for row in rows], known, 200, seed)
    plain = [{"text": rows[place]["text"], "split": "validation" if place % 20 == 0 else "train"} for place in known]
    labelled = [{**rows[place], "split": "train"} for place in few]
    labelled += [{**row, "split": "test"} for row in rows if row["split"] == part]
    for name, table in (("unlabelled", plain), ("labelled", labelled)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table), "utf-8")
    return folder / "unlabelled.jsonl", folder / "labelled.jsonl"


def photo_tables(folder: Path, part: str, seed: int) -> tuple[Path, Path]:
    def read(name: str) -> list[Any]:
        return [read_idx_array(fashion_mnist() / f"{name}-{what}-ubyte.gz") for what in ("images-idx3", "labels-idx1")]

    pictures, labels = read("train")
    first = 50_000 if part == "validation" else 60_000  # the others are what is measured on while settings are chosen
    few = drawn(labels.tolist(), list(range(first)), 500, seed)
    seen = (pictures[first:], labels[first:]) if part == "validation" else read("t10k")
    np.savez(folder / "unlabelled.npz", photo_train=pictures[500:first], photo_validation=pictures[:500])
    np.savez(
        folder / "labelled.npz",
        photo_train=pictures[few],
        label_train=labels[few],
        photo_test=seen[0],
        label_test=seen[1],
    )
    return folder / "unlabelled.npz", folder / "labelled.npz"


MACHINE = ("training.threads=1", "training.precision=fp32")
TASKS = {
    "emails": Task(
        email_tables,
        "text",
        "{name: transformer, width: 64, depth: 2, dropout: 0.1}",
        ["inputs.text.type=text", "inputs.text.length=96", "inputs.text.vocabulary=4000"],
        ["training={epochs: 12, batch_size: 32}", "training.optimizer.lr=3e-3"],
        ["training={epochs: 15, batch_size: 16, keep: last}", "training.optimizer.lr=1e-3"],
    ),
    "photos": Task(
        photo_tables,
        "photo",
        "{name: cnn, layers: [32, pool, 64, pool, 128], batch_norm: true, dense: [128]}",
        ["inputs.photo.type=image"],
        ["training={epochs: 2, batch_size: 256}", "training.optimizer.lr=3e-3", *(
            f"outputs.pretext.{name}" for name in ("crop=0.5", "rotate=10", "colour=0.5")
        )],
        ["training={epochs: 30, batch_size: 32, keep: last}", "training.optimizer.lr=1e-3"],
    ),
}  # fmt: skip


def zhixing(*words: str) -> tuple[Any, float]:
    """The JSON of a command, and the seconds of its process."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "zhixing", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1]), time.perf_counter() - began


def measured(task: Task, part: str, seed: int, folder: Path, kinds: list[str]) -> dict[str, Any]:
    """Accuracy from scratch and from the pretrained encoder, with one seed."""
    plain, labelled = task.tables(folder, part, seed)
    out: dict[str, Any] = {}
    place = f"inputs.{task.column}.encoder"
    common = ["--seed", str(seed), "--device", "cpu", "--json", "--set", *task.data]
    if "pretrained" in kinds:
        words = ["pretrain", str(plain), "--column", task.column, "--out", str(folder / "base")]
        told, seconds = zhixing(*words, *common, f"{place}={task.encoder}", *task.pretrain, *MACHINE)
        out |= {"pretraining": told["metrics"]["pretext"], "pretraining_seconds": round(seconds)}
    for kind in kinds:
        encoder = task.encoder if kind == "scratch" else folder / "base"
        words = ["train", str(labelled), "--target", "label", "--out", str(folder / kind), *common, *task.train]
        split = "data.split={train: 0.9, validation: 0, test: 0.1}"
        told, seconds = zhixing(*words, f"{place}={encoder}", split, *MACHINE)
        out |= {kind: round(told["metrics"]["label"]["accuracy"], 4), f"{kind}_seconds": round(seconds)}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--kinds", nargs="+", choices=["scratch", "pretrained"], default=["scratch", "pretrained"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", choices=["test", "validation"], default="test")
    given = parser.parse_args()
    for name in given.tasks:
        lines = []
        for seed in range(given.seeds):
            with tempfile.TemporaryDirectory() as scratch:
                lines.append(measured(TASKS[name], given.rows, seed, Path(scratch), given.kinds))
            print(json.dumps({"task": name, "rows": given.rows, "seed": seed, **lines[-1]}), flush=True)
        means = {f"mean_{kind}": round(float(np.mean([line[kind] for line in lines])), 4) for kind in given.kinds}
        print(json.dumps({"task": name, "rows": given.rows, "seeds": given.seeds, **means}), flush=True)


if __name__ == "__main__":
    main()
