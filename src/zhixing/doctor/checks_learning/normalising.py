"""Batch normalisation over too few rows."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from ..case import Case
from ..finding import Finding, Mend

__all__ = ["batch_norm"]

KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
FEW, WISE = 8, 32


def batch_norm(case: Case) -> Iterator[Finding]:
    """Layers that normalise over the rows of a batch, with batches (or parts of them) of a few rows."""
    layers = [name for name, module in case.pristine.named_modules() if isinstance(module, KINDS)]
    training = case.recipe.training
    rows = min(training.micro_batch or training.batch_size, training.batch_size, len(case.packed.split["train"]))
    if not layers or rows >= FEW:
        return
    settings = [f"training.batch_size={WISE}"] if training.batch_size < FEW else []
    settings += [f"training.micro_batch={WISE}"] if training.micro_batch and training.micro_batch < FEW else []
    yield Finding(
        "batch_norm", "fault" if rows < 4 else "warning",
        f"{len(layers)} layers normalise over batches of {rows} rows, of which mean and deviation are mostly chance; "
        "the "
        f"first is {layers[0]}",
        sure=0.95,
        evidence={"layers": layers[:20], "rows": rows},
        mend=Mend(tuple(settings)),
        advice="Larger batches, or layer or group normalisation.",
    )  # fmt: skip
