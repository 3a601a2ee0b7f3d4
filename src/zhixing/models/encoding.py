"""What every encoder takes and gives.

Shape legend: B rows, T tokens, D width of a token, C channels, H height, W width of a picture, F features.
"""

from __future__ import annotations

from math import prod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..columns.column import Spec

__all__ = ["Encoder", "Encoding", "Spec", "as_steps", "pool_tokens", "step_width"]


class Encoding(NamedTuple):
    """What an encoder says of a batch of one column.

    ``pooled`` [B, D] is the summary that heads for whole rows read. ``tokens`` [B, T, D'] are its parts (the cells of
    a convolution's last feature map, the states of a recurrent network), for heads that generate or tag, and for
    explanations; ``mask`` [B, T] is True where a token is real, None where all are. ``grid`` is the (height, width)
    of tokens that lie on a picture, T = height x width, row by row.
    """

    pooled: Tensor
    tokens: Tensor
    mask: Tensor | None = None
    grid: tuple[int, int] | None = None


class Encoder(nn.Module):
    """Base of the encoders: ``forward(values, mask) -> Encoding``.

    A subclass takes the column's :class:`Spec` as its only positional argument and its settings as keyword-only
    arguments with annotations, from which the recipe is derived. After ``__init__`` it has ``width``, the D of
    ``pooled``, and ``token_width``, the D' of ``tokens``.
    """

    accepts: ClassVar[frozenset[str]] = frozenset()
    width: int
    token_width: int

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Encoding:
        raise AssertionError(f"{type(self).__name__} has no forward")


def step_width(spec: Spec) -> int:
    """Features of a step of a sequence (T, F), or of a row of a picture (C, H, W): C x W numbers.

    >>> step_width(Spec("sequence", (5, 3))), step_width(Spec("image", (3, 8, 10)))
    (3, 30)
    """
    return prod(spec.shape) // spec.shape[-2]


def as_steps(values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """A sequence as it is, with its mask [B, T]; a picture [B, C, H, W] as its rows [B, H, C W], all of them real."""
    if values.ndim == 4:
        return values.transpose(1, 2).flatten(2), None
    return values, mask


def pool_tokens(tokens: Tensor, mask: Tensor | None, how: str) -> Tensor:
    """One vector [B, D] of the real tokens of each row: their mean, the largest of each unit, the first or the last.

    Zeros for a row without any.

    >>> tokens, mask = torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[True, True, False]])
    >>> [pool_tokens(tokens, mask, how).item() for how in ("mean", "max", "first", "last")]
    [2.0, 3.0, 1.0, 3.0]
    """
    if mask is None:
        mask = tokens.new_ones(tokens.shape[:2], dtype=torch.bool)
    count = mask.sum(1, keepdim=True)
    if how == "mean":
        return tokens.masked_fill(~mask.unsqueeze(-1), 0.0).sum(1) / count.clamp(min=1)
    if how == "max":
        pooled = tokens.masked_fill(~mask.unsqueeze(-1), float("-inf")).amax(1)
    else:
        assert how in ("first", "last"), how
        steps = mask.cumsum(1) * mask  # 1 for the first real token, 2 for the second, ...
        place = (steps == (1 if how == "first" else count)).int().argmax(1)
        pooled = tokens.gather(1, place[:, None, None].expand(-1, 1, tokens.shape[-1])).squeeze(1)
    return pooled.masked_fill(count == 0, 0.0)
