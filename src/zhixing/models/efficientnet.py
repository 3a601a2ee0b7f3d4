"""The EfficientNets."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Annotated, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from ..errors import RunError
from ..layers.convolution import ConvBlock, SameConv2d, StochasticDepth, cells
from ..layers.initialise import initialise
from .encoding import Encoder, Encoding, Spec

__all__ = [
    "EfficientNet",
    "EfficientNetB0",
    "EfficientNetB1",
    "EfficientNetB2",
    "EfficientNetB3",
    "EfficientNetB4",
    "EfficientNetB5",
    "EfficientNetB6",
    "EfficientNetB7",
    "EfficientNetLite0",
    "load_published",
]


class Stage(NamedTuple):
    """A row of the paper's table 1: blocks of one shape; the first of them has the stride."""

    expansion: int
    channels: int
    blocks: int
    stride: int
    kernel: int


STEM, TOP = 32, 1280
STAGES = (
    Stage(expansion=1, channels=16, blocks=1, stride=1, kernel=3),
    Stage(expansion=6, channels=24, blocks=2, stride=2, kernel=3),
    Stage(expansion=6, channels=40, blocks=2, stride=2, kernel=5),
    Stage(expansion=6, channels=80, blocks=3, stride=2, kernel=3),
    Stage(expansion=6, channels=112, blocks=3, stride=1, kernel=5),
    Stage(expansion=6, channels=192, blocks=4, stride=2, kernel=5),
    Stage(expansion=6, channels=320, blocks=1, stride=1, kernel=3),
)


