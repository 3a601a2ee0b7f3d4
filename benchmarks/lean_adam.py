"""One step of AdamW on the textbook perceptron: torch's fused class beside ours, in turn. One line of JSON.

python -m benchmarks.lean_adam
"""

from __future__ import annotations

import json
import statistics
import time

import torch
from torch.optim import AdamW, Optimizer

from zhixing.training.lean import LeanAdam

STEPS, ROUNDS = 2000, 9


def make(lean: bool) -> Optimizer:
    parameters = [torch.nn.Parameter(torch.randn(s)) for s in ((64, 784), (64,), (64, 64), (64,), (10, 64), (10,))]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    groups = [
        {"params": [p for p in parameters if p.ndim == 2], "weight_decay": 0.01},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    if lean:
        return LeanAdam(groups, lr=1e-3, fused=True, decoupled_weight_decay=True)
    return AdamW(groups, lr=1e-3, fused=True)


def microseconds(optimizer: Optimizer) -> float:
    started = time.perf_counter()
    for _ in range(STEPS):
        optimizer.step()
    return (time.perf_counter() - started) / STEPS * 1e6


def main() -> None:
    torch.set_num_threads(1)
    ours, theirs = make(lean=True), make(lean=False)
    for optimizer in (ours, theirs):
        microseconds(optimizer)
        optimizer.found_inf = torch.zeros(())  # type: ignore[attr-defined]
        optimizer.grad_scale = None  # type: ignore[attr-defined]
    pairs = [(microseconds(ours), microseconds(theirs)) for _ in range(ROUNDS)]
    line = {
        "lean_microseconds": round(statistics.median(a for a, _ in pairs), 1),
        "torch_microseconds": round(statistics.median(b for _, b in pairs), 1),
        "ratio": round(statistics.median(b / a for a, b in pairs), 2),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
