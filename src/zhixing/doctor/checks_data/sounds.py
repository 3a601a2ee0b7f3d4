"""Sounds with nothing in them, and sounds that were recorded too loud."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ...columns.column import Ragged
from ..case import SHOWN, Case
from ..finding import Finding, some_rows

__all__ = ["sounds"]

QUIET = 20.0  # root mean square of 32768: -64 dB
FLAT = 0.01  # share of samples at the very top from which a clip is heard to be clipped


def sounds(case: Case) -> Iterator[Finding]:
    """Silent and clipped clips, by the stored samples."""
    for name in case.inputs:
        stored = case.stored(name)
        if not isinstance(stored, Ragged) or stored.values.dtype != torch.int16:
            continue
        rows = case.some(case.usable, 3000)
        power, top = np.zeros(len(rows)), np.zeros(len(rows))
        for place, row in enumerate(rows):
            samples = stored.row(int(row)).numpy().astype(np.float32)
            if len(samples):
                peak = np.abs(samples).max()
                power[place] = np.sqrt(np.square(samples - samples.mean()).mean())
                # A sine stands still at its top for a moment; a clipped wave for long.
                top[place] = (np.abs(samples) >= peak - 1).mean() if peak > 3000 else 0.0
        silent, clipped = np.flatnonzero(power < QUIET), np.flatnonzero(top > FLAT)
        for found, what, advice in (
            (silent, "silent", "Leave them out, or find out what failed in recording."),
            (
                clipped,
                "clipped: the tops of their waves are cut flat",
                "Record at a lower level; what was cut is lost.",
            ),
        ):
            yield from some_rows(
                "sounds", (f"clips in {name!r}", f"are {what}"), len(found), len(rows), (0.03, 0.005),
                sure=0.95,
                evidence={"kind": what.split(":")[0]},
                rows=[
                    case.row(int(rows[i]), f"level {power[i]:.1f} of 32768, {top[i]:.1%} of it at the top", show=name)
                    for i in found[:SHOWN]
                ],
                advice=advice,
            )  # fmt: skip
