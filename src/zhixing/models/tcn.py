"""The temporal convolutional network.

Shape legend: B rows, F features, C channels, T steps.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from .encoding import Encoding, Spec, StepEncoder, Steps, TokenWidth, pool_tokens

__all__ = ["TCN"]

DEEPEST = 8  # blocks that are taken unasked


class TCN(StepEncoder):
    """Temporal convolutional network (Bai et al. 2018, arXiv:1803.01271): residual blocks of dilated convolutions.

    The windows of each block are spread twice as wide as those of the one before, so that what a step sees doubles
    with each block. With ``causal`` a step sees itself and those before it; otherwise as many on both sides.

    As in the paper: two convolutions a block, each with weight normalisation, ReLU and dropout of whole channels. The
    weights start as torch's own layers do; the paper draws them from a normal distribution with deviation 0.01.

    Shape: values [B, T] tokens, [B, T, F], or [B, C, H, W] read as [B, H, C W], to tokens [B, T, D] and pooled [B, D].

    >>> encoder = TCN(Spec("sequence", (40, 3)), width=8)
    >>> encoding = encoder(torch.zeros(2, 30, 3), torch.ones(2, 30, dtype=torch.bool))
    >>> encoding.pooled.shape, encoding.tokens.shape, len(encoder.blocks)
    (torch.Size([2, 8]), torch.Size([2, 30, 8]), 4)
    """

    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Field(ge=1, description="channels of each block")] = 64,
        depth: Annotated[
            int | None, Field(ge=1, description="blocks; open: as many as see the longest row whole, 8 at most")
        ] = None,
        kernel: Annotated[int, Field(ge=2, description="steps in a window")] = 3,
        causal: Annotated[bool, Field(description="each step sees only itself and those before it")] = True,
        weight_norm: Annotated[bool, Field(description="learn length and direction of weights apart")] = True,
        dropout: Annotated[float, Field(ge=0, lt=1, description="share of channels dropped after a convolution")] = 0.2,
        pooling: Annotated[
            Literal["last", "mean", "max"] | None,
            Field(
                description="summary: the last step's token, or mean or largest of all; open: last if causal, else mean"
            ),
        ] = None,
        embedding: TokenWidth = 128,
    ) -> None:
        super().__init__()
        self.steps = Steps(spec, embedding)
        if depth is None:
            depth = next((n for n in range(1, DEEPEST) if reach(n, kernel) >= self.steps.most), DEEPEST)
        widths = [self.steps.width] + [width] * depth
        self.blocks = nn.ModuleList(
            Block(widths[n], width, kernel, 2**n, causal=causal, weight_norm=weight_norm, dropout=dropout)
            for n in range(depth)
        )
        self.pooling = pooling or ("last" if causal else "mean")
        self.width = self.token_width = width

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Encoding:
        steps, mask = self.steps(values, mask)
        x_BCT, gone = steps.transpose(1, 2), None if mask is None else ~mask.unsqueeze(1)
        for block in self.blocks:
            x_BCT = block(x_BCT, gone)
        tokens = x_BCT.transpose(1, 2)
        return Encoding(pool_tokens(tokens, mask, self.pooling), tokens, mask)


def reach(depth: int, kernel: int) -> int:
    """Steps that a step sees through so many blocks, itself included."""
    return 1 + 2 * (kernel - 1) * ((1 << depth) - 1)


class Block(nn.Module):
    """Two dilated convolutions beside a shortcut. ``gone`` [B, 1, T] are steps that are not real: they stay zero."""

    def __init__(
        self,
        features: int,
        channels: int,
        kernel: int,
        dilation: int,
        *,
        causal: bool,
        weight_norm: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        beyond = (kernel - 1) * dilation  # steps of a window beside its own; of an odd number the halves take turns
        before = (beyond, beyond) if causal else (beyond // 2, beyond - beyond // 2)
        self.first = DilatedConv1d(features, channels, kernel, dilation, before=before[0], weight_norm=weight_norm)
        self.second = DilatedConv1d(channels, channels, kernel, dilation, before=before[1], weight_norm=weight_norm)
        self.shortcut = nn.Conv1d(features, channels, 1) if features != channels else nn.Identity()
        self.dropout = nn.Dropout1d(dropout) if dropout else nn.Identity()

    def forward(self, x_BCT: Tensor, gone: Tensor | None = None) -> Tensor:
        inner = cleared(self.dropout(self.first(x_BCT).relu()), gone)
        inner = self.dropout(self.second(inner).relu())
        return cleared((inner + self.shortcut(x_BCT)).relu(), gone)


def cleared(x_BCT: Tensor, gone: Tensor | None) -> Tensor:
    return x_BCT if gone is None else x_BCT.masked_fill(gone, 0.0)


class DilatedConv1d(nn.Conv1d):
    """A convolution over every ``dilation``-th step that keeps their number; windows begin ``before`` steps earlier.

    With ``weight_norm`` the weights of a channel are ``gain`` times the direction of ``weight`` (Salimans and Kingma
    2016, arXiv:1602.07868); they start as without it. Whoever draws ``weight`` anew then changes directions alone.

    Shape: [B, C, T] to [B, C', T].
    """

    def __init__(
        self, features: int, channels: int, kernel: int, dilation: int, *, before: int, weight_norm: bool
    ) -> None:
        super().__init__(features, channels, kernel, dilation=dilation)
        self.around = (before, (kernel - 1) * dilation - before)
        length = torch.linalg.vector_norm(self.weight.detach(), dim=(1, 2), keepdim=True)
        self.gain = nn.Parameter(length) if weight_norm else None

    def forward(self, x_BCT: Tensor) -> Tensor:
        weight = self.weight
        if self.gain is not None:
            weight = weight * (self.gain / torch.linalg.vector_norm(weight, dim=(1, 2), keepdim=True))
        return F.conv1d(F.pad(x_BCT, self.around), weight, self.bias, dilation=self.dilation)
