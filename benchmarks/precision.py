"""From which size of a batch's work on bf16 is faster than fp32: perceptrons and convolutional networks, both formats.

Each line is one network and batch: the multiplications of its forward pass, as the choice of a precision counts them,
and the time of a whole step in bf16 over that in fp32, the median over interleaved rounds with its spread.

    python -m benchmarks.precision [--rounds 9]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zhixing.training.precision import choose_precision, count_multiplications, has_fast_bf16

CPU = torch.device("cpu")
LEAST = 0.05  # seconds of a round


def perceptron(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))


def convolutional(channels: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Unflatten(1, (1, 28, 28))]
    for before, after in ((1, channels), (channels, 2 * channels)):
        layers += [nn.Conv2d(before, after, 3), nn.MaxPool2d(2), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(2 * channels * 25, 10)).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


NETWORKS: dict[str, tuple[Callable[[int], nn.Module], tuple[int, ...]]] = {
    "perceptron": (perceptron, (64, 256, 1024)),
    "convolutional": (convolutional, (4, 16, 64)),
}


def step(model: nn.Module, optimizer: torch.optim.Optimizer, rows: Tensor, classes: Tensor, precision: str) -> None:
    optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        loss = F.cross_entropy(model(rows), classes)
    loss.backward()
    optimizer.step()


def ratios(make: Callable[[int], nn.Module], width: int, batch: int, rounds: int) -> tuple[int, list[float]]:
    model = make(width)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    rows, classes = torch.randn(batch, 784), torch.randint(0, 10, (batch,))
    work = count_multiplications(model, lambda: model(rows))
    took: dict[str, list[float]] = {"fp32": [], "bf16": []}
    steps = 1
    for number in range(rounds + 1):
        for precision, times in took.items():
            began = time.perf_counter()
            for _ in range(steps):
                step(model, optimizer, rows, classes, precision)
            times.append((time.perf_counter() - began) / steps)
        if not number:
            steps = max(1, round(LEAST / took["fp32"][0]))
    return work, [bf16 / fp32 for bf16, fp32 in zip(took["bf16"][1:], took["fp32"][1:], strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    for name, (make, widths) in NETWORKS.items():
        for width in widths:
            for batch in (32, 256):
                work, found = ratios(make, width, batch, arguments.rounds)
                told = {
                    "network": name, "width": width, "batch": batch, "multiplications": work,
                    "bf16_to_fp32_time": round(statistics.median(found), 3),
                    "spread": [round(min(found), 3), round(max(found), 3)],
                    "chosen": choose_precision("auto", CPU, work).name, "fast_bf16": has_fast_bf16(CPU),
                }  # fmt: skip
                print(json.dumps(told))


if __name__ == "__main__":
    main()
