"""Attention with its weights written down against torch's fused kernel, forward and backward, on this processor.

Each line is a size: rows, heads, tokens, width of a head. ``ratio`` is the time with weights written down over that of
the fused kernel, the median over interleaved rounds with its least and most; ``chosen`` is what training takes in bf16.

    python -m benchmarks.attention [--rounds 9]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from zhixing.layers.attention import pays_to_write_down, written_down
from zhixing.training.surroundings import memory_kept

SIZES = [
    (32, 4, 28, 32), (128, 4, 28, 32), (128, 4, 28, 64), (32, 4, 64, 64), (32, 6, 128, 64), (16, 12, 128, 64),
    (8, 6, 256, 64), (32, 4, 256, 64), (32, 8, 256, 32), (16, 4, 512, 64), (4, 8, 1024, 64),
]  # fmt: skip
LEAST = 0.05  # seconds of a round


def fused(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, keys, values)


def written(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return written_down(query, keys, values, None, causal=False)


def seconds(work: Callable[[], None], steps: int) -> float:
    began = time.perf_counter()
    for _ in range(steps):
        work()
    return (time.perf_counter() - began) / steps


def compare(size: tuple[int, ...], dtype: torch.dtype, rounds: int) -> dict[str, object]:
    rows, heads, tokens, width = size
    parts = [torch.randn(rows, tokens, heads, width).to(dtype).transpose(1, 2).requires_grad_() for _ in range(3)]
    gradient = torch.randn(rows, heads, tokens, width).to(dtype)

    def step(kind: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[], None]:
        return lambda: torch.autograd.backward([kind(*parts)], [gradient], inputs=parts)

    kinds = {"fused": step(fused), "written": step(written)}
    first = seconds(kinds["fused"], 2)
    took: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, work in kinds.items():
            took[name].append(seconds(work, max(1, round(LEAST / first))))
    ratios = [one / other for one, other in zip(took["written"], took["fused"], strict=True)]
    return {
        "size": size, "dtype": str(dtype).removeprefix("torch."),
        "milliseconds": {name: round(1e3 * statistics.median(times), 3) for name, times in took.items()},
        "ratio": round(statistics.median(ratios), 3), "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        "chosen": "written" if pays_to_write_down(parts[0], parts[1]) else "fused",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    torch.manual_seed(0)
    with memory_kept():  # as in training
        for dtype in (torch.bfloat16, torch.float32):
            for size in SIZES:
                print(json.dumps(compare(size, dtype, given.rounds)), flush=True)


if __name__ == "__main__":
    main()
