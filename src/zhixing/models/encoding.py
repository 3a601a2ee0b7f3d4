"""What every encoder takes and gives.

Shape legend: B rows, T tokens, D width of a token, C channels, H height, W width of a picture, F features.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from ..columns.column import Spec

__all__ = ["Encoder", "Encoding", "Spec"]


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
