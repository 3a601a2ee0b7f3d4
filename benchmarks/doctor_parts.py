"""Encoders with a fault each, and one without, for the doctor's suite. They read pictures [B, C, H, W], vectors [B, F],
sequences [B, T, F] or tokens [B, T]."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zhixing.models.encoding import Encoding

__all__ = ["FAULTY", "Plain"]


class Plain(nn.Module):
    """Two layers over all values, of sequences and tokens over their mean; what a person may write at home."""

    def __init__(self, features: int, width: int = 32, vocabulary: int = 0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, features) if vocabulary else None
        self.first, self.second = nn.Linear(features, width), nn.Linear(width, width)
        self.width = self.token_width = width

    def flat(self, values: Tensor, mask: Tensor | None) -> Tensor:
        if self.embedding is not None:
            values = self.embedding(values)
        if values.ndim == 3:
            real = torch.ones(values.shape[:2], dtype=torch.bool) if mask is None else mask
            return values.masked_fill(~real[..., None], 0).sum(1) / real.sum(1, keepdim=True).clamp(min=1)
        return values.flatten(1)

    def body(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))))

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Encoding:
        pooled = self.body(self.flat(values, mask))
        return Encoding(pooled, pooled[:, None])


class Detached(Plain):
    def body(self, x: Tensor) -> Tensor:
        return super().body(x).detach()


class HalfDetached(Plain):
    """The first layer is computed as numbers."""

    def body(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x)).detach()))


class Blind(Plain):
    """Reads its input and multiplies it by nothing."""

    def body(self, x: Tensor) -> Tensor:
        return super().body(0.0 * x)


class Logarithm(Plain):
    """The logarithm of what may be negative."""

    def __init__(self, features: int, width: int = 32, vocabulary: int = 0) -> None:
        super().__init__(features, width, vocabulary)
        self.logarithm = Log()

    def body(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.logarithm(self.first(x))))


class Log(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.log(x)


class Root(Plain):
    """The norm of a vector that is zero for blank rows: its slope there is infinite."""

    def body(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.first(x) - 20)
        out: Tensor = self.second(hidden / hidden.square().sum(1, keepdim=True).sqrt())
        return out


class Dead(Plain):
    """Biases far below zero before a rectifier."""

    def __init__(self, features: int, width: int = 32, vocabulary: int = 0) -> None:
        super().__init__(features, width, vocabulary)
        with torch.no_grad():
            self.second.bias.fill_(-1000.0)


class Saturated(Plain):
    """Weights so large that hyperbolic tangents are at their bounds."""

    def __init__(self, features: int, width: int = 32, vocabulary: int = 0) -> None:
        super().__init__(features, width, vocabulary)
        self.tanh = nn.Tanh()
        with torch.no_grad():
            self.first.weight.mul_(300.0)

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.tanh(self.first(x)))
        return out


class Loud(Plain):
    """First weights a hundred times too large: the first predictions are sure of what they cannot know."""

    def __init__(self, features: int, width: int = 32, vocabulary: int = 0) -> None:
        super().__init__(features, width, vocabulary)
        with torch.no_grad():
            self.second.weight.mul_(100.0)


class Vanishing(Plain):
    """Ten sigmoids behind each other."""

    def __init__(self, features: int, width: int = 32, vocabulary: int = 0) -> None:
        super().__init__(features, width, vocabulary)
        self.deep = nn.ModuleList(nn.Linear(width, width) for _ in range(10))

    def body(self, x: Tensor) -> Tensor:
        x = torch.sigmoid(self.first(x))
        for layer in self.deep:
            x = torch.sigmoid(layer(x))
        out: Tensor = self.second(x)
        return out


class Exploding(Plain):
    """Fourteen layers that each make it three times as large; a sine at the end keeps values in bounds, so that only
    gradients tell."""

    def __init__(self, features: int, width: int = 32, vocabulary: int = 0) -> None:
        super().__init__(features, width, vocabulary)
        deep = [nn.Linear(width, width, bias=False) for _ in range(14)]
        self.deep = nn.ModuleList(deep)
        with torch.no_grad():
            for layer in deep:
                layer.weight.copy_(3.0 * nn.init.orthogonal_(torch.empty(width, width)))

    def body(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        for layer in self.deep:
            x = layer(x)
        out: Tensor = self.second(torch.sin(x))
        return out


class AlwaysDropping(Plain):
    """Dropout that does not ask whether it is training."""

    def body(self, x: Tensor) -> Tensor:
        return F.dropout(super().body(x), 0.5, training=True)


class NeverEvaluates(Plain):
    """Normalises over the batch, also in evaluation: ``train`` is not handed on."""

    def __init__(self, features: int, width: int = 32, vocabulary: int = 0) -> None:
        super().__init__(features, width, vocabulary)
        self.norm = nn.BatchNorm1d(width)

    def train(self, mode: bool = True) -> NeverEvaluates:
        super().train(True)
        return self

    def body(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.norm(self.first(x))))


class Restless(Plain):
    """Noise from a generator that no seed reaches."""

    random = np.random.default_rng()

    def body(self, x: Tensor) -> Tensor:
        if self.training:
            x = x + 0.1 * torch.from_numpy(self.random.normal(size=tuple(x.shape)).astype(np.float32))
        return super().body(x)


class Frozen(Plain):
    """A part that its maker forgot to thaw; the last layer is meant to learn."""

    def __init__(self, features: int, width: int = 32, vocabulary: int = 0) -> None:
        super().__init__(features, width, vocabulary)
        for parameter in self.parameters():
            parameter.requires_grad_(False)


class Crashing(Plain):
    """Goes with two rows, and with no other number."""

    def body(self, x: Tensor) -> Tensor:
        return super().body(x) + torch.zeros(2, self.width)


FAULTY: dict[str, Callable[..., Plain]] = {
    "always_dropping": AlwaysDropping, "blind": Blind, "crashing": Crashing, "dead": Dead, "detached": Detached,
    "exploding": Exploding, "frozen": Frozen, "half_detached": HalfDetached, "logarithm": Logarithm, "loud": Loud,
    "never_evaluates": NeverEvaluates, "restless": Restless, "root": Root, "saturated": Saturated,
    "vanishing": Vanishing,
}  # fmt: skip
