"""A convolutional network of one's own making: a list of layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag
from torch import Tensor, nn

from ..errors import UsageError
from ..layers.activation import Activation, make_activation
from ..layers.convolution import ConvBlock, SameConv2d, cells, pool_first, size_after
from ..settings import Settings
from .encoding import Encoder, Encoding, Spec
from .mlp import dense_layers

__all__ = ["CNN", "Convolution"]


class Convolution(Settings):
    """A convolution in the list of layers, where the number of its channels alone does not say enough."""

    channels: Annotated[int, Field(description="feature maps that it gives", ge=1)]
    kernel: Annotated[int, Field(description="height and width of the window", ge=1)] = 3
    stride: Annotated[int, Field(description="cells from one window to the next", ge=1)] = 1
    padding: Annotated[
        Literal["same", "valid"] | Annotated[int, Field(ge=0)],
        Field(description="zeros around the picture: none (valid), enough to keep size / stride (same), or how many"),
    ] = "valid"


def kind_of(layer: Any) -> str | None:
    """Which of the three ways to write a layer this is, so that a mistake in it is told once."""
    if isinstance(layer, int) and not isinstance(layer, bool):
        return "channels"
    if isinstance(layer, str):
        return "pool"
    return "convolution" if isinstance(layer, Mapping | Convolution) else None


Layer = Annotated[
    Annotated[int, Field(ge=1), Tag("channels")]
    | Annotated[Literal["pool"], Tag("pool")]
    | Annotated[Convolution, Tag("convolution")],
    Discriminator(kind_of),
]


TEXTBOOK: tuple[Any, ...] = (32, "pool", 64, "pool", 64)


class CNN(Encoder):
    """Convolutional network: convolutions and pools from a list, then fully connected layers.

    In ``layers`` a number is a 3x3 convolution with that many channels and no padding, ``pool`` takes the largest of
    each 2x2 cells, and a mapping spells a convolution out: ``{channels: 64, kernel: 5, stride: 2, padding: same}``.
    Left open, it is the textbook network for digits of 28x28, padded for pictures that are too small for it. With no
    ``dense`` layers the flattened map is the summary.
    Weights start as torch's own layers do.

    Shape: values [B, C, H, W] of the size in the spec to pooled [B, D], D the last of ``dense``; tokens [B, T, D'] are
    the cells of the last feature map, D' its channels.

    Raises:
        UsageError: a layer does not fit what the layers before it leave of the picture.

    >>> import torch
    >>> encoder = CNN(Spec("image", (1, 28, 28)))
    >>> encoding = encoder(torch.zeros(2, 1, 28, 28))
    >>> encoding.pooled.shape, encoding.tokens.shape, encoding.grid
    (torch.Size([2, 64]), torch.Size([2, 9, 64]), (3, 3))
    """

    accepts = frozenset({"image"})

    def __init__(
        self,
        spec: Spec,
        *,
        layers: Annotated[
            tuple[Layer, ...] | None,
            Field(
                description="a number: 3x3 convolution of so many channels; pool; or {channels, kernel, ...}; "
                "open: 32, pool, 64, pool, 64"
            ),
        ] = None,
        dense: Annotated[
            tuple[Annotated[int, Field(ge=1)], ...], Field(description="units of each fully connected layer")
        ] = (64,),
        activation: Annotated[Activation, Field(description="function after each layer")] = "relu",
        batch_norm: Annotated[bool, Field(description="batch normalisation after each convolution")] = False,
        dropout: Annotated[float, Field(description="share of units dropped after each dense layer", ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__()
        channels, *size = spec.shape
        if layers is None:
            layers = TEXTBOOK if min(size) >= 18 else tuple(padded(layer) for layer in TEXTBOOK)
        self.features = nn.Sequential()
        for number, layer in enumerate(layers, start=1):
            place = f"cnn, layer {number} ({layer})"
            if layer == "pool":
                size = fit(place, "2x2 pool", size, spec, kernel=2, stride=2, padding=0)
                self.features.append(nn.MaxPool2d(2))
                continue
            settings = spelled_out(layer)
            size = size_after_convolution(place, settings, size, spec)
            self.features.append(
                ConvBlock(
                    convolve(channels, settings, not batch_norm),
                    norm=batch_norm,
                    activation=make_activation(activation),
                )
            )
            channels = settings.channels
        self.features = pool_first(self.features)
        self.token_width = channels
        self.dense, self.width = dense_layers(channels * size[0] * size[1], dense, activation, dropout)

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Encoding:
        features = self.features(values)
        tokens, grid = cells(features)
        return Encoding(self.dense(features.flatten(1)), tokens, grid=grid)


def padded(layer: Any) -> Any:
    return layer if layer == "pool" else Convolution(channels=layer, padding="same")


def spelled_out(layer: Any) -> Convolution:
    return Convolution.model_validate({"channels": layer} if isinstance(layer, int) else layer)


def convolve(channels_in: int, settings: Convolution, bias: bool) -> nn.Conv2d:
    channels, kernel, stride, padding = settings.channels, settings.kernel, settings.stride, settings.padding
    if padding == "same":
        return SameConv2d(channels_in, channels, kernel, stride=stride, bias=bias)
    return nn.Conv2d(channels_in, channels, kernel, stride, 0 if padding == "valid" else padding, bias=bias)


def size_after_convolution(place: str, settings: Convolution, size: list[int], spec: Spec) -> list[int]:
    kernel, stride = settings.kernel, settings.stride
    if settings.padding == "same":
        return [-(side // -stride) for side in size]
    padding = 0 if settings.padding == "valid" else settings.padding
    what = f"{kernel}x{kernel} convolution with padding {settings.padding}"
    return fit(place, what, size, spec, kernel=kernel, stride=stride, padding=padding)


def fit(place: str, what: str, size: list[int], spec: Spec, *, kernel: int, stride: int, padding: int) -> list[int]:
    """The size after a window has passed over a picture, or an error where the window is larger than the picture."""
    after = [size_after(side, kernel, stride, padding) for side in size]
    if min(after) < 1:
        raise UsageError(
            f"a {what} does not fit the {size[0]}x{size[1]} cells that are left "
            f"of a {spec.shape[1]}x{spec.shape[2]} picture",
            place=place,
            mend="Make the pictures larger, drop a pool or a stride before it, or give convolutions padding: same.",
        )
    return after
