"""Two equal runs that end with other weights."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..case import Case
from ..finding import Finding
from ..trial import run_trial

__all__ = ["repeatable"]

STEPS = 3


def repeatable(case: Case) -> Iterator[Finding]:
    """Three steps, twice, from the same weights, seed and rows: every weight has to be equal to the bit."""
    if case.trial.error:
        return
    rows = case.learned("train", 512)
    runs = [
        run_trial(case, case.fresh(), steps=STEPS, rows=rows, batch_size=16, seconds=float("inf")) for _ in range(2)
    ]
    ends = [run.model.state_dict() for run in runs]
    apart = [name for name, one in ends[0].items() if not torch.equal(raw(one), raw(ends[1][name]))]
    if not apart:
        return
    largest = max(float((ends[0][name].double() - ends[1][name].double()).abs().max()) for name in apart)
    rounding = case.device.type != "cpu" and largest < 1e-4
    yield Finding(
        "repeatable", "note" if rounding else "fault",
        f"two equal runs of {STEPS} steps differ in {len(apart)} tensors (by up to {largest:.3g}), the first "
        f"{apart[0]}",
        sure=0.97,
        evidence={"tensors": apart[:20], "largest": largest},
        advice="Randomness that does not follow the seed: numpy's or Python's own, time, or state kept between calls.",
    )  # fmt: skip


def raw(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
