"""Steps that stand for all of a training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...data.batches import Batches, Order

__all__ = ["WARM", "Chosen", "corput", "representative"]

WARM, MOST = 3, 64  # steps that are not timed, and that are at most


class Chosen(Order):
    """Some steps of the first epoch of another order, one after the other."""

    def __init__(self, order: Order, steps: list[int]) -> None:
        cut = [order.at(step) for step in steps]
        super().__init__(np.concatenate(cut), order.batch_size, seed=order.seed)
        self.steps_per_epoch = len(steps)
        self.whole = np.concatenate([np.zeros(1, np.int64), np.cumsum([len(rows) for rows in cut])])

    def draw(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return self.rows, self.whole


def representative(order: Order, batches: Batches) -> list[int]:
    """Steps of the first epoch that stand for all, in an order of which every beginning does so too.

    The longest batch comes first, among those that are not timed. Then batches from all over the order of length, far
    apart from each other (van der Corput 1935).
    """
    count = order.steps_per_epoch
    by_length = list(range(count))
    if batches.ragged:
        sizes = [batches.cells(order.at(step)) for step in range(min(count, 4096))]
        by_length = np.argsort(sizes, kind="stable").tolist()
    spread = [int(len(by_length) * corput(place)) for place in range(1, MOST + 1)]
    return [by_length[-1]] * WARM + [by_length[place] for place in spread]


def corput(place: int) -> float:
    """The binary digits of a number behind the point, mirrored.

    >>> [corput(place) for place in range(1, 6)]
    [0.5, 0.25, 0.75, 0.125, 0.625]
    """
    out, share = 0.0, 0.5
    while place:
        out, place, share = out + share * (place & 1), place >> 1, share / 2
    return out
