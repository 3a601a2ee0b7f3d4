"""Columns of a table that act together: products of encodings, beside their sum.

Modules that take the encodings of a row's columns as a list of [B, D] and give one [B, D']; what predicts from that is
a linear layer behind them.

Shape legend: B rows, I inputs, D width of an encoding, J width of all of them side by side, R rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import RecipeError
from ..layers.activation import Activation
from .mlp import dense_layers

__all__ = ["CrossNetwork", "DeepCross", "Factorised"]


class CrossNetwork(nn.Module):
    """Cross layers of DCN-v2 (Wang et al. 2021, arXiv:2008.13535): x' = x_0 * (W x + b) + x.

    Each multiplies by the inputs once more: after ``depth`` of them the result holds products of up to depth + 1
    inputs. With a ``rank``, W is U V with R columns in between, which costs 2 J R numbers instead of J^2.

    Shape: [B, J] to the same.

    >>> network = CrossNetwork(6, depth=2, rank=2)
    >>> network(torch.randn(4, 6)).shape
    torch.Size([4, 6])
    """

    def __init__(self, width: int, *, depth: int = 2, rank: int | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(width, width)
            if rank is None
            else nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, width))
            for _ in range(depth)
        )

    def forward(self, x_BJ: Tensor) -> Tensor:
        first = x_BJ
        for layer in self.layers:
            x_BJ = torch.addcmul(x_BJ, first, layer(x_BJ))
        return x_BJ


class DeepCross(nn.Module):
    """Deep and cross network, DCN-v2: a :class:`CrossNetwork` of the joined encodings with a multilayer perceptron.

    ``parallel``: the perceptron reads the encodings too, and both results stand side by side. ``stacked``: it reads
    what the cross layers give. Which does better depends on the data, say the authors. ``width`` is D' afterwards.

    Args:
        sizes: the width of each encoding.
        depth: cross layers.
        rank: of the cross layers' matrices; None: full.
        widths: units of the perceptron's layers; none at all leaves the cross layers alone.

    Shape: list of [B, D] to [B, D'], D' = J + widths[-1] where they are parallel, widths[-1] where stacked.

    >>> network = DeepCross([3, 5], widths=(16, 4))
    >>> network([torch.randn(2, 3), torch.randn(2, 5)]).shape, network.width
    (torch.Size([2, 12]), 12)
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        depth: int = 2,
        rank: int | None = None,
        widths: tuple[int, ...] = (128, 64),
        structure: Literal["parallel", "stacked"] = "parallel",
        activation: Activation = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        joined = sum(sizes)
        self.cross = CrossNetwork(joined, depth=depth, rank=rank)
        self.deep, deep = dense_layers(joined, widths, activation, dropout)
        self.beside = structure == "parallel" and bool(widths)
        self.width = joined + deep if self.beside else deep

    def forward(self, encodings: Sequence[Tensor]) -> Tensor:
        x_BJ = torch.cat(list(encodings), dim=-1)
        crossed: Tensor = self.cross(x_BJ)
        if self.beside:
            return torch.cat([crossed, self.deep(x_BJ)], dim=-1)
        out: Tensor = self.deep(crossed)
        return out


class Factorised(nn.Module):
    """Factorisation machine (Rendle 2010): products of all pairs of encodings, beside the encodings themselves.

    The products of a pair are kept unit by unit and added up over pairs, as in bi-interaction pooling (He and Chua
    2017, arXiv:1708.05027). The linear layer behind weighs them: with weights of one it is the paper's sum of dot
    products, with free ones each class or quantity has its own; and it has the linear terms, one for each unit of each
    encoding. Of a user and an item this is matrix factorisation with biases. There is nothing to learn in here;
    ``width`` is D' = D + I D afterwards.

    The sum over pairs is half of (square of the sum - sum of the squares), which takes I products, not I^2.

    Args:
        sizes: the width of each encoding, the same for all.

    Shape: list of I times [B, D] to [B, D + I D].

    Raises:
        RecipeError: encodings of unequal width.

    >>> user, item = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 5.0]])
    >>> Factorised([2, 2])([user, item])
    tensor([[ 3., 10.,  1.,  2.,  3.,  5.]])
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        if len(set(sizes)) > 1:
            raise RecipeError(
                [
                    "fusion: factorised multiplies encodings unit by unit, so that all must have the same width; these "
                    f"have {', '.join(map(str, sizes))}. Give each input's encoder the same width (a number: "
                    "{name: mlp, widths: [16]}), or choose deep_cross."
                ]
            )
        self.width = sizes[0] + sum(sizes)

    def forward(self, encodings: Sequence[Tensor]) -> Tensor:
        x_BID = torch.stack(list(encodings), dim=1)
        pairs = (x_BID.sum(1).square() - x_BID.square().sum(1)) / 2
        return torch.cat([pairs, x_BID.flatten(1)], dim=-1)
