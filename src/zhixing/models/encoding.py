"""What every encoder takes and gives.

Shape legend: B rows, T tokens, D width of a token, C channels, H height, W width of a picture, F features.
"""

from __future__ import annotations

from math import prod
from typing import Annotated, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from ..columns.column import Spec

__all__ = [
    "Asked", "Encoder", "Encoding", "Spec", "StepEncoder", "Steps", "TokenWidth", "as_steps", "pool_tokens",
    "step_width",
]  # fmt: skip

TokenWidth = Annotated[int, Field(ge=1, description="units of a token's vector; without effect on other kinds")]


Asked = tuple[Tensor, ...]


class Encoding(NamedTuple):
    """What an encoder says of a batch of one column.

    ``pooled`` [B, D] is the summary that heads for whole rows read. ``tokens`` [B, T, D'] are its parts (the cells of
    a convolution's last feature map, the states of a recurrent network), for heads that generate or tag, and for
    explanations; ``mask`` [B, T] is True where a token is real, None where all are. ``grid`` is the (height, width)
    of tokens that lie on a picture, T = height x width, row by row. ``ids`` [B, T], 0 where none is, are what a decoder
    is to read in place of tokens, before its own. ``asked`` is what a head that made a question of the input wants to
    know again.
    """

    pooled: Tensor
    tokens: Tensor
    mask: Tensor | None = None
    grid: tuple[int, int] | None = None
    ids: Tensor | None = None
    asked: Asked | None = None

    @property
    def real(self) -> Tensor:
        """Which tokens are real, [B, T], where all are as well."""
        if self.mask is not None:
            return self.mask
        return torch.ones(self.tokens.shape[:2], dtype=torch.bool, device=self.tokens.device)


class Encoder(nn.Module):
    """Base of the encoders: ``forward(values, mask) -> Encoding``.

    A subclass takes the column's :class:`Spec` as its only positional argument and its settings as keyword-only
    arguments with annotations, from which the recipe is derived. After ``__init__`` it has ``width``, the D of
    ``pooled``, and ``token_width``, the D' of ``tokens``.
    """

    accepts: ClassVar[frozenset[str]] = frozenset()
    shrink: int = 1  # steps that one token stands for
    width: int
    token_width: int

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Encoding:
        raise AssertionError(f"{type(self).__name__} has no forward")

    @property
    def item_embedding(self) -> nn.Embedding | None:
        """The table of tokens' vectors, whose weights a head may share; None where no tokens are read."""
        return None


def step_width(spec: Spec) -> int:
    """Features of a step of a sequence (T, F), or of a row of a picture (C, H, W): C x W numbers.

    >>> step_width(Spec("sequence", (5, 3))), step_width(Spec("image", (3, 8, 10)))
    (3, 30)
    """
    return prod(spec.shape) // spec.shape[-2]


def as_steps(values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """A picture [B, C, H, W] as its rows [B, H, C W], all of them real; others as they are, with their mask [B, T]."""
    if values.ndim == 4:
        return values.transpose(1, 2).flatten(2), None
    return values, mask


class Steps(nn.Module):
    """The entrance of encoders that read steps one by one: whatever these are, as vectors, zero where none is real.

    Rows of a picture and steps of a sequence are taken as they are. Tokens are looked up in a table of vectors, drawn
    with variance 1 / width: a vector's length is then about 1, and so are the logits of a head that shares the table.
    The token 0, padding, is zero and stays so; where no mask is given, it is what is not real. A batch without a
    single step gets one that is not real, since torch's recurrent kernels take no empty sequence.

    Args:
        width: units of a token's vector; without effect on other kinds. F is in ``width`` afterwards, and the most
            steps of a row in ``most``.

    Shape: values [B, T] int64, [B, T, F] or [B, C, H, W] to steps [B, T, F] and their mask [B, T].

    >>> steps, mask = Steps(Spec("tokens", (5,), 10), 4)(torch.tensor([[7, 3, 0], [2, 0, 0]]))
    >>> steps.shape, mask.sum(1).tolist(), bool(steps[1, 1:].any())
    (torch.Size([2, 3, 4]), [2, 1], False)
    """

    def __init__(self, spec: Spec, width: int) -> None:
        super().__init__()
        self.embedding: nn.Embedding | None = None
        if spec.kind != "tokens":
            self.width, self.most = step_width(spec), spec.shape[-2]
            return
        self.width, self.most = width, spec.shape[0]
        self.embedding = nn.Embedding(spec.vocabulary, width, padding_idx=0)
        with torch.no_grad():
            nn.init.normal_(self.embedding.weight, std=width**-0.5)
            self.embedding.weight[0] = 0

    def forward(self, values: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        if self.embedding is not None and mask is None:
            mask = values != 0
        steps, mask = as_steps(values, mask)
        if not steps.shape[1]:
            steps = torch.cat([steps, steps.new_zeros(len(steps), 1, *steps.shape[2:])], dim=1)
            mask = steps.new_zeros(steps.shape[:2], dtype=torch.bool)
        if self.embedding is not None:
            assert mask is not None
            return self.embedding(steps.masked_fill(~mask, 0)), mask
        return (steps if mask is None else steps.masked_fill(~mask.unsqueeze(-1), 0.0)), mask


class StepEncoder(Encoder):
    """Base of the encoders that read steps one by one, through ``steps``: tokens, a sequence or rows of a picture."""

    accepts = frozenset({"image", "sequence", "tokens"})
    steps: Steps

    @property
    def item_embedding(self) -> nn.Embedding | None:
        return self.steps.embedding


def pool_tokens(tokens: Tensor, mask: Tensor | None, how: str) -> Tensor:
    """One vector [B, D] of the real tokens of each row: their mean or sum, the largest of each unit, the first or last.

    Zeros for a row without any.

    >>> tokens, mask = torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[True, True, False]])
    >>> [pool_tokens(tokens, mask, how).item() for how in ("mean", "sum", "max", "first", "last")]
    [2.0, 4.0, 3.0, 1.0, 3.0]
    """
    if mask is None:
        mask = tokens.new_ones(tokens.shape[:2], dtype=torch.bool)
    count = mask.sum(1, keepdim=True)
    if how in ("mean", "sum"):
        total = tokens.masked_fill(~mask.unsqueeze(-1), 0.0).sum(1)
        return total if how == "sum" else total / count.clamp(min=1)
    if how == "max":
        pooled = tokens.masked_fill(~mask.unsqueeze(-1), float("-inf")).amax(1)
    else:
        assert how in ("first", "last"), how
        steps = mask.cumsum(1) * mask  # 1 for the first real token, 2 for the second, ...
        place = (steps == (1 if how == "first" else count)).int().argmax(1)
        pooled = tokens.gather(1, place[:, None, None].expand(-1, 1, tokens.shape[-1])).squeeze(1)
    return pooled.masked_fill(count == 0, 0.0)
