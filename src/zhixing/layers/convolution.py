"""Blocks that the convolutional networks share.

Shape legend: B rows, C channels, H height, W width, T = H x W cells.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError

__all__ = [
    "AverageTo",
    "ConvBlock",
    "SameConv2d",
    "StochasticDepth",
    "cells",
    "pool_first",
    "require_size",
    "size_after",
]


def size_after(size: int, kernel: int, stride: int, padding: int) -> int:
    """Height or width that a convolution or pool leaves of ``size``; below 1, it does not fit.

    >>> size_after(28, 3, 1, 0), size_after(224, 7, 2, 3), size_after(2, 3, 1, 0)
    (26, 112, 0)
    """
    return (size + 2 * padding - kernel) // stride + 1


def require_size(name: str, shape: tuple[int, ...], least: int) -> None:
    """Raise a UsageError where a picture of ``shape`` (C, H, W) is smaller than ``least`` each way."""
    height, width = shape[1:]
    if min(height, width) < least:
        raise UsageError(
            f"pictures must be at least {least}x{least}, so that every pool leaves a cell; these are {height}x{width}",
            place=name,
            mend=f"Set the column's size to {least} or more, or choose cnn or resnet18, which take smaller pictures.",
        )


def cells(features: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """A feature map [B, C, H, W] as tokens [B, T, C], row by row, and its grid (H, W)."""
    height, width = features.shape[2:]
    return features.flatten(2).transpose(1, 2), (height, width)


class SameConv2d(nn.Conv2d):
    """A convolution that leaves ceil(size / stride) cells each way, whatever its kernel.

    Where the zeros around a picture do not divide evenly, the odd one goes below and to the right. This is the
    padding that TensorFlow calls SAME; weights trained with it need it.

    Shape: [B, C, H, W] to [B, C', ceil(H / stride), ceil(W / stride)].
    """

    def __init__(
        self, channels_in: int, channels: int, kernel: int, *, stride: int = 1, groups: int = 1, bias: bool = True
    ) -> None:
        super().__init__(channels_in, channels, kernel, stride=stride, groups=groups, bias=bias)

    def forward(self, values: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (max((-(size // -stride) - 1) * stride + kernel - size, 0) for size in values.shape[2:])
        if height % 2 or width % 2:
            values = F.pad(values, (width // 2, width - width // 2, height // 2, height - height // 2))
            height = width = 0
        return F.conv2d(
            values, self.weight, self.bias, self.stride, (height // 2, width // 2), self.dilation, self.groups
        )


class ConvBlock(nn.Module):
    """A convolution, then batch normalisation, then an activation; the last two may be left out.

    Shape: [B, C, H, W] to what the convolution gives.
    """

    def __init__(
        self,
        convolution: nn.Conv2d,
        *,
        norm: bool = True,
        activation: nn.Module | None = None,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.convolution = convolution
        self.norm = nn.BatchNorm2d(convolution.out_channels, eps=eps) if norm else nn.Identity()
        self.activation = nn.Identity() if activation is None else activation

    def forward(self, values: Tensor) -> Tensor:
        features: Tensor = self.activation(self.norm(self.convolution(values)))
        return features


def pool_first(layers: nn.Sequential) -> nn.Sequential:
    """Layers in which a rectifier that stands before a max pool comes after it: the largest of rectified numbers is
    the largest, rectified. Outputs and gradients are the same to the bit, on a quarter of the numbers.

    Shape: as of the layers.

    >>> block = ConvBlock(nn.Conv2d(1, 8, 3), norm=False, activation=nn.ReLU())
    >>> pool_first(nn.Sequential(block, nn.MaxPool2d(2)))[1]
    Sequential(
      (0): MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)
      (1): ReLU()
    )
    """
    for place, (block, pool) in enumerate(pairwise(layers), start=1):
        if isinstance(pool, nn.MaxPool2d) and isinstance(block, ConvBlock) and isinstance(block.activation, nn.ReLU):
            layers[place] = nn.Sequential(pool, block.activation)
            block.activation = nn.Identity()
    return layers


class AverageTo(nn.Module):
    """Averages of a feature map over a fixed number of overlapping windows, whatever its size.

    The same windows as ``nn.AdaptiveAvgPool2d``, of which the gradient on a GPU adds up in no fixed order; this one
    is repeatable to the bit. A map that is smaller than ``size`` has its cells repeated.

    Shape: [B, C, H, W] to [B, C, size, size].
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def extra_repr(self) -> str:
        return str(self.size)

    def forward(self, features: Tensor) -> Tensor:
        for dim in (2, 3):
            features = self.average(features, dim)
        return features

    def average(self, features: Tensor, dim: int) -> Tensor:
        length, size = features.shape[dim], self.size
        if length == size:
            return features
        starts = [i * length // size for i in range(size)]
        stops = [-((i + 1) * length // -size) for i in range(size)]
        windows = [
            features.narrow(dim, start, stop - start).mean(dim, keepdim=True)
            for start, stop in zip(starts, stops, strict=True)
        ]
        return torch.cat(windows, dim)


class StochasticDepth(nn.Module):
    """Zero whole rows with probability ``rate`` while training, and scale the others by 1 / (1 - rate).

    On the branch of a residual block this skips the block for that row (Huang et al. 2016, arXiv:1603.09382).

    Shape: [B, C, H, W] to the same.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        assert 0 <= rate < 1, rate
        self.rate = rate

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3g}"

    def forward(self, features: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return features
        return features * F.dropout(features.new_ones(len(features), 1, 1, 1), self.rate)
