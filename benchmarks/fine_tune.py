"""Spam or not from 500 labelled e-mails: MiniLM fine-tuned whole, by LoRA (on queries and values as is the default, and
on all linear layers of its blocks), and the same network from random weights, with MiniLM's tokenizer.

Rows are what a person reads, subject and visible text: no headers, which tell where a message was collected, and no
markup, which alone tells most spam of those years. ``--raw`` leaves the body as it came, with markup. The 500, in
proportion of the classes, are drawn from the training part of benchmarks/emails.py; the test is all of its test part, a
fifth of the 6,046, of which nothing that repeats or nearly repeats a message is trained on. Each training is `zhixing
train` in a process of its own; its memory is the most that the process held. From scratch gets more epochs.

    OMP_NUM_THREADS=1 python -m benchmarks.fine_tune [--seeds 1] [--length 128] [--kinds full lora_all]
    OMP_NUM_THREADS=1 python -m benchmarks.fine_tune --rows validation --kinds lora --set training.optimizer.lr=1e-3
"""

from __future__ import annotations

import argparse
import email
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from email.message import Message
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from .data import minilm
from .emails import emails, tf_idf

ROWS = 500
SUBJECT = re.compile(r"^Subject:[ \t]*(.*(?:\n[ \t].*)*)", re.MULTILINE | re.IGNORECASE)
KINDS = {
    "scratch": ["training.optimizer.lr=5e-4", "training.epochs=5"],
    "full": ["training.fine_tuning=full", "training.optimizer.lr=2e-4"],
    "lora": ["training.fine_tuning=lora"],
    "lora_all": ["training.fine_tuning={name: lora, targets: all, rank: 16, alpha: 32}"],
}


def table(
    folder: Path, part: str, cleaned: Callable[[str], str], labelled: int = ROWS
) -> tuple[Path, list[dict[str, str]]]:
    """So many training rows and all test rows (or those of another part in their place), cleaned."""
    rows = [{**row, "split": "test" if row["split"] == part else row["split"]} for row in emails()[1]
            if row["split"] in ("train", part)]  # fmt: skip
    random, kept = np.random.default_rng(0), list[int]()
    places = {label: [n for n, row in enumerate(rows) if row["split"] == "train" and row["label"] == label]
              for label in ("ham", "spam")}  # fmt: skip
    total = sum(map(len, places.values()))
    spam = round(labelled * len(places["spam"]) / total)
    for label, count in (("ham", labelled - spam), ("spam", spam)):
        kept += random.choice(places[label], count, replace=False).tolist()
    chosen = [rows[n] for n in sorted(kept)] + [row for row in rows if row["split"] == "test"]
    rows = [{**row, "text": cleaned(row["text"])} for row in chosen]
    path = folder / "emails.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path, rows


