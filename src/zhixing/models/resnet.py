"""The residual networks."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..layers.convolution import ConvBlock, cells, pool_first
from ..layers.initialise import initialise
from .encoding import Encoder, Encoding, Spec

__all__ = ["ResNet", "ResNet18", "ResNet34", "ResNet50", "ResNet101", "ResNet152"]

SMALL = 64


class ResNet(Encoder):
    """Residual network (He et al. 2016, arXiv:1512.03385), for pictures of any size.

    Four stages of residual blocks, each half as wide and high as the one before and of twice the channels. Where it
    halves, a block of three convolutions does so in the 3x3 one, as the common implementations do; the paper does so
    in the first 1x1.

    The stem quarters a picture, with a 7x7 convolution of stride 2 and a pool. That leaves next to nothing of a small
    one, so for pictures with a side under 64 pixels ``small_input: auto`` takes the stem for CIFAR instead: one 3x3
    convolution of stride 1 and no pool. ``true`` and ``false`` settle it by hand.

    Shape: values [B, C, H, W] to pooled [B, D], the mean of tokens [B, T, D], the cells of the last feature map.
    """

    accepts = frozenset({"image"})
    depths: ClassVar[tuple[int, ...]]
    bottleneck: ClassVar[bool] = False

    def __init__(
        self,
        spec: Spec,
        *,
        small_input: Annotated[
            Literal["auto"] | bool, Field(description="3x3 stem without a pool; auto: for sides under 64 pixels")
        ] = "auto",
        zero_init: Annotated[
            bool, Field(description="start each residual branch at zero (its last batch norm's scale)")
        ] = False,
    ) -> None:
        super().__init__()
        small = min(spec.shape[1:]) < SMALL if small_input == "auto" else small_input
        self.stem = stem(spec.shape[0], small)
        block = bottleneck_block if self.bottleneck else basic_block
        channels = 64
        layers: list[ResidualBlock] = []
        for stage, depth in enumerate(self.depths):
            for number in range(depth):
                layers.append(block(channels, 64 * 2**stage, stride=2 if stage > 0 and number == 0 else 1))
                channels = layers[-1].channels
        self.blocks = nn.Sequential(*layers)
        self.width = self.token_width = channels
        initialise(self, "he")
        if zero_init:
            for layer in layers:
                layer.silence_branch()

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Encoding:
        features = self.blocks(self.stem(values))
        tokens, grid = cells(features)
        return Encoding(features.mean((2, 3)), tokens, grid=grid)


class ResidualBlock(nn.Module):
    """relu(branch(x) + shortcut(x)); the shortcut is x itself, or a 1x1 convolution of it where the shape changes.

    Shape: [B, C, H, W] to [B, C', ceil(H / stride), ceil(W / stride)].
    """

    def __init__(self, channels_in: int, channels: int, stride: int, branch: list[ConvBlock]) -> None:
        super().__init__()
        self.channels = channels
        self.branch = nn.Sequential(*branch)
        same = stride == 1 and channels_in == channels
        self.shortcut = nn.Identity() if same else convolve(channels_in, channels, 1, stride)

    def silence_branch(self) -> None:
        """Set the scale of the branch's last normalisation to zero, so that the block starts as its shortcut."""
        last = self.branch[-1]
        assert isinstance(last, ConvBlock)
        assert isinstance(last.norm, nn.BatchNorm2d)
        nn.init.zeros_(last.norm.weight)

    def forward(self, values: Tensor) -> Tensor:
        return F.relu(self.branch(values) + self.shortcut(values))


def basic_block(channels_in: int, channels: int, stride: int) -> ResidualBlock:
    branch = [convolve(channels_in, channels, 3, stride, nn.ReLU()), convolve(channels, channels, 3)]
    return ResidualBlock(channels_in, channels, stride, branch)


def bottleneck_block(channels_in: int, channels: int, stride: int) -> ResidualBlock:
    branch = [
        convolve(channels_in, channels, 1, activation=nn.ReLU()),
        convolve(channels, channels, 3, stride, nn.ReLU()),
        convolve(channels, 4 * channels, 1),
    ]
    return ResidualBlock(channels_in, 4 * channels, stride, branch)


def stem(channels_in: int, small: bool) -> nn.Sequential:
    if small:
        return nn.Sequential(convolve(channels_in, 64, 3, activation=nn.ReLU()))
    return pool_first(nn.Sequential(convolve(channels_in, 64, 7, 2, nn.ReLU()), nn.MaxPool2d(3, stride=2, padding=1)))


def convolve(
    channels_in: int, channels: int, kernel: int, stride: int = 1, activation: nn.Module | None = None
) -> ConvBlock:
    convolution = nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2, bias=False)
    return ConvBlock(convolution, activation=activation)


class ResNet18(ResNet):
    """ResNet-18: 8 residual blocks of two 3x3 convolutions; for pictures of any size."""

    depths = (2, 2, 2, 2)


class ResNet34(ResNet):
    """ResNet-34: 16 residual blocks of two 3x3 convolutions; for pictures of any size."""

    depths = (3, 4, 6, 3)


class ResNet50(ResNet):
    """ResNet-50: 16 residual blocks of three convolutions, 1x1, 3x3 and 1x1; for pictures of any size."""

    depths = (3, 4, 6, 3)
    bottleneck = True


class ResNet101(ResNet):
    """ResNet-101: 33 residual blocks of three convolutions, 1x1, 3x3 and 1x1; for pictures of any size."""

    depths = (3, 4, 23, 3)
    bottleneck = True


class ResNet152(ResNet):
    """ResNet-152: 50 residual blocks of three convolutions, 1x1, 3x3 and 1x1; for pictures of any size."""

    depths = (3, 8, 36, 3)
    bottleneck = True
