"""The Conformer encoder: attention for what is far apart, convolution for what is near.

Shape legend: B rows, T steps, F features of a step, D width.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..errors import UsageError
from ..layers.attention import Attention, Mask
from ..layers.feedforward import FeedForward
from ..layers.positions import Rotary, Rotation
from ..layers.transformer import Depth, Dropout, Heads, Width
from .encoding import Encoder, Encoding, Spec, pool_tokens

__all__ = ["Conformer"]


def hide(x_BTD: Tensor, mask: Tensor | None) -> Tensor:
    """Zero where no step is real: just what a convolution finds beyond the end of a row that stands alone."""
    return x_BTD if mask is None else x_BTD.masked_fill(~mask.unsqueeze(-1), 0.0)


class Subsample(nn.Module):
    """Steps to tokens of ``width``: convolutions over 3 steps, each leaving every second one.

    Token t stands in the middle of what it sees, and is real where step t x factor is.
    """

    def __init__(self, features: int, width: int, factor: Literal[1, 2, 4]) -> None:
        super().__init__()
        halvings = factor.bit_length() - 1
        self.halvings = nn.ModuleList(
            nn.Conv1d(width if number else features, width, 3, stride=2, padding=1) for number in range(halvings)
        )
        self.project = nn.Linear(width if halvings else features, width)

    def forward(self, x_BTF: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        for halving in self.halvings:
            x_BTF = F.relu(halving(hide(x_BTF, mask).transpose(1, 2)).transpose(1, 2))
            mask = None if mask is None else mask[:, ::2]
        return self.project(hide(x_BTF, mask)), mask


class ConvolutionModule(nn.Module):
    """A gate on each token, a filter over time for each unit, and a linear layer (section 2.2 of the paper).

    Shape: x [B, T, D], mask [B, T] to [B, T, D].
    """

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.enter = nn.Linear(width, 2 * width)
        self.filter = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, width)

    def forward(self, x_BTD: Tensor, mask: Tensor | None) -> Tensor:
        gated = hide(F.glu(self.enter(x_BTD)), mask)
        near = self.filter(gated.transpose(1, 2)).transpose(1, 2)
        out: Tensor = self.leave(F.silu(self.norm(near)))
        return out


class ConformerBlock(nn.Module):
    """Half a feed-forward step, attention, convolution, another half; each on a normalised input, then a last norm.

    Shape: x [B, T, D], mask [B, T] to [B, T, D].
    """

    def __init__(self, width: int, heads: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(5))
        self.first, self.second = FeedForward(width), FeedForward(width)
        self.attention = Attention(width, heads=heads)
        self.convolution = ConvolutionModule(width, kernel)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x_BTD: Tensor, mask: Tensor | None, may: Mask, rotation: Rotation) -> Tensor:
        first, attention, convolution, second, last = self.norms
        x_BTD = x_BTD + 0.5 * self.dropout(self.first(first(x_BTD)))
        x_BTD = x_BTD + self.dropout(self.attention(attention(x_BTD), mask=may, rotation=rotation))
        x_BTD = x_BTD + self.dropout(self.convolution(convolution(x_BTD), mask))
        x_BTD = x_BTD + 0.5 * self.dropout(self.second(second(x_BTD)))
        out: Tensor = last(x_BTD)
        return out


class Conformer(Encoder):
    """Conformer (Gulati et al. 2020, arXiv:2005.08100): blocks of attention and convolution, made for speech.

    Other than in the paper: steps are thinned by convolutions over time alone, since features of other sequences than
    sound have no neighbours; positions turn queries and keys (rotary) in place of a learned relative term; a layer norm
    stands where batch norm would mix the rows of a batch; feed-forward has GELU for Swish, and one dropout.

    What follows a row's real steps never changes its tokens. A row without any has the summary zero.

    Shape: values [B, T, F] to tokens [B, ceil(T / subsample), D] and pooled [B, D], their mean.

    Attributes:
        shrink: steps that one token stands for.

    Raises:
        UsageError: an even kernel; heads that do not divide the width evenly into pairs.

    >>> encoder = Conformer(Spec("sequence", (98, 80)), width=16, depth=1)
    >>> encoding = encoder(torch.zeros(2, 98, 80), torch.ones(2, 98, dtype=torch.bool))
    >>> encoding.pooled.shape, encoding.tokens.shape, encoder.shrink
    (torch.Size([2, 16]), torch.Size([2, 25, 16]), 4)
    """

    accepts = frozenset({"sequence"})

    def __init__(
        self,
        spec: Spec,
        *,
        width: Width = 144,
        depth: Depth = 4,
        heads: Heads = 4,
        kernel: Annotated[int, Field(ge=1, le=255, description="tokens that a convolution sees, an odd number")] = 15,
        dropout: Dropout = 0.1,
        subsample: Annotated[Literal[1, 2, 4], Field(description="steps that become one token")] = 4,
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise UsageError(
                f"kernel {kernel} is even: a convolution sees as many tokens on either side of its own",
                place="conformer",
                mend=f"Choose {kernel - 1} or {kernel + 1}.",
            )
        self.subsample = Subsample(spec.shape[-1], width, subsample)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.blocks = nn.ModuleList(ConformerBlock(width, heads, kernel, dropout) for _ in range(depth))
        self.positions = Rotary(width // heads)
        self.width = self.token_width = width
        self.shrink = subsample

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Encoding:
        x_BTD, mask = self.subsample(values, mask)
        x_BTD = self.dropout(x_BTD)
        rotation = self.positions.rotation(torch.arange(x_BTD.shape[1], device=x_BTD.device), x_BTD.dtype)
        may = Mask.of(mask)
        for block in self.blocks:
            x_BTD = block(x_BTD, mask, may, rotation)
        return Encoding(pool_tokens(x_BTD, mask, "mean"), x_BTD, mask)