class EfficientNet(Encoder):
    """EfficientNet (Tan and Le 2019, arXiv:1905.11946), for pictures of any size.

    Inverted bottlenecks with squeeze and excitation; the members differ in ``width_factor`` and ``depth_factor``, by
    which the channels and the blocks of B0 are multiplied, and in the size of pictures that they were made for.
    The map that it ends with is a 32nd of the picture each way.

    Deviation from the published code: running statistics of batch normalisation move by 0.1 a step, where 0.01 needs
    thousands of steps before the network in evaluation is the one that was trained.

    Shape: values [B, C, H, W] to pooled [B, D], the mean of tokens [B, T, D], the cells of the last feature map, with
    dropout.
    """

    accepts = frozenset({"image"})
    width_factor: ClassVar[float] = 1.0
    depth_factor: ClassVar[float] = 1.0
    published_dropout: ClassVar[float] = 0.2
    lite: ClassVar[bool] = False

    def __init__(
        self,
        spec: Spec,
        *,
        dropout: Annotated[
            float | None, Field(description="share of the summary dropped; null: as published", ge=0, lt=1)
        ] = None,
        stochastic_depth: Annotated[
            float, Field(description="how often the last block is skipped; earlier ones less", ge=0, lt=1)
        ] = 0.2,
    ) -> None:
        super().__init__()
        channels = self.scaled(STEM)
        self.stem = convolve(spec.shape[0], channels, 3, stride=2, activation=self.activation())
        shapes = [stage for stage in STAGES for _ in range(ceil(self.depth_factor * stage.blocks))]
        self.blocks = nn.Sequential()
        for number, stage in enumerate(shapes):
            first = number == 0 or shapes[number - 1] != stage
            scaled = stage._replace(channels=self.scaled(stage.channels), stride=stage.stride if first else 1)
            self.blocks.append(InvertedBottleneck(channels, scaled, self.lite, stochastic_depth * number / len(shapes)))
            channels = scaled.channels
        self.width = self.token_width = self.scaled(TOP)
        self.top = convolve(channels, self.width, 1, activation=self.activation())
        self.dropout = nn.Dropout(self.published_dropout if dropout is None else dropout)
        initialise(self, "he")

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Encoding:
        features = self.top(self.blocks(self.stem(values)))
        tokens, grid = cells(features)
        return Encoding(self.dropout(features.mean((2, 3))), tokens, grid=grid)

    def activation(self) -> nn.Module:
        return nn.ReLU6() if self.lite else nn.SiLU()

    def scaled(self, channels: int) -> int:
        """``channels`` times the width factor, as a multiple of 8 that is not more than a tenth too small."""
        wanted = channels * self.width_factor
        rounded = max(8, int(wanted + 4) // 8 * 8)
        return rounded if rounded >= 0.9 * wanted else rounded + 8


class InvertedBottleneck(nn.Module):
    """A depthwise convolution between a 1x1 convolution that widens and one that narrows (Sandler et al. 2018,
    arXiv:1801.04381), with squeeze and excitation unless ``lite``.

    Shape: [B, C, H, W] to [B, C', ceil(H / stride), ceil(W / stride)].
    """

    def __init__(self, channels_in: int, stage: Stage, lite: bool, skip_rate: float) -> None:
        super().__init__()
        activation = nn.ReLU6 if lite else nn.SiLU
        hidden = channels_in * stage.expansion
        self.expand = (
            nn.Identity() if stage.expansion == 1 else convolve(channels_in, hidden, 1, activation=activation())
        )
        self.depthwise = convolve(
            hidden, hidden, stage.kernel, stride=stage.stride, groups=hidden, activation=activation()
        )
        self.excite = nn.Identity() if lite else SqueezeExcitation(hidden, max(1, channels_in // 4))
        self.project = convolve(hidden, stage.channels, 1)
        self.skip = StochasticDepth(skip_rate)
        self.residual = stage.stride == 1 and channels_in == stage.channels

    def forward(self, values: Tensor) -> Tensor:
        features: Tensor = self.project(self.excite(self.depthwise(self.expand(values))))
        return values + self.skip(features) if self.residual else features


class SqueezeExcitation(nn.Module):
    """Scale each channel by a number between 0 and 1 that is read off the means of all (Hu et al. 2018,
    arXiv:1709.01507).

    Shape: [B, C, H, W] to the same.
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.activation = nn.SiLU()

    def forward(self, features: Tensor) -> Tensor:
        means = features.mean((2, 3), keepdim=True)
        scales: Tensor = self.expand(self.activation(self.reduce(means))).sigmoid()
        return features * scales


def convolve(
    channels_in: int,
    channels: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    activation: nn.Module | None = None,
) -> ConvBlock:
    convolution = SameConv2d(channels_in, channels, kernel, stride=stride, groups=groups, bias=False)
    return ConvBlock(convolution, activation=activation, eps=1e-3)


class EfficientNetB0(EfficientNet):
    """EfficientNet-B0: made for pictures of 224x224, takes any size."""


class EfficientNetB1(EfficientNet):
    """EfficientNet-B1: made for pictures of 240x240, takes any size."""

    width_factor, depth_factor, published_dropout = 1.0, 1.1, 0.2


class EfficientNetB2(EfficientNet):
    """EfficientNet-B2: made for pictures of 260x260, takes any size."""

    width_factor, depth_factor, published_dropout = 1.1, 1.2, 0.3


class EfficientNetB3(EfficientNet):
    """EfficientNet-B3: made for pictures of 300x300, takes any size."""

    width_factor, depth_factor, published_dropout = 1.2, 1.4, 0.3


class EfficientNetB4(EfficientNet):
    """EfficientNet-B4: made for pictures of 380x380, takes any size."""

    width_factor, depth_factor, published_dropout = 1.4, 1.8, 0.4


class EfficientNetB5(EfficientNet):
    """EfficientNet-B5: made for pictures of 456x456, takes any size."""

    width_factor, depth_factor, published_dropout = 1.6, 2.2, 0.4


class EfficientNetB6(EfficientNet):
    """EfficientNet-B6: made for pictures of 528x528, takes any size."""

    width_factor, depth_factor, published_dropout = 1.8, 2.6, 0.5


class EfficientNetB7(EfficientNet):
    """EfficientNet-B7: made for pictures of 600x600, takes any size."""

    width_factor, depth_factor, published_dropout = 2.0, 3.1, 0.5


class EfficientNetLite0(EfficientNet):
    """EfficientNet-Lite0: B0 with ReLU6 and no squeeze and excitation, for phones; made for 224x224, takes any size.

    Larger members of the lite family keep B0's stem and top as they are; at Lite0's width of 1 nothing grows anyway.
    """

    lite = True


def load_published(encoder: EfficientNet, head_linear: nn.Linear, tensors: Mapping[str, Tensor]) -> None:
    """Copy published weights into an EfficientNet and the linear layer on top of it.

    The layout is that of the widespread PyTorch ports of the original (``_conv_stem.weight``,
    ``_blocks.3._bn1.running_mean``, ``_fc.bias``), in which EfficientNet-Lite0 is published. Nothing is copied unless
    all fits.

    Raises:
        RunError: tensors that are missing, not known or of the wrong shape, by name.
    """
    targets = {
        f"{prefix}.{name}": target
        for prefix, module in published_modules(encoder, head_linear).items()
        for name, target in module.state_dict().items()
    }
    problems = [f"missing: {name}" for name in targets if name not in tensors]
    problems += [f"not known: {name}" for name in tensors if name not in targets]
    problems += [
        f"{name} is {list(tensors[name].shape)}, not {list(target.shape)}"
        for name, target in targets.items()
        if name in tensors and tensors[name].shape != target.shape
    ]
    if problems:
        raise RunError("\n  ".join(["these weights are not of this network", *problems]), place=type(encoder).__name__)
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(tensors[name])


def published_modules(encoder: EfficientNet, head_linear: nn.Linear) -> dict[str, nn.Module]:
    """Our modules by their published names."""
    modules: dict[str, nn.Module] = {
        "_conv_stem": encoder.stem.convolution,
        "_bn0": encoder.stem.norm,
        "_conv_head": encoder.top.convolution,
        "_bn1": encoder.top.norm,
        "_fc": head_linear,
    }
    for number, block in enumerate(encoder.blocks):
        assert isinstance(block, InvertedBottleneck)
        parts: dict[str, nn.Module] = {
            "_depthwise_conv": block.depthwise.convolution,
            "_bn1": block.depthwise.norm,
            "_project_conv": block.project.convolution,
            "_bn2": block.project.norm,
        }
        if isinstance(block.expand, ConvBlock):
            parts |= {"_expand_conv": block.expand.convolution, "_bn0": block.expand.norm}
        if isinstance(block.excite, SqueezeExcitation):
            parts |= {"_se_reduce": block.excite.reduce, "_se_expand": block.excite.expand}
        modules |= {f"_blocks.{number}.{name}": part for name, part in parts.items()}
    return modules
