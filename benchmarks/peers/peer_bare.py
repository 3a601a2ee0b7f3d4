"""A plain PyTorch loop over tensors in memory. Best: bf16 autocast, channels last, the fused optimizer; compiled: the
same by way of torch.compile."""

from __future__ import annotations

import contextlib

import torch
from networks import loss_of, network, size_of
from protocol import Clock, arrays, job, tell


def main() -> None:
    given = job()
    torch.manual_seed(given.seed)
    best = given.mode != "default"
    x, y, x_test, y_test = map(torch.from_numpy, arrays(given.data))
    model = network(given.workload)
    if best and given.workload in ("cnn", "resnet18"):
        model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=best or None)
    called = torch.compile(model) if given.mode == "compiled" else model

    def cast() -> contextlib.AbstractContextManager[None]:
        return torch.autocast("cpu", torch.bfloat16) if best and given.workload != "lstm" else contextlib.nullcontext()

    clock = Clock(len(x))
    for _ in range(given.epochs):
        for rows in torch.randperm(len(x)).split(given.batch):
            optimizer.zero_grad()
            with cast():
                scores = called(x[rows])
            loss_of(scores.float(), y[rows]).backward()
            optimizer.step()
        clock.epoch()
    model.eval()
    with torch.no_grad():
        said = torch.cat([model(part).argmax(-1) for part in x_test.split(given.test_batch)])
    tell(clock.speed(), float((said == y_test).float().mean()), size_of(model))


main()
