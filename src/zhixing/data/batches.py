"""Batches: which rows come when, and their tensors, gathered whole and one block ahead.

Shape legend: B rows of a batch, N rows of the table.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..randomness import permutation, uniform

__all__ = ["Batch", "Batches", "ColumnBatch", "Order"]

BLOCK_BYTES = 8 << 20
Rows = NDArray[np.int64]


class ColumnBatch(NamedTuple):
    """One column of a batch: values [B, ...], and mask [B] (or [B, T]), True where real, None where all are."""

    values: Tensor
    mask: Tensor | None = None

    def each(self, change: Callable[[Tensor], Tensor]) -> ColumnBatch:
        return ColumnBatch(change(self.values), None if self.mask is None else change(self.mask))


@dataclass(slots=True)
class Batch:
    """All that crosses from data to model.

    ``columns`` by name; ``rows`` [B] are the rows' numbers in the table; in training, ``weights`` [B] by output name
    say what each row counts for in that output's loss. Where rows were blended (mixup, cutmix), ``blends`` holds the
    outputs of the row that was blended in and ``share`` [B] how much of the row is still itself.
    """

    columns: dict[str, ColumnBatch]
    rows: Tensor
    weights: dict[str, Tensor] = field(default_factory=dict)
    blends: dict[str, ColumnBatch] = field(default_factory=dict)
    share: Tensor | None = None

    def __len__(self) -> int:
        return int(self.rows.shape[0])

    def to(self, device: torch.device) -> Batch:
        """The same batch on ``device``, copied without waiting where the memory allows it."""
        if self.rows.device.type == device.type == "cpu":
            return self
        return self.each(lambda x: x.to(device, non_blocking=True))

    def split(self, sizes: list[int]) -> list[Batch]:
        """Whole batches of these sizes, as views: for a block that has no weights yet."""
        assert not self.weights
        assert not self.blends
        rows = torch.split(self.rows, sizes)
        parts: list[dict[str, ColumnBatch]] = [{} for _ in sizes]
        for name, (values, mask) in self.columns.items():
            masks = [None] * len(sizes) if mask is None else torch.split(mask, sizes)
            for part, own, own_mask in zip(parts, torch.split(values, sizes), masks, strict=True):
                part[name] = ColumnBatch(own, own_mask)
        return [Batch(part, own) for part, own in zip(parts, rows, strict=True)]

    def part(self, start: int, stop: int) -> Batch:
        """Rows ``start`` to ``stop``, as views."""
        return self.each(lambda x: x[start:stop])

    def each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(
            {name: column.each(change) for name, column in self.columns.items()},
            change(self.rows),
            {name: change(weight) for name, weight in self.weights.items()},
            {name: column.each(change) for name, column in self.blends.items()},
            None if self.share is None else change(self.share),
        )


class Order:
    """Which rows make up each step's batch: a function of (seed, step), with nothing to save.

    An epoch is cut into ``steps_per_epoch`` batches whose sizes differ by one at most: there is no small last batch,
    and no row is left out. With ``odds`` [rows], each epoch draws as many rows as there are, with replacement, in
    proportion to them (over-sampling).
    """

    def __init__(
        self,
        rows: Rows,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        odds: NDArray[np.float64] | None = None,
    ) -> None:
        self.rows, self.seed, self.shuffle = rows, seed, shuffle
        self.batch_size = min(batch_size, max(1, len(rows)))
        self.steps_per_epoch = -(-len(rows) // self.batch_size)
        self.edges = np.arange(self.steps_per_epoch + 1) * len(rows) // max(1, self.steps_per_epoch)
        self.odds = None if odds is None else np.cumsum(odds) / np.sum(odds)
        self.of_epoch = lru_cache(maxsize=2)(self.draw)

    def draw(self, epoch: int) -> Rows:
        count = len(self.rows)
        if self.odds is not None:
            drawn = np.searchsorted(self.odds, uniform(count, self.seed, "draw", epoch), side="right")
            return self.rows[np.minimum(drawn, count - 1)]
        return self.rows[permutation(count, self.seed, "order", epoch)] if self.shuffle else self.rows

    def span(self, step: int, most_rows: int, last: int) -> tuple[Rows, list[int]]:
        """Rows of several steps of one epoch, from ``step`` on, up to about ``most_rows``, and the batches' sizes."""
        epoch, first = divmod(step, self.steps_per_epoch)
        end = min(first + max(1, most_rows // self.batch_size), self.steps_per_epoch, first + last - step)
        edges = self.edges[first : end + 1]
        return self.of_epoch(epoch)[edges[0] : edges[-1]], np.diff(edges).tolist()

    def at(self, step: int) -> Rows:
        """The rows of one step."""
        return self.span(step, 1, step + 1)[0]


class Batches:
    """Batches of stored columns, on ``device``.

    Rows are gathered in blocks of several megabytes, the next one by a background thread while the current one is
    used, and handed out as views. ``waited`` is the time in seconds that the user of the batches stood still.
    """

    def __init__(self, columns: Mapping[str, ColumnBatch], device: torch.device) -> None:
        self.columns, self.device = columns, device
        self.waited = 0.0
        row_bytes = sum(column.values[:1].nbytes for column in columns.values())
        self.block_rows = max(1, BLOCK_BYTES // max(1, row_bytes))

    def gather(self, rows: Rows) -> Batch:
        """The batch of these rows, in this order."""
        index = torch.from_numpy(np.ascontiguousarray(rows))

        def pick(values: Tensor) -> Tensor:
            # NumPy's take, not torch's: a second thread that runs torch's parallel code makes OpenMP keep two teams of
            # threads, and with more of them than cores every parallel region of the training thread becomes slow.
            picked = torch.from_numpy(values.numpy().take(rows, axis=0))
            return picked.pin_memory() if self.device.type == "cuda" else picked

        columns = {name: column.each(pick) for name, column in self.columns.items()}
        return Batch(columns, index).to(self.device)

    def stream(self, order: Order, first: int, last: int) -> Iterator[Batch]:
        """Batches of steps ``first`` to ``last`` of an order."""
        with ThreadPoolExecutor(1, thread_name_prefix="zhixing-gather") as background:

            def block(step: int, most_rows: int) -> tuple[Batch, list[int]]:
                rows, sizes = order.span(step, most_rows, last)
                return self.gather(rows), sizes

            # The first blocks are small, so that nobody waits for a whole one at the start.
            most_rows = order.batch_size
            step = first
            future = background.submit(block, step, most_rows) if step < last else None
            while future is not None:
                start = time.perf_counter()
                ready, sizes = future.result()
                self.waited += time.perf_counter() - start
                step, most_rows = step + len(sizes), min(4 * most_rows, self.block_rows)
                future = background.submit(block, step, most_rows) if step < last else None
                yield from ready.split(sizes)  # here: in the background it would hold Python's lock for milliseconds
