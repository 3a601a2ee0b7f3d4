"""Batches: which rows come when, and their tensors, gathered whole and one block ahead.

Shape legend: B rows of a batch, N rows of the table.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..columns.column import Ragged
from ..randomness import permutation, uniform, uniform_rows

__all__ = ["Batch", "Batches", "ColumnBatch", "Draw", "Order", "stored_row"]

BLOCK_BYTES = 8 << 20
POOL = 256  # batches whose rows are put in the order of their lengths
Rows = NDArray[np.int64]


class ColumnBatch(NamedTuple):
    """One column of a batch: values [B, ...], and mask [B] (or [B, T]), True where real, None where all are.

    A row of tokens or steps that has none, all of its mask False, is one that has no value.
    """

    values: Tensor
    mask: Tensor | None = None

    def each(self, change: Callable[[Tensor], Tensor]) -> ColumnBatch:
        return ColumnBatch(change(self.values), None if self.mask is None else change(self.mask))


class Draw(NamedTuple):
    """Random numbers for the rows of a batch, [B] by their numbers in the table: a function of (seed, step, row)."""

    rows: Tensor
    seed: int
    step: int

    def uniform(self, count: int, *key: int | str) -> Tensor:
        """``count`` numbers in [0, 1) for each row, [B, count]; other keys give others."""
        return uniform_rows(self.rows, count, self.seed, self.step, *key)


@dataclass(slots=True)
class Batch:
    """All that crosses from data to model.

    ``columns`` by name; ``rows`` [B] are the rows' numbers in the table; in training, ``weights`` [B] by output name
    say what each row counts for in that output's loss. Where rows were blended (mixup, cutmix), ``blends`` holds the
    outputs of the row that was blended in and ``share`` [B] how much of the row is still itself. ``moment`` is the
    (seed, step) that training draws from; None: it is not training that looks.
    """

    columns: dict[str, ColumnBatch]
    rows: Tensor
    weights: dict[str, Tensor] = field(default_factory=dict)
    blends: dict[str, ColumnBatch] = field(default_factory=dict)
    share: Tensor | None = None
    moment: tuple[int, int] | None = None

    @property
    def draw(self) -> Draw:
        """What is drawn for these rows; always the same where nothing is trained."""
        return Draw(self.rows, *(self.moment or (0, -1)))

    def __len__(self) -> int:
        return int(self.rows.shape[0])

    def to(self, device: torch.device) -> Batch:
        """The same batch on ``device``, copied without waiting where the memory allows it."""
        if self.rows.device.type == device.type == "cpu":
            return self
        return self.each(lambda x: x.to(device, non_blocking=True))

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
            self.moment,
        )


class Order:
    """Which rows make up each step's batch: a function of (seed, step), with nothing to save.

    An epoch is cut into ``steps_per_epoch`` batches whose sizes differ by one at most: there is no small last batch,
    and no row is left out. With ``odds`` [rows], each epoch draws as many rows as there are, with replacement, in
    proportion to them (over-sampling).

    With ``lengths`` [rows], rows of about the same length come together, so that little of a batch is padding: the
    shuffled rows are cut into pools of some dozens of batches, each pool is put in the order of length and cut into
    batches, and the batches are shuffled. Without ``shuffle`` rows come in the order of length, see :attr:`rows`.
    """

    def __init__(
        self,
        rows: Rows,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        odds: NDArray[np.float64] | None = None,
        lengths: NDArray[np.int64] | None = None,
    ) -> None:
        if lengths is not None and not shuffle:
            by_length = np.argsort(lengths, kind="stable")
            rows, lengths = rows[by_length], None
        self.rows, self.seed, self.shuffle, self.lengths = rows, seed, shuffle, lengths
        self.batch_size = min(batch_size, max(1, len(rows)))
        self.steps_per_epoch = -(-len(rows) // self.batch_size)
        self.edges = np.arange(self.steps_per_epoch + 1) * len(rows) // max(1, self.steps_per_epoch)
        self.odds = None if odds is None else np.cumsum(odds) / np.sum(odds)
        self.of_epoch = lru_cache(maxsize=2)(self.draw)

    def draw(self, epoch: int) -> tuple[Rows, NDArray[np.int64]]:
        """The rows of an epoch in their order, and where its batches are cut."""
        count = len(self.rows)
        if self.odds is not None:
            drawn = np.searchsorted(self.odds, uniform(count, self.seed, "draw", epoch), side="right")
            chosen = np.minimum(drawn, count - 1)
        elif self.shuffle:
            chosen = permutation(count, self.seed, "order", epoch)
        else:
            return self.rows, self.edges
        if self.lengths is None:
            return self.rows[chosen], self.edges
        return self.by_length(chosen, self.lengths[chosen], epoch)

    def by_length(self, chosen: Rows, lengths: NDArray[np.int64], epoch: int) -> tuple[Rows, NDArray[np.int64]]:
        pool = np.searchsorted(self.edges[POOL:-1:POOL], np.arange(len(chosen)), side="right")
        chosen = chosen[np.lexsort((np.arange(len(chosen)), lengths, pool))]
        batches = permutation(self.steps_per_epoch, self.seed, "batches", epoch)
        sizes = np.diff(self.edges)[batches]
        edges = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        inside = np.arange(len(chosen)) - np.repeat(edges[:-1], sizes)
        return self.rows[chosen[np.repeat(self.edges[:-1][batches], sizes) + inside]], edges

    def span(self, step: int, most_rows: int, last: int) -> tuple[Rows, list[int]]:
        """Rows of several steps of one epoch, from ``step`` on, up to about ``most_rows``, and the batches' sizes."""
        epoch, first = divmod(step, self.steps_per_epoch)
        end = min(first + max(1, most_rows // self.batch_size), self.steps_per_epoch, first + last - step)
        rows, edges = self.of_epoch(epoch)
        return rows[edges[first] : edges[end]], np.diff(edges[first : end + 1]).tolist()

    def at(self, step: int) -> Rows:
        """The rows of one step."""
        return self.span(step, 1, step + 1)[0]


class Batches:
    """Batches of stored columns, on ``device``.

    Rows are gathered in blocks of several megabytes, the next one by a background thread while the current one is
    used, and handed out as views. Rows of unequal length are padded to the longest of their batch. ``waited`` is the
    time in seconds that the user of the batches stood still; ``steps`` and ``padding`` count the steps of such rows
    that were handed out in training, real or not, and those that were not real.
    """

    def __init__(self, columns: Mapping[str, ColumnBatch | Ragged], device: torch.device) -> None:
        self.columns, self.device = columns, device
        self.waited = 0.0
        self.steps = self.padding = 0
        self.ragged = any(isinstance(column, Ragged) for column in columns.values())
        self.block_rows = max(1, BLOCK_BYTES // max(1, sum(row_bytes(column) for column in columns.values())))

    def lengths(self, rows: Rows) -> NDArray[np.int64] | None:
        """A number for each of these rows, by the order of which rows of about the same lengths are neighbours; None
        where all are of one length.

        Of one column that is its length. Of several, rows go by their longest, to within a twelfth, and then by how
        much longer the first is than the second: of pairs of sentences, that leaves a third of the padding that the
        order of their sums does.
        """
        each = [column.lengths_of(rows) for column in self.columns.values() if isinstance(column, Ragged)]
        if len(each) < 2:
            return each[0] if each else None
        longest = np.floor(np.log(np.maximum(np.max(each, axis=0), 1)) / np.log(1 + 1 / 12)).astype(np.int64)
        apart = each[0] - each[1]
        return np.asarray(longest * (2 * int(np.abs(apart).max(initial=0)) + 1) + apart)

    def cells(self, rows: Rows) -> int:
        """Steps of the batch of these rows, padding included, over all columns of unequal length."""
        ragged = [column for column in self.columns.values() if isinstance(column, Ragged)]
        return sum(len(rows) * int(column.lengths_of(rows).max(initial=1)) for column in ragged)

    def gather(self, rows: Rows) -> Batch:
        """The batch of these rows, in this order."""
        return self.gather_all(rows, [len(rows)])[0]

    def gather_all(self, rows: Rows, sizes: list[int]) -> list[Batch]:
        return self.cut(self.fetch(rows, sizes), sizes)

    def fetch(self, rows: Rows, sizes: list[int]) -> tuple[Tensor, dict[str, list[ColumnBatch]]]:
        """Rows of several batches on the device: of equal lengths as one tensor, else as one for each batch."""
        found: dict[str, list[ColumnBatch]] = {}
        for name, column in self.columns.items():
            if isinstance(column, Ragged):
                parts = np.split(rows, np.cumsum(sizes)[:-1])
                found[name] = [self.send(padded(column, part)) for part in parts]
            else:
                # NumPy's take, not torch's: a second thread that runs torch's parallel code makes OpenMP keep two
                # teams of threads, and with more of them than cores every parallel region of the training thread
                # becomes slow.
                found[name] = [self.send(column.each(lambda x: torch.from_numpy(x.numpy().take(rows, axis=0))))]
        return self.send(ColumnBatch(torch.from_numpy(np.ascontiguousarray(rows)))).values, found

    def send(self, column: ColumnBatch) -> ColumnBatch:
        if self.device.type == "cpu":
            return column
        pinned = column.each(lambda x: x.pin_memory()) if self.device.type == "cuda" else column
        return pinned.each(lambda x: x.to(self.device, non_blocking=True))

    def cut(self, fetched: tuple[Tensor, dict[str, list[ColumnBatch]]], sizes: list[int]) -> list[Batch]:
        """Batches of these sizes, as views."""
        rows, found = fetched
        columns: list[dict[str, ColumnBatch]] = [{} for _ in sizes]
        for name, blocks in found.items():
            if isinstance(self.columns[name], Ragged):
                own = blocks
            else:
                values, mask = blocks[0]
                masks = [None] * len(sizes) if mask is None else torch.split(mask, sizes)
                own = [ColumnBatch(*both) for both in zip(torch.split(values, sizes), masks, strict=True)]
            for batch, part in zip(columns, own, strict=True):
                batch[name] = part
        return [Batch(*both) for both in zip(columns, torch.split(rows, sizes), strict=True)]

    def stream(self, order: Order, first: int, last: int) -> Iterator[Batch]:
        """Batches of steps ``first`` to ``last`` of an order."""
        with ThreadPoolExecutor(1, thread_name_prefix="zhixing-gather") as background:

            def block(step: int, most_rows: int) -> tuple[Any, Rows, list[int]]:
                rows, sizes = order.span(step, most_rows, last)
                return self.fetch(rows, sizes), rows, sizes

            # The first blocks are small, so that nobody waits for a whole one at the start.
            most_rows = order.batch_size
            step = first
            future = background.submit(block, step, most_rows) if step < last else None
            while future is not None:
                start = time.perf_counter()
                ready, rows, sizes = future.result()
                self.waited += time.perf_counter() - start
                if order.shuffle:
                    self.count_padding(rows, sizes)
                step, most_rows = step + len(sizes), min(4 * most_rows, self.block_rows)
                future = background.submit(block, step, most_rows) if step < last else None
                yield from self.cut(ready, sizes)  # here: in the background it would hold Python's lock too long

    def count_padding(self, rows: Rows, sizes: list[int]) -> None:
        starts = np.cumsum([0, *sizes[:-1]])
        for column in self.columns.values():
            if isinstance(column, Ragged):
                lengths = column.lengths_of(rows)
                steps = int((np.maximum(np.maximum.reduceat(lengths, starts), 1) * sizes).sum())
                self.steps, self.padding = self.steps + steps, self.padding + steps - int(lengths.sum())


def stored_row(column: ColumnBatch | Ragged, row: int) -> Tensor:
    """What is stored of one row, without padding."""
    return column.row(row) if isinstance(column, Ragged) else column.values[row]


def row_bytes(column: ColumnBatch | Ragged) -> int:
    if isinstance(column, Ragged):
        return int(column.values.nbytes // max(1, len(column.offsets) - 1))
    return int(column.values[:1].nbytes)


def padded(column: Ragged, rows: Rows) -> ColumnBatch:
    """Rows of unequal length as one batch [B, T, ...] with its mask [B, T]; T is that of the longest, at least 1."""
    starts, lengths = column.offsets[rows], column.lengths_of(rows)
    steps = np.arange(max(1, int(lengths.max(initial=0))))
    mask = steps < lengths[:, None]
    flat = column.values.numpy()
    if len(flat):
        values = flat.take(np.minimum(starts[:, None] + steps, len(flat) - 1), axis=0)
        values[~mask] = 0
    else:
        values = np.zeros((*mask.shape, *flat.shape[1:]), flat.dtype)
    if values.dtype == np.int32:  # ids, which torch's layers want as int64
        values = values.astype(np.int64)
    return ColumnBatch(torch.from_numpy(values), torch.from_numpy(mask))
