"""Whether what was written gives the same answers: it is opened again and compared on real rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from ..data.batches import Batches
from ..errors import RunError
from ..explain.rows import Rows
from .formats import Run
from .graph import Part

__all__ = ["compare", "refuse_beyond"]

SIZES = (1, 5, 29)  # of the batches, of which none is the example's


def compare(parts: Mapping[str, Part], opened: Mapping[str, Run], rows: Rows) -> dict[str, float]:
    """The largest difference of each output over the rows, in batches of several sizes and, where rows are of unequal
    length, of several lengths."""
    batches, device = rows.tensors, torch.device("cpu")
    source, found = Batches(batches, device), dict[str, float]()
    start, turn = 0, 0
    with torch.inference_mode():
        while start < len(rows.rows):
            chosen = rows.rows[start : start + SIZES[turn % len(SIZES)]]
            start, turn = start + len(chosen), turn + 1
            batch = source.gather(np.asarray(chosen))
            for name, part in parts.items():
                for feed in part.feeds(batch):
                    wanted, got = part(*feed), opened[name](feed)
                    for output, apart in part.differences(wanted, got).items():
                        found[output] = max(found.get(output, 0.0), apart)
    return found


def refuse_beyond(tolerance: float, differences: Mapping[str, float], form: str) -> None:
    """Raises RunError where an output is further off than this."""
    beyond = {name: apart for name, apart in differences.items() if not apart <= tolerance}
    if beyond:
        worst = ", ".join(f"{name} by {apart:.3g}" for name, apart in beyond.items())
        raise RunError(
            f"what {form} gives differs from the run's own answers: {worst}, more than {tolerance:g}; "
            "nothing is left of the export",
            mend="Give a larger --tolerance if that is near enough.",
        )
