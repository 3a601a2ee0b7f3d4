"""The networks in plain PyTorch, for the peers that train a module."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Recurrent(nn.Module):
    """Two LSTMs of 64 units over the rows of a picture; the last state is read."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(28, 64, num_layers=2, batch_first=True)
        self.out = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x)[0][:, -1])


class Classifier(nn.Module):
    """A Transformer over the rows of a picture: sinusoids are added, and the mean of all tokens is read."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.enter = nn.Linear(28, width)
        block = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, depth, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.out = nn.Linear(width, 10)
        rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000) / width))
        angles = torch.arange(28)[:, None] * rates
        self.register_buffer("places", torch.stack([angles.sin(), angles.cos()], -1).flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.blocks(self.enter(x) + self.places).mean(1))


def network(workload: str) -> nn.Module:
    """Pictures [B, 28, 28] to scores [B, 10]."""
    if workload == "mlp":
        return nn.Sequential(
            nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
        )
    if workload == "cnn":
        return nn.Sequential(
            nn.Unflatten(1, (1, 28)), nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(),
            nn.MaxPool2d(2), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 64), nn.ReLU(),
            nn.Linear(64, 10),
        )  # fmt: skip
    if workload == "lstm":
        return Recurrent()
    return Classifier(*{"transformer2": (128, 2), "transformer6": (256, 6)}[workload])
