"""Occlusion: what the score loses where a window is covered."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from ..subject import Entry, Subject
from .maps import Maps

__all__ = ["covers", "occlusion", "occlusion_of"]

ACROSS = 7  # windows of a picture side by side; each overlaps its neighbours by half
STEPS, BANDS = 64, 16  # windows over the steps and the features of a sequence
TOKENS = 128


def windows_of(entry: Entry) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sides of the window, and how far it moves, along each axis of the cells; for pictures over all channels."""
    shape = entry.shape
    if entry.spec.kind == "image":
        side = max(1, min(shape[1:]) // ACROSS)
        return (shape[0], side, side), (shape[0], max(1, side // 2), max(1, side // 2))
    if entry.spec.kind == "sequence":
        sides = max(1, shape[0] // STEPS), max(1, shape[1] // BANDS)
        return sides, sides
    side = max(1, shape[0] // TOKENS) if entry.spec.kind == "tokens" else 1
    return (side,), (side,)


def covers(shape: tuple[int, ...], sides: tuple[int, ...], strides: tuple[int, ...], device: torch.device) -> Tensor:
    """The windows [W, …]: True where one covers. The last along an axis may reach beyond the edge.

    >>> covers((4,), (2,), (2,), torch.device("cpu")).int()
    tensor([[1, 1, 0, 0],
            [0, 0, 1, 1]], dtype=torch.int32)
    """
    starts = [
        range(0, max(1, -(-(length - side) // stride) * stride + 1), stride)
        for length, side, stride in zip(shape, sides, strides, strict=True)
    ]
    places = list(product(*starts))
    out = torch.zeros(len(places), *shape, dtype=torch.bool, device=device)
    for window, corner in zip(out, places, strict=True):
        window[tuple(slice(start, start + side) for start, side in zip(corner, sides, strict=True))] = True
    return out


def occlusion_of(subject: Subject, number: int, cover: Tensor) -> Tensor:
    """Of each cell, what the score loses on average where a window covers it, [B, …]."""
    entry = subject.entries[number]
    pairs = subject.portions(subject.size, len(cover))
    kept = [subject.only(number, ~cover[which], rows) for rows, which in pairs]
    with torch.no_grad():
        whole = subject.score(subject.points)
    lost = whole[:, None] - torch.cat(kept).view(subject.size, len(cover))
    flat = cover.flatten(1).float()
    cells = (lost @ flat) / flat.sum(0).clamp(min=1)
    return entry.real_alone(cells.view(subject.size, *entry.shape))


def occlusion(subject: Subject, *, seed: int = 0) -> Maps:
    """What the score loses where a window is put to the baseline (Zeiler and Fergus 2014, arXiv:1311.2901).

    A window is a seventh of a picture's side and moves by half of that; a token; a number; a class; a sixty-fourth of
    a sequence's steps by a sixteenth of its features. Where windows overlap, the mean counts. One column is covered at
    a time. All channels of a cell share what it loses.
    """
    out: list[Tensor | None] = []
    for number, entry in enumerate(subject.entries):
        cells = occlusion_of(subject, number, covers(entry.shape, *windows_of(entry), subject.device))
        out.append(cells / entry.shape[0] if entry.spec.kind == "image" else cells)
    return Maps(out)
