"""The nonlinear functions between layers, by name."""

from __future__ import annotations

from typing import Literal

from torch import nn

__all__ = ["Activation", "make_activation"]

Activation = Literal["sigmoid", "tanh", "relu", "gelu", "silu"]

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


def make_activation(name: Activation) -> nn.Module:
    """A fresh module for one activation; none of them changes its input in place.

    >>> make_activation("relu")
    ReLU()
    """
    return ACTIVATIONS[name]()
