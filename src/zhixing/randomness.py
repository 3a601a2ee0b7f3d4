"""Random numbers that are a function of their place, not of a hidden stream.

A number is drawn from (seed, purpose, epoch or step, row): the same for any batch size, number of processes, order of
evaluation and machine, and nothing has to be saved for a run to go on to the same bits. The generator is the
finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014) over a counter.

>>> int(permutation(5, 0, 1)[0]) == int(permutation(5, 0, 1)[0])
True
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["bits", "fold", "permutation", "reseed", "uniform", "uniform_rows"]

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
FIRST, SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def finalise(z: int) -> int:
    z = ((z ^ (z >> 30)) * FIRST) & MASK
    z = ((z ^ (z >> 27)) * SECOND) & MASK
    return z ^ (z >> 31)


def fold(*key: int | str) -> int:
    """One 64-bit key from several numbers and words."""
    state = 0
    for part in key:
        for word in part.encode() if isinstance(part, str) else (int(part) & MASK,):
            state = finalise((state + GOLDEN + word) & MASK)
    return state


def bits(count: int, *key: int | str) -> NDArray[np.uint64]:
    """``count`` random 64-bit numbers, one a row, for this key."""
    z = np.arange(count, dtype=np.uint64) * np.uint64(GOLDEN) + np.uint64(fold(*key))
    z = (z ^ (z >> np.uint64(30))) * np.uint64(FIRST)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(SECOND)
    return z ^ (z >> np.uint64(31))


def uniform(count: int, *key: int | str) -> NDArray[np.float64]:
    """``count`` numbers in [0, 1), one a row."""
    return (bits(count, *key) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(count: int, *key: int | str) -> NDArray[np.int64]:
    """The rows 0 … count-1 in a random order. Ties between keys fall back on the row number."""
    return np.argsort(bits(count, *key), kind="stable").astype(np.int64)


def signed(z: int) -> int:
    return z - (1 << 64) if z >> 63 else z


def uniform_rows(rows: Tensor, draws: int, *key: int | str) -> Tensor:
    """Numbers in [0, 1) for each row of a batch, on its device.

    Shape: rows [B] int64, result [B, draws] float32. Draw ``d`` of row ``r`` depends on (key, r, d) and nothing else.
    """
    # Keys of draws are mixed on the device, from a scalar: a list sent there would make the host wait in each step.
    counter = torch.arange(1, draws + 1, device=rows.device)
    keys = mix(counter * signed(GOLDEN) + signed(fold(*key)))
    z = mix(rows[:, None] * signed(GOLDEN) + keys)
    return ((z >> 40) & 0xFFFFFF).float() * 2.0**-24


def mix(z: Tensor) -> Tensor:
    """:func:`finalise` on int64, whose right shift carries the sign."""
    z = (z ^ ((z >> 30) & (MASK >> 30))) * signed(FIRST)
    z = (z ^ ((z >> 27) & (MASK >> 27))) * signed(SECOND)
    return z ^ ((z >> 31) & (MASK >> 31))


def reseed(device: torch.device, *key: int | str) -> None:
    """Set the generator that dropout draws from, on the CPU and on ``device``, to a function of the key."""
    seed = fold(*key) >> 1
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
