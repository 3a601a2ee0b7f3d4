"""What `zhixing estimate` says before training, beside what training then takes: recipes of all four families.

Each is estimated in one process and trained in another, whose peak memory and time are those of the whole process as
the system counts them. Beside the time of the clock stands that of the processor, which hardly depends on what else the
machine does. With --large, a language model of 7 billion parameters is estimated alone.

    python -m benchmarks.estimate [--only NAME …] [--large]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .data import DOWNLOADS, movielens, photo_patches, series, spam

SMALL = "training.threads=1 training.checkpoint_every=1000000"
RECIPES: dict[str, tuple[str, str]] = {  # name: family and what follows the verb
    "mnist perceptron": ("perceptron", "mnist --encoder mlp --epochs 2"),
    "mnist wide perceptron": (
        "perceptron",
        "mnist --epochs 0.5 --set inputs.image.encoder.name=mlp inputs.image.encoder.widths=[2048,2048]",
    ),
    "ratings factorised": ("perceptron", "{ratings} --target rating --epochs 1 --set data.unused=[time]"),
    "photo patches perceptron": ("perceptron", "{patches} --encoder mlp --epochs 3"),
    "mnist convolutions": ("convolutions", "--recipe mnist-cnn --epochs 0.2"),
    "photo patches convolutions": ("convolutions", "{patches} --encoder cnn --epochs 1"),
    "photo patches resnet18": ("convolutions", "{patches} --encoder resnet18 --epochs 0.3"),
    "vowels tcn": ("convolutions", "{vowels} --encoder tcn --epochs 20"),
    "emails text_cnn": ("convolutions", "{emails} --target label --recipe emails --epochs 0.15"),
    "motions gru": ("recurrent", "{motions} --encoder gru --epochs 30"),
    "vowels lstm": ("recurrent", "{vowels} --encoder lstm --epochs 20"),
    "mnist rows rnn": ("recurrent", "mnist --encoder rnn --epochs 0.3"),
    "emails bidirectional gru": (
        "recurrent",
        "{emails} --target label --epochs 0.05 --set inputs.text.tokenizer=word inputs.text.length=128 "
        "inputs.text.encoder.name=gru inputs.text.encoder.bidirectional=true",
    ),
    "vowels transformer": ("transformer", "{vowels} --encoder transformer --epochs 20"),
    "mnist vit": ("transformer", "mnist --encoder vit --epochs 0.1"),
    "emails transformer": (
        "transformer",
        "{emails} --target label --epochs 0.1 --set inputs.text.tokenizer=word inputs.text.length=128",
    ),
    "language model": (
        "transformer",
        "{text} --recipe language-model --set training.tokens=150000 outputs.text.vocabulary=512 "
        "outputs.text.decoder.width=128 outputs.text.length=128 outputs.text.search.most=20",
    ),
}
LARGE = """data: {{source: {text}, others: unused}}
outputs:
  text:
    type: text
    tokenizer: byte
    length: 2048
    packed: true
    decoder:
      {{name: transformer, width: 4096, depth: 32, heads: 32, kv_heads: 8, hidden: 14336, positions: rotary, norm: rms,
       feed_forward: swiglu, bias: false, dropout: 0.0}}
training: {{tokens: 100000000, batch_size: 4, precision: bf16}}
"""


def run(arguments: list[str], cache: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """The last line of a command, and seconds, processor seconds and peak memory of its process."""
    environment = {**os.environ, "ZHIXING_DATA": str(DOWNLOADS), "ZHIXING_CACHE": str(cache)}
    with tempfile.TemporaryFile("w+") as out:
        started = time.perf_counter()
        process = os.posix_spawn(
            sys.executable, [sys.executable, "-m", "zhixing", *arguments, "--json"], environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, out.fileno(), 1)],
        )  # fmt: skip
        _, status, used = os.wait4(process, 0)
        seconds = time.perf_counter() - started
        if status:
            sys.exit(f"zhixing {' '.join(arguments)} failed")
        out.seek(0)
        told = json.loads(out.read().splitlines()[-1])
    took = {"seconds": seconds, "processor_seconds": used.ru_utime + used.ru_stime, "peak_mib": used.ru_maxrss / 1024}
    return told, took


def compare(name: str, family: str, words: list[str], scratch: Path) -> dict[str, Any]:
    """One recipe: estimated, then trained."""
    told, spent = run(["estimate", *words], scratch / "cache")
    _, came = run(["train", *words, "--out", str(scratch / name.replace(" ", "-"))], scratch / "cache")
    guess = {
        "seconds": told["time"]["seconds"],
        "processor_seconds": told["time"].get("processor_seconds"),  # None: too large, or the machine too busy, to try
        "peak_mib": told["memory"]["peak_bytes"] / 2**20,
    }
    line: dict[str, Any] = {"recipe": name, "family": family}
    for key, value in guess.items():
        if value is None:
            continue
        line |= {key: round(value, 2), f"{key}_came": round(came[key], 2)}
        line[f"{key}_off"] = round(value / came[key] - 1, 4)
    line["sum_of_parts_mib"] = round(told["memory"]["sum_of_parts_bytes"] / 2**20, 2)
    line["sum_of_parts_off"] = round(line["sum_of_parts_mib"] / came["peak_mib"] - 1, 4)
    line["estimate_seconds"] = round(spent["seconds"], 2)
    return line


def large(scratch: Path) -> None:
    """7 billion parameters: how long the estimate takes and how much memory."""
    (scratch / "large.yaml").write_text(LARGE.format(text=lines(scratch)), "utf-8")
    told, took = run(["estimate", str(scratch / "large.yaml")], scratch / "cache")
    memory = told["memory"]["peak_bytes"] / 2**30
    line = {"recipe": "language model of 7 billion parameters", "parameters": told["parameters"], **took}
    print(json.dumps(line | {"estimated_peak_gib": round(memory, 1), "load": os.getloadavg()[0]}), flush=True)


def lines(scratch: Path) -> Path:
    """Some text: the first e-mails' bodies."""
    path = scratch / "some.txt"
    with spam().open(encoding="utf-8") as emails:
        bodies = [json.loads(line)["text"].partition("\n\n")[2] for _, line in zip(range(150), emails, strict=False)]
    path.write_text("\n\n".join(" ".join(body.split()) for body in bodies), "utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(RECIPES))
    parser.add_argument("--large", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if given.large:
            large(scratch)
            return
        places = {
            "ratings": movielens(), "patches": photo_patches(), "emails": spam(), "vowels": series("JapaneseVowels"),
            "motions": series("BasicMotions"), "text": lines(scratch),
        }  # fmt: skip
        found = []
        for name in given.only or RECIPES:
            family, words = RECIPES[name]
            more = SMALL.split() if "--set" in words else ["--set", *SMALL.split()]
            found.append(compare(name, family, [*words.format(**places).split(), *more], scratch))
            print(json.dumps(found[-1]), flush=True)
        medians = {
            key: round(statistics.median(abs(line[key]) for line in found if key in line), 4)
            for key in ("peak_mib_off", "sum_of_parts_off", "seconds_off", "processor_seconds_off")
        }
        print(json.dumps({"recipes": len(found), "median": medians, "load": os.getloadavg()[0]}), flush=True)


if __name__ == "__main__":
    main()
