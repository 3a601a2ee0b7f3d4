"""The networks in plain PyTorch, for the peers that train a module."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from protocol import VOCABULARY
from torch import Tensor, nn

__all__ = ["loss_of", "network", "size_of"]


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


class GPT(nn.Module):
    """A causal Transformer over bytes: learned places, and one table for tokens read and tokens scored."""

    def __init__(
        self, width: int = 384, depth: int = 6, length: int = 256, heads: int = 6, vocabulary: int = VOCABULARY
    ) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        for table in (self.tokens, self.places):
            nn.init.normal_(table.weight, std=0.02)
        block = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation=nn.GELU("tanh"), batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, depth, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.tokens(x) + self.places(torch.arange(x.shape[1], device=x.device))
        return F.linear(self.blocks(hidden, mask=self.mask, is_causal=True), self.tokens.weight)


class Residual(nn.Module):
    """Two 3x3 convolutions, and the picture itself added to what they give."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *convolution(channels_in, channels, 3, stride), nn.ReLU(), *convolution(channels, channels, 3, 1)
        )
        same = stride == 1 and channels_in == channels
        self.shortcut = nn.Identity() if same else nn.Sequential(*convolution(channels_in, channels, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch(x) + self.shortcut(x))


def convolution(channels_in: int, channels: int, kernel: int, stride: int) -> list[nn.Module]:
    layer = nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return [layer, nn.BatchNorm2d(channels)]


def resnet18() -> nn.Module:
    """ResNet-18 with the stem for pictures of 32x32."""
    widths = [64, 64, 64, 128, 128, 256, 256, 512, 512]
    blocks = [Residual(before, width, 2 if before != width else 1) for before, width in pairwise(widths)]
    stem = [nn.Unflatten(1, (1, 32)), *convolution(1, 64, 3, 1), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def network(workload: str) -> nn.Module:
    """Pictures [B, H, W] to scores [B, 10]; tokens [B, T] to scores [B, T, 260]."""
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
    if workload == "resnet18":
        return resnet18()
    if workload == "gpt":
        return GPT()
    return Classifier(*{"transformer2": (128, 2), "transformer6": (256, 6)}[workload])


def loss_of(scores: Tensor, y: Tensor) -> Tensor:
    """The mean cross-entropy of scores [..., C] against classes [...]."""
    return F.cross_entropy(scores.flatten(0, -2), y.flatten())


def size_of(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
