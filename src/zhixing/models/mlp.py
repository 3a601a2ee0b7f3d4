"""The multilayer perceptron."""

from __future__ import annotations

from math import prod
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from ..layers.activation import Activation, make_activation
from .encoding import Encoder, Encoding, Spec

__all__ = ["MLP", "dense_layers"]


class MLP(Encoder):
    """Multilayer perceptron: fully connected layers, each followed by an activation and dropout.

    A picture is read as one long vector. With no layers at all (``widths: []``) the values go straight to the head,
    which makes linear, logistic or softmax regression of it. Weights start as torch's own linear layers do.

    Shape: values [B, ...] to pooled [B, D] with D the last of ``widths``; tokens [B, 1, D] are the same.

    >>> import torch
    >>> encoder = MLP(Spec("image", (1, 28, 28)), widths=(100, 50))
    >>> encoder(torch.zeros(2, 1, 28, 28)).pooled.shape
    torch.Size([2, 50])
    """

    accepts = frozenset({"image", "vector"})

    def __init__(
        self,
        spec: Spec,
        *,
        widths: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(description="units of each layer")] = (256,),
        activation: Annotated[Activation, Field(description="function after each layer")] = "relu",
        dropout: Annotated[float, Field(description="share of units dropped after each layer", ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__()
        self.layers, self.width = dense_layers(prod(spec.shape), widths, activation, dropout)
        self.token_width = self.width

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Encoding:
        pooled = self.layers(values.flatten(1))
        return Encoding(pooled, pooled.unsqueeze(1))


def dense_layers(
    features: int, widths: tuple[int, ...], activation: Activation, dropout: float
) -> tuple[nn.Sequential, int]:
    """Linear layers, each followed by its activation and dropout, and the width that they end with."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(features, width), make_activation(activation)]
        if dropout:  # a dropout of nothing still costs a step
            layers.append(nn.Dropout(dropout))
        features = width
    return nn.Sequential(*layers), features
