"""A step of the textbook CNN with the rectifier before the pool, after it (as ours), and with a pool of our own.

The third takes the largest of four slices and hands gradients back by comparing them, in place of torch's kernel with
its indices. All give the same bits, which is checked. Rounds are interleaved; one JSON line with the medians of a
step's milliseconds, their spread, and the ratio to the first.

    python -m benchmarks.pools [--batch 32 128] [--rounds 15] [--threads 2]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEPS = 5


class Sliced(torch.autograd.Function):
    """Max pooling in windows of 2x2 by comparing slices."""

    @staticmethod
    def slices(x: Tensor) -> list[Tensor]:
        height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
        return [x[:, :, i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)]

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        a, b, c, d = Sliced.slices(x)
        out = torch.maximum(torch.maximum(a, b), torch.maximum(c, d))
        ctx.save_for_backward(x, out)
        return out

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        x, out = ctx.saved_tensors
        (left,) = slopes
        found = torch.zeros_like(x)
        for into, one in zip(Sliced.slices(found), Sliced.slices(x), strict=True):
            hit = one == out
            into.copy_(left * hit)
            left = left.masked_fill(hit, 0)
        return found


class SlicedPool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = Sliced.apply(x)
        return out


def before() -> list[nn.Module]:
    return [nn.ReLU(), nn.MaxPool2d(2)]


def after() -> list[nn.Module]:
    return [nn.MaxPool2d(2), nn.ReLU()]


def sliced() -> list[nn.Module]:
    return [SlicedPool(), nn.ReLU()]


WAYS = {"rectifier_before_pool": before, "rectifier_after_pool": after, "sliced_pool": sliced}


def network(way: str) -> nn.Sequential:
    torch.manual_seed(0)
    pools = WAYS[way]
    first = [nn.Conv2d(1, 32, 3), *pools(), nn.Conv2d(32, 64, 3), *pools(), nn.Conv2d(64, 64, 3), nn.ReLU()]
    out = nn.Sequential(*first, nn.Flatten(), nn.Linear(576, 64), nn.ReLU(), nn.Linear(64, 10))
    return out.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def measure(batch: int, rounds: int) -> dict[str, Any]:
    pictures = torch.randn(batch, 1, 28, 28).to(memory_format=torch.channels_last)
    classes = torch.randint(0, 10, (batch,))
    networks = {way: network(way) for way in WAYS}
    optimizers = {way: torch.optim.Adam(one.parameters(), fused=True) for way, one in networks.items()}
    took: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds + 1):
        for way, one in networks.items():
            began = time.perf_counter()
            for _ in range(STEPS):
                optimizers[way].zero_grad()
                with torch.autocast("cpu", torch.bfloat16):
                    loss = F.cross_entropy(one(pictures), classes)
                loss.backward()
                optimizers[way].step()
            took[way].append((time.perf_counter() - began) / STEPS * 1e3)
    weights = [[*one.parameters()] for one in networks.values()]
    same = all(torch.equal(a, b) for other in weights[1:] for a, b in zip(weights[0], other, strict=True))
    out: dict[str, Any] = {"batch": batch, "threads": torch.get_num_threads(), "rounds": rounds, "same_bits": same}
    first = took["rectifier_before_pool"][1:]
    for way, all_times in took.items():
        times = all_times[1:]  # the first warms up
        ratios = [one / other for one, other in zip(times, first, strict=True)]
        out[way] = {
            "milliseconds": round(statistics.median(times), 2),
            "ratio": round(statistics.median(ratios), 3),
            "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        }
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for batch in arguments.batch:
        print(json.dumps(measure(batch, arguments.rounds)))


if __name__ == "__main__":
    main()
