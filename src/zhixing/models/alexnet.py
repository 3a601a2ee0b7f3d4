"""AlexNet."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from ..layers.convolution import AverageTo, ConvBlock, cells, pool_first, require_size
from ..layers.initialise import initialise
from .encoding import Encoder, Encoding, Spec

__all__ = ["AlexNet"]


class AlexNet(Encoder):
    """AlexNet in its form with a single tower (Krizhevsky 2014, arXiv:1404.5997), for pictures from 63x63.

    Made for 224x224, where the last feature map has 6x6 cells; at other sizes it is averaged to 6x6. Dropout stands
    before each fully connected layer. Weights start from He's normal distribution, where the paper used fixed
    deviations.

    Shape: values [B, C, H, W] to pooled [B, D], D the last of ``dense``; tokens [B, T, 256] are the cells of the last
    feature map.

    Raises:
        UsageError: pictures under 63x63.
    """

    accepts = frozenset({"image"})
    least_size = 63

    def __init__(
        self,
        spec: Spec,
        *,
        dense: Annotated[
            tuple[Annotated[int, Field(ge=1)], ...], Field(description="units of each fully connected layer")
        ] = (4096, 4096),
        dropout: Annotated[float, Field(description="share dropped before each dense layer", ge=0, lt=1)] = 0.5,
    ) -> None:
        super().__init__()
        require_size("alexnet", spec.shape, self.least_size)
        features = nn.Sequential(
            convolve(spec.shape[0], 64, kernel=11, stride=4, padding=2),
            nn.MaxPool2d(3, stride=2),
            convolve(64, 192, kernel=5, padding=2),
            nn.MaxPool2d(3, stride=2),
            convolve(192, 384, kernel=3, padding=1),
            convolve(384, 256, kernel=3, padding=1),
            convolve(256, 256, kernel=3, padding=1),
            nn.MaxPool2d(3, stride=2),
        )
        self.features = pool_first(features)
        self.average = AverageTo(6)
        self.token_width = 256
        self.width = 256 * 6 * 6
        layers: list[nn.Module] = []
        for width in dense:
            layers += [nn.Dropout(dropout), nn.Linear(self.width, width), nn.ReLU()]
            self.width = width
        self.dense = nn.Sequential(*layers)
        initialise(self, "he")

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Encoding:
        features = self.features(values)
        tokens, grid = cells(features)
        return Encoding(self.dense(self.average(features).flatten(1)), tokens, grid=grid)


def convolve(channels_in: int, channels: int, *, kernel: int, stride: int = 1, padding: int) -> ConvBlock:
    convolution = nn.Conv2d(channels_in, channels, kernel, stride, padding)
    return ConvBlock(convolution, norm=False, activation=nn.ReLU())