class Visible(HTMLParser):
    """The words of a page, without markup, scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.hidden = list[str](), 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.hidden += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self.hidden = max(0, self.hidden - (tag in ("script", "style")))

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.words += data.split()


def as_read(text: str) -> str:
    """The subject, and the plain text of a message, or else the words of its pages."""
    message = email.message_from_string(text)
    plain, pages = list[str](), list[str]()
    for part in message.walk():
        if part.get_content_maintype() != "text":
            continue
        body = content(part)
        (pages if part.get_content_subtype() == "html" or "</html>" in body.lower() else plain).append(body)
    body = " ".join(" ".join(plain).split())
    return f"{subject(text)}\n{body or ' '.join(word for page in pages for word in visible(page))}"


def content(part: Message) -> str:
    """What a part says: rows hold decoded text, but for base64 and quoted-printable."""
    if str(part.get("Content-Transfer-Encoding", "")).strip().lower() not in ("base64", "quoted-printable"):
        return str(part.get_payload())
    said = part.get_payload(decode=True)
    assert isinstance(said, bytes)
    try:
        return said.decode(part.get_content_charset() or "utf-8", "replace")
    except LookupError:  # a character set that there is not
        return said.decode("latin-1")


def visible(page: str) -> list[str]:
    parser = Visible()
    parser.feed(page)
    parser.close()
    return parser.words


def subject(text: str) -> str:
    found = SUBJECT.search(text.partition("\n\n")[0])
    return " ".join(found[1].split()) if found else ""


def as_it_came(text: str) -> str:
    body = text.partition("\n\n")[2]
    return f"{subject(text)}\n{body}"


def from_random(folder: Path, seed: int) -> Path:
    """MiniLM's folder with weights as BERT's start: normal with deviation 0.02, norms 1, biases 0."""
    shutil.copytree(minilm(), folder)
    generator = torch.Generator().manual_seed(seed)
    weights = load_file(folder / "model.safetensors")
    for name, tensor in weights.items():
        if not tensor.is_floating_point():
            continue
        if name.endswith(".bias"):
            tensor.zero_()
        elif "LayerNorm" in name:
            tensor.fill_(1.0)
        else:
            tensor.normal_(0.0, 0.02, generator=generator)
    save_file(weights, folder / "model.safetensors")
    return folder


def trained(source: Path, out: Path, seed: int, settings: list[str]) -> tuple[Any, float]:
    """Test metrics and seconds of `zhixing train` in a process whose record of its largest size begins at nothing: the
    one that a process begins with is its parent's, so that a shell, which is small, stands between."""
    command = [sys.executable, "-m", "zhixing", "train", str(source), "--target", "label", "--seed", str(seed)]
    command += ["--device", "cpu", "--out", str(out), "--json", "--set", *settings]
    started = time.perf_counter()
    done = subprocess.run(["sh", "-c", '"$@"; exit $?', "sh", *command], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])["metrics"], time.perf_counter() - started


def one(kind: str, seed: int, source: Path, length: int, more: list[str], scratch: Path) -> dict[str, Any]:
    base = from_random(scratch / f"random-{seed}", seed) if kind == "scratch" else minilm()
    out = scratch / f"{kind}-{seed}"
    settings = [
        "data.split={train: 0.9, validation: 0, test: 0.1}",
        f"inputs.text={{encoder: {base}, length: {length}}}",
        "training={batch_size: 8, epochs: 3, threads: 1, keep: last}",
        *KINDS[kind],
        *more,
    ]
    metrics, seconds = trained(source, out, seed, settings)
    facts = {name: json.loads((out / f"{name}.json").read_text("utf-8")) for name in ("environment", "estimate")}
    tuned = facts["environment"].get("fine_tuning")
    adapter = out / "adapter.safetensors"
    return {
        "kind": kind,
        "seed": seed,
        "accuracy": round(metrics["label"]["accuracy"], 4),
        "auroc": round(metrics["label"]["auroc"], 4),
        "learns": tuned["learns"] if tuned else facts["environment"]["parameters"],
        "share_that_learns": round(tuned["share"], 5) if tuned else 1.0,
        "tensors_mb": round(sum(part["now"] for part in tuned["bytes"].values()) / 1e6, 1) if tuned else None,
        "peak_mb": round(facts["estimate"]["came"]["peak_bytes"] / 1e6),
        "adapter_mb": round(adapter.stat().st_size / 1e6, 2) if adapter.exists() else None,
        "seconds": round(seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=["full", "lora", "lora_all", "scratch"])
    parser.add_argument(
        "--rows", choices=["test", "validation"], default="test", help="settings are chosen on the latter"
    )
    parser.add_argument("--labelled", type=int, default=ROWS, metavar="N", help="training rows")
    parser.add_argument("--raw", action="store_true", help="bodies as they came, with their markup")
    parser.add_argument("--set", nargs="+", default=[], metavar="A.B=C", help="settings in place of those of the kinds")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        source, rows = table(Path(scratch), given.rows, as_it_came if given.raw else as_read, given.labelled)
        test = [row["label"] for row in rows if row["split"] == "test"]
        told = {"train_rows": len(rows) - len(test), "test_rows": len(test), "length": given.length, "raw": given.raw}
        told["largest_class"] = round(max(test.count(label) for label in set(test)) / len(test), 4)
        told |= {"kind": "TF-IDF, logistic regression, whole texts", "accuracy": round(tf_idf(rows), 4)}
        print(json.dumps(told), flush=True)
        for seed in range(given.seeds):
            for kind in given.kinds:
                print(json.dumps(one(kind, seed, source, given.length, given.set, Path(scratch))), flush=True)


if __name__ == "__main__":
    main()
