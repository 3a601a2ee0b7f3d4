"""Columns as plain matrices, for checks that need no network: one way for each kind of :class:`Spec`.

Shape legend: N rows, T steps, F features, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..columns import Column
from ..columns.column import Ragged, Spec, Stem
from ..columns.vocabulary import UNKNOWN
from ..data.batches import Batches, ColumnBatch

__all__ = ["VIEWS", "after_stem", "hashes", "view"]

Matrix = NDArray[np.float32]
Rows = NDArray[np.int64]
WIDEST = 1024  # features of one column
SIDE, STEPS = 16, 8


def after_stem(column: Column, stored: ColumnBatch | Ragged, rows: Rows) -> tuple[Tensor, Tensor | None]:
    """What an encoder of this column gets for these rows, on the CPU."""
    batch = Batches({"it": stored}, torch.device("cpu")).gather(rows)
    stem: Stem = column.stem().eval()
    with torch.inference_mode():
        values, mask = stem(batch.columns["it"].values, batch.columns["it"].mask)
    return values.clone(), mask


def view(column: Column, stored: ColumnBatch | Ragged, rows: Rows) -> Matrix:
    """Rows of one column as numbers [N, F], whatever its kind; F does not depend on the rows."""
    spec, parts = column.spec(), []
    for start in range(0, len(rows), 256):
        parts.append(VIEWS[spec.kind](*after_stem(column, stored, rows[start : start + 256]), spec))
    return np.concatenate(parts).astype(np.float32) if parts else np.zeros((0, 1), np.float32)


def of_image(values: Tensor, mask: Tensor | None, spec: Spec) -> Matrix:
    """The mean of each of 16 x 16 areas; of colours apart where that is not too much."""
    values = values.float()
    if values.shape[-1] > SIDE or values.shape[-2] > SIDE:
        values = F.adaptive_avg_pool2d(values, SIDE)
    flat = values.flatten(1)
    return flat.numpy() if flat.shape[1] <= WIDEST else values.mean(1).flatten(1).numpy()


def of_vector(values: Tensor, mask: Tensor | None, spec: Spec) -> Matrix:
    return values.float().flatten(1)[:, :WIDEST].numpy()


def of_ids(values: Tensor, mask: Tensor | None, spec: Spec) -> Matrix:
    """One-hot; of very many ids, several share a place."""
    return F.one_hot(values.flatten() % 256, min(256, spec.vocabulary)).float().numpy()


def of_tokens(values: Tensor, mask: Tensor | None, spec: Spec) -> Matrix:
    """The logarithm of how often each token stands in the row, tokens hashed to places; rows of length one."""
    values = values.abs()  # negative where a language model has them as context
    # Unknown tokens tell training rows from others by the way the vocabulary was made, not by what was written.
    real = (values != 0 if mask is None else mask) & (values != UNKNOWN)
    places = values if spec.vocabulary <= WIDEST else (values * 2654435761 % 2**32) % WIDEST
    counts = torch.zeros(len(values), min(WIDEST, spec.vocabulary))
    counts.scatter_add_(1, places, real.float())
    return F.normalize(counts.log1p_(), dim=1).numpy()


def of_sequence(values: Tensor, mask: Tensor | None, spec: Spec) -> Matrix:
    """Mean, deviation, least and largest value of each feature, and the course in eight stretches."""
    values = values.float()
    if values.shape[-1] > 80:
        values = F.adaptive_avg_pool1d(values, 80)
    real = torch.ones(values.shape[:2], dtype=torch.bool) if mask is None else mask
    count = real.sum(1).clamp(min=1)[:, None]
    there = real[..., None]
    mean = values.masked_fill(~there, 0).sum(1) / count
    spread = ((values - mean[:, None]).masked_fill(~there, 0).square().sum(1) / count).sqrt()
    none = ~real.any(1, keepdim=True)
    low = values.masked_fill(~there, 9e9).amin(1).masked_fill(none, 0)
    high = values.masked_fill(~there, -9e9).amax(1).masked_fill(none, 0)
    place = (torch.arange(STEPS) * (count - 1) / (STEPS - 1)).round().long()
    course = values.gather(1, place[..., None].expand(-1, -1, values.shape[-1])).masked_fill(none[..., None], 0)
    return torch.cat([mean, spread, low, high, course.flatten(1)], dim=1).numpy()


VIEWS: dict[str, Callable[[Tensor, Tensor | None, Spec], Matrix]] = {
    "ids": of_ids,
    "image": of_image,
    "sequence": of_sequence,
    "tokens": of_tokens,
    "vector": of_vector,
}


def hashes(stored: ColumnBatch | Ragged, rows: Rows) -> NDArray[np.uint64]:
    """A 64-bit hash of what is stored of each row: equal where the rows are."""
    import hashlib

    def of(array: NDArray[np.generic]) -> int:
        return int.from_bytes(hashlib.blake2b(array.tobytes(), digest_size=8).digest(), "little")

    if isinstance(stored, Ragged):
        flat, edges = stored.values.numpy(), stored.offsets
        found = [of(flat[edges[row] : edges[row + 1]]) for row in rows]
    else:
        flat = stored.values.numpy()
        found = [of(flat[row]) for row in rows]
    return np.array(found, np.uint64)
