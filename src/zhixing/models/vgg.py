"""The VGG networks."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor, nn

from ..layers.convolution import AverageTo, ConvBlock, cells, pool_first, require_size
from ..layers.initialise import initialise
from .encoding import Encoder, Encoding, Spec
from .mlp import dense_layers

__all__ = [
    "VGG",
    "VGG11",
    "VGG13",
    "VGG16",
    "VGG19",
    "VGG11BatchNorm",
    "VGG13BatchNorm",
    "VGG16BatchNorm",
    "VGG19BatchNorm",
]

CHANNELS = (64, 128, 256, 512, 512)


class VGG(Encoder):
    """VGG (Simonyan and Zisserman 2015, arXiv:1409.1556): stages of 3x3 convolutions, each halved by a pool.

    For pictures from 32x32. Made for 224x224, where the last feature map has 7x7 cells; at other sizes it is averaged
    to 7x7. A member of the family is told by ``depths``, the number of convolutions in each stage, and
    ``batch_norm``, whether batch normalisation follows them. Weights start from He's normal distribution; the paper
    started the deep ones from trained shallow ones.

    Shape: values [B, C, H, W] to pooled [B, D], D the last of ``dense``; tokens [B, T, 512] are the cells of the last
    feature map.

    Raises:
        UsageError: pictures under 32x32.
    """

    accepts = frozenset({"image"})
    least_size = 2 ** len(CHANNELS)
    depths: ClassVar[tuple[int, ...]]
    batch_norm: ClassVar[bool] = False

    def __init__(
        self,
        spec: Spec,
        *,
        dense: Annotated[
            tuple[Annotated[int, Field(ge=1)], ...], Field(description="units of each fully connected layer")
        ] = (4096, 4096),
        dropout: Annotated[float, Field(description="share of units dropped after each dense layer", ge=0, lt=1)] = 0.5,
    ) -> None:
        super().__init__()
        require_size("vgg", spec.shape, self.least_size)
        layers: list[nn.Module] = []
        channels_in = spec.shape[0]
        for depth, channels in zip(self.depths, CHANNELS, strict=True):
            for _ in range(depth):
                # The biases do nothing ahead of a batch normalisation, but the published networks have them.
                convolution = nn.Conv2d(channels_in, channels, 3, padding=1)
                layers.append(ConvBlock(convolution, norm=self.batch_norm, activation=nn.ReLU()))
                channels_in = channels
            layers.append(nn.MaxPool2d(2))
        self.features = pool_first(nn.Sequential(*layers))
        self.average = AverageTo(7)
        self.token_width = channels_in
        self.dense, self.width = dense_layers(channels_in * 7 * 7, dense, "relu", dropout)
        initialise(self, "he")

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Encoding:
        features = self.features(values)
        tokens, grid = cells(features)
        return Encoding(self.dense(self.average(features).flatten(1)), tokens, grid=grid)


class VGG11(VGG):
    """VGG-11: 8 convolutions and 3 fully connected layers, the head's among them; for pictures from 32x32."""

    depths = (1, 1, 2, 2, 2)


class VGG13(VGG):
    """VGG-13: 10 convolutions and 3 fully connected layers, the head's among them; for pictures from 32x32."""

    depths = (2, 2, 2, 2, 2)


class VGG16(VGG):
    """VGG-16: 13 convolutions and 3 fully connected layers, the head's among them; for pictures from 32x32."""

    depths = (2, 2, 3, 3, 3)


class VGG19(VGG):
    """VGG-19: 16 convolutions and 3 fully connected layers, the head's among them; for pictures from 32x32."""

    depths = (2, 2, 4, 4, 4)


class VGG11BatchNorm(VGG11):
    """VGG-11 with batch normalisation after each convolution."""

    batch_norm = True


class VGG13BatchNorm(VGG13):
    """VGG-13 with batch normalisation after each convolution."""

    batch_norm = True


class VGG16BatchNorm(VGG16):
    """VGG-16 with batch normalisation after each convolution."""

    batch_norm = True


class VGG19BatchNorm(VGG19):
    """VGG-19 with batch normalisation after each convolution."""

    batch_norm = True
