"""Grad-CAM: which places of the last map speak for the answer.

Shape legend: B rows, T tokens, D width of a token, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models.encoding import Encoding
from ..subject import Entry, NotApplicableError, Subject, differentiable
from .maps import Maps

__all__ = ["grad_cam", "spread"]

SIDE = 5  # cells of a map that says where


class Seen(NamedTuple):
    """What went through one encoder: its encoding, and what each of its layers gave, first to last."""

    encodings: list[Encoding]
    layers: list[Tensor]


@contextmanager
def watched(encoder: nn.Module) -> Iterator[Seen]:
    seen = Seen([], [])

    def note(module: nn.Module, given: object, out: object) -> None:
        first = out[0] if isinstance(out, tuple) and not isinstance(out, Encoding) and out else out
        if isinstance(first, Encoding):
            seen.encodings.append(first)
        elif isinstance(first, Tensor) and first.requires_grad:
            seen.layers.append(first)

    handles = [module.register_forward_hook(note) for module in encoder.modules()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def as_tokens(layer: Tensor, encoding: Encoding) -> Tensor | None:
    """A layer's output as [B, T, D], where it has a cell for each token or lies on a grid; without a class token."""
    rows, count, width = encoding.tokens.shape
    if layer.ndim == 4 and encoding.grid is not None and len(layer) == rows and min(layer.shape[2:]) > 1:
        return layer.flatten(2).transpose(1, 2)
    if layer.ndim == 3 and layer.shape[0] == rows and layer.shape[2] == width and layer.shape[1] in (count, count + 1):
        return layer[:, -count:]
    return None


def grid_of(layer: Tensor, encoding: Encoding) -> tuple[int, int] | None:
    return (layer.shape[2], layer.shape[3]) if layer.ndim == 4 else encoding.grid


def candidates(seen: Seen) -> Iterator[Tensor]:
    """Layers from the last to the first; those on a grid so small that it hardly says where come after all others."""
    layers = [layer for layer in [seen.encodings[-1].tokens, *reversed(seen.layers)] if layer.requires_grad]
    grids = [grid_of(layer, seen.encodings[-1]) for layer in layers]
    yield from (layer for layer, grid in zip(layers, grids, strict=True) if grid is None or min(grid) >= SIDE)
    yield from (layer for layer, grid in zip(layers, grids, strict=True) if grid is not None and min(grid) < SIDE)


def cam_of(total: Tensor, seen: Seen) -> tuple[Tensor, tuple[int, int] | None] | None:
    """The map [B, T] of the last layer in which more than one place matters, and its grid; None where there is none.

    The tokens themselves come first. They do not always carry the answer: a convolutional network's summary is of the
    map that they are a view of, a class token's of the block before.
    """
    encoding = seen.encodings[-1]
    if encoding.tokens.shape[1] < 2:
        return None
    for layer in candidates(seen):
        tokens = as_tokens(layer, encoding)
        if tokens is None:
            continue
        slope = torch.autograd.grad(total, layer, retain_graph=True, materialize_grads=True)[0]
        slopes = as_tokens(slope, encoding)
        assert slopes is not None
        if int((slopes.abs().sum(-1) > 0).sum(1).max()) < 2:
            continue
        real = encoding.mask if encoding.mask is not None and encoding.mask.shape == tokens.shape[:2] else None
        cam = (tokens * slopes).sum(-1).relu()
        return (cam if real is None else cam * real).detach(), grid_of(layer, encoding)
    return None


def spread(entry: Entry, tokens: Tensor, grid: tuple[int, int] | None) -> Tensor | None:
    """A number for each token [B, T] as one for each cell: between tokens it changes evenly. What a picture's channels
    or a step's features share, each has an equal part of. None where tokens do not lie along the column.
    """
    shape, kind = entry.shape, entry.spec.kind
    if kind == "image":
        if grid is None and tokens.shape[1] == shape[1]:  # rows of the picture, read one by one
            grid = (shape[1], 1)
        if grid is None:
            return None
        lying = tokens.view(-1, 1, *grid)
        wide = F.interpolate(lying, size=shape[1:], mode="bilinear", align_corners=False)
        return wide.expand(-1, *shape) / shape[0]
    if kind == "tokens":
        return entry.real_alone(tokens) if tokens.shape[1] == shape[0] else None
    if kind == "sequence":
        along = F.interpolate(tokens[:, None], size=shape[0], mode="linear", align_corners=False)[:, 0]
        return entry.real_alone(along.unsqueeze(-1).expand(-1, *shape) / shape[1])
    return None


def grad_cam(subject: Subject, *, seed: int = 0) -> Maps:
    """The last map's cells, each unit weighted by its slope there; what speaks against is left out.

    Selvaraju et al. 2017 (arXiv:1610.02391) weight a unit by its mean slope over all cells. Where the map is averaged
    before the answer, slopes are the same in all cells and this is theirs; elsewhere the mean blames cells that the
    answer does not hang on (Draelos and Carin 2020, arXiv:2011.08891, whose HiResCAM this is), which shows in deletion
    curves.

    The map is that of an encoding's tokens: the last feature map of a convolutional network that is 5 cells or more on
    a side (the last of all, where none is), the states of steps.
    """
    with differentiable(subject.model), ExitStack() as stack:
        seen = [stack.enter_context(watched(entry.encoder)) for entry in subject.entries]
        points = [point.detach().requires_grad_() for point in subject.points]
        total = subject.score(points).sum()
        cams = [cam_of(total, one) for one in seen]
    out = [None if cam is None else spread(entry, *cam) for entry, cam in zip(subject.entries, cams, strict=True)]
    if all(part is None for part in out):
        names = ", ".join(type(entry.encoder).__name__ for entry in subject.entries)
        raise NotApplicableError(
            f"grad_cam needs a map of several places that the answer is read from, and {names} gives none"
        )
    return Maps(out)
