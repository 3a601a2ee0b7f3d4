"""GPT-2's shapes: tokens a second, memory, and how much of the device's arithmetic is used, beside a plain loop of the
kind that nanoGPT made known and the Hugging Face Trainer as it comes and at its best (bf16, `torch.compile`).

Ours learns an English dictionary in pairs of bytes, packed; the others are given random tokens of as large a
vocabulary, for speed does not depend on which they are. Each side is a process of its own, sides alternate, figures
are medians; steps of the first half warm up and compile. A token costs 6 N + 12 L W T operations there and back (N
parameters without the table of positions, L layers of width W, T tokens; Chowdhery et al. 2022, arXiv:2204.02311,
appendix B). ``utilisation`` is their share of a large bf16 matrix product in the same run, ``of_maker`` of what the
device's maker states, where that is given.

Meant for a GPU. Without one, `--size tiny` shows that all sides run.

    python -m benchmarks.gpt [--size 124 350] [--batch 16] [--steps 60] [--rounds 3] [--maker 989]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .command import trained
from .language_model import entries
from .peers.environments import HERE, interpreter, versions

Figures = dict[str, Any]


class Size(NamedTuple):
    width: int
    layers: int
    heads: int
    length: int
    vocabulary: int


SIZES = {
    "tiny": Size(64, 2, 2, 64, 300),
    "124": Size(768, 12, 12, 1024, 50257),
    "350": Size(1024, 24, 16, 1024, 50257),
}
SIDES = ["zhixing", "loop", "trainer", "trainer-best"]


def ours(size: Size, batch: int, steps: int) -> Figures:
    """`zhixing train` on its default device, compiled."""
    decoder = f"{{name: transformer, width: {size.width}, depth: {size.layers}, heads: {size.heads}, "
    decoder += "positions: learned, feed_forward: gelu_tanh, dropout: 0.0}"
    settings = [
        f"outputs.text={{type: text, tokenizer: bpe, vocabulary: {size.vocabulary}, length: {size.length}, "
        f"packed: true, decoder: {decoder}}}",
        f"training={{tokens: {steps * batch * size.length}, batch_size: {batch}, compile: true, precision: bf16, "
        f"log_every: {max(1, steps // 10)}, validate_every: {steps}, optimizer: {{name: adamw, lr: 0.0006}}}}",
    ]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        trained("entries.parquet --recipe language-model", run, settings, source=entries()[0])
        lines = [json.loads(line) for line in (run / "timings.jsonl").read_text("utf-8").splitlines()]
        facts = {name: json.loads((run / f"{name}.json").read_text("utf-8")) for name in ("environment", "estimate")}
    warm = next(line for line in lines if line["step"] >= lines[-1]["step"] / 2)
    done = lines[-1]["step"] - warm["step"]
    return {
        "tokens_per_second": done * batch * size.length / (lines[-1]["seconds"] - warm["seconds"]),
        "peak_memory": facts["estimate"]["came"]["peak_bytes"],
        "parameters": facts["environment"]["parameters"],
    }


def theirs(side: str, size: Size, batch: int, steps: int) -> Figures:
    program = [str(interpreter("torch")), str(HERE / "peer_gpt.py"), side, *map(str, size), str(batch), str(steps)]
    done = subprocess.run(program, stdout=subprocess.PIPE, text=True, check=True)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def ceiling(device: torch.device) -> float:
    """Operations a second of a large bf16 matrix product, the best of some."""
    size, best = 8192 if device.type == "cuda" else 1536, math.inf
    one, other = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(12):
        started = time.perf_counter()
        (one @ other)[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def operations(size: Size, parameters: int) -> int:
    """Of a token, there and back."""
    return 6 * (parameters - size.length * size.width) + 12 * size.layers * size.width * size.length


def compare(name: str, sides: list[str], given: argparse.Namespace, device: torch.device) -> Figures:
    size = SIZES[name]
    runs: dict[str, list[Figures]] = {side: [] for side in sides}
    for _ in range(given.rounds):
        for side, done in runs.items():
            one = (given.batch, given.steps)
            done.append(ours(size, *one) if side == "zhixing" else theirs(side, size, *one))
    top, line = ceiling(device), Figures()
    for side, done in runs.items():
        speeds = [one["tokens_per_second"] for one in done]
        speed = statistics.median(speeds)
        worked = operations(size, done[0]["parameters"]) * speed
        line[side] = {
            "tokens_per_second": float(f"{speed:.4g}"),
            "spread": [float(f"{min(speeds):.4g}"), float(f"{max(speeds):.4g}")],
            "parameters": done[0]["parameters"],
            "peak_memory_mb": round(statistics.median(one["peak_memory"] for one in done) / 2**20),
            "utilisation": round(worked / top, 3),
            "of_maker": round(worked / (given.maker * 1e12), 3) if given.maker else None,
        }
    about = {"size": name, "batch": given.batch, "steps": given.steps, "rounds": given.rounds, "device": str(device)}
    return about | {"ceiling_teraflops": round(top / 1e12, 2), **line}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", choices=SIZES, default=["124", "350"])
    parser.add_argument("--side", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--maker", type=float, help="teraflops in bf16 that the device's maker states, without sparsity"
    )
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and set(given.size) != {"tiny"}:
        raise SystemExit("there is no GPU here: --size tiny shows that all sides run")
    for name in given.size:
        line = compare(name, [side for side in SIDES if side in given.side], given, device)
        print(json.dumps({"versions": versions("torch"), **line}), flush=True)


if __name__ == "__main__":
    main()
