"""Many encodings to one.

Shape legend: B rows, I inputs, D width of an encoding, T tokens.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from .errors import RecipeError
from .layers.activation import Activation
from .models.cross import DeepCross, Factorised
from .models.encoding import Encoding
from .models.mlp import dense_layers

__all__ = ["FUSIONS", "Attention", "Concat", "Crossed", "Factors", "Fusion", "Gated"]

Widths = Annotated[
    tuple[Annotated[int, Field(ge=1)], ...] | None,
    Field(description="units of the layers after joining; open: none for a single input, else [128, 64]"),
]
Dropout = Annotated[float, Field(ge=0, lt=1, description="share of units dropped after each layer")]


class Fusion(nn.Module):
    """Base of the fusions: ``forward(encodings) -> Encoding``, and ``width``, the D of what it gives.

    A single input passes through with its tokens and grid; what is learned after joining follows in ``layers``. Of
    several inputs the one token is the summary, unless :meth:`keep_tokens` was called: then the tokens of all inputs
    follow it, each input's brought to the common width by a layer of its own, which also tells them apart.
    """

    width: int

    def __init__(
        self, joined: int, inputs: int, widths: tuple[int, ...] | None, activation: Activation, dropout: float
    ) -> None:
        super().__init__()
        chosen = widths if widths is not None else (() if inputs <= 1 else (128, 64))
        self.layers, self.width = dense_layers(joined, chosen, activation, dropout)
        self.tokens: nn.ModuleList | None = None

    def keep_tokens(self, sizes: list[int]) -> None:
        """Also give the tokens of all inputs, whose widths these are, for heads that read them."""
        self.tokens = nn.ModuleList(nn.Linear(size, self.width) for size in sizes)

    def join(self, encodings: list[Encoding]) -> Tensor:
        raise AssertionError(f"{type(self).__name__} has no join")

    def forward(self, encodings: list[Encoding]) -> Encoding:
        first = encodings[0]
        if len(encodings) == 1:
            return first._replace(pooled=self.layers(first.pooled)) if len(self.layers) else first
        pooled = self.layers(self.join(encodings))
        if self.tokens is None:
            return Encoding(pooled, pooled.unsqueeze(1))
        parts = [layer(encoding.tokens) for layer, encoding in zip(self.tokens, encodings, strict=True)]
        real = [torch.ones_like(pooled[:, :1], dtype=torch.bool), *(encoding.real for encoding in encodings)]
        return Encoding(pooled, torch.cat([pooled.unsqueeze(1), *parts], dim=1), torch.cat(real, dim=1))


class Concat(Fusion):
    """Encodings side by side, then a multilayer perceptron."""

    def __init__(
        self,
        sizes: list[int],
        *,
        widths: Widths = None,
        activation: Annotated[Activation, Field(description="function after each layer")] = "relu",
        dropout: Dropout = 0.0,
    ) -> None:
        super().__init__(sum(sizes), len(sizes), widths, activation, dropout)

    def join(self, encodings: list[Encoding]) -> Tensor:
        return torch.cat([encoding.pooled for encoding in encodings], dim=-1)


class Gated(Fusion):
    """A weighted sum, with weights in [0, 1] that depend on all inputs
    (Arevalo et al., "Gated multimodal units", 2017)."""

    def __init__(
        self,
        sizes: list[int],
        *,
        width: Annotated[int, Field(ge=1, description="common width that each input is brought to")] = 64,
        widths: Widths = None,
        activation: Annotated[Activation, Field(description="function after each layer")] = "relu",
        dropout: Dropout = 0.0,
    ) -> None:
        single = len(sizes) == 1
        super().__init__(sizes[0] if single else width, len(sizes), widths, activation, dropout)
        self.project = nn.ModuleList([] if single else [nn.Linear(size, width) for size in sizes])
        self.gates = nn.Identity() if single else nn.Linear(sum(sizes), len(sizes) * width)

    def join(self, encodings: list[Encoding]) -> Tensor:
        projected = [layer(e.pooled).tanh() for layer, e in zip(self.project, encodings, strict=True)]
        together = torch.cat([encoding.pooled for encoding in encodings], dim=-1)
        gates = self.gates(together).sigmoid().unflatten(-1, (len(encodings), -1))  # [B, I, D]
        weighted: Tensor = gates * torch.stack(projected, dim=1)
        return weighted.sum(1)


class Attention(Fusion):
    """Inputs as tokens of a Transformer layer, read out by a learned query token
    (for tables: Gorishniy et al., "Revisiting deep learning models for tabular data", 2021)."""

    def __init__(
        self,
        sizes: list[int],
        *,
        width: Annotated[int, Field(ge=1, description="common width that each input is brought to")] = 64,
        heads: Annotated[int, Field(ge=1, description="attention heads; width must be a multiple")] = 4,
        depth: Annotated[int, Field(ge=1, description="layers")] = 2,
        widths: Widths = None,
        activation: Annotated[Activation, Field(description="function after each layer")] = "relu",
        dropout: Dropout = 0.0,
    ) -> None:
        if width % heads:
            raise RecipeError([f"fusion.heads: width {width} is not a multiple of {heads} heads"])
        single = len(sizes) == 1
        super().__init__(sizes[0] if single else width, len(sizes), widths, activation, dropout)
        self.project = nn.ModuleList([] if single else [nn.Linear(size, width) for size in sizes])
        self.query = nn.Parameter(torch.randn(1, 1, width) * 0.02) if not single else None
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 2 * width, dropout, "gelu", batch_first=True, norm_first=True)
            for _ in range(0 if single else depth)
        )

    def join(self, encodings: list[Encoding]) -> Tensor:
        assert self.query is not None
        tokens = [layer(e.pooled) for layer, e in zip(self.project, encodings, strict=True)]
        x_BTD = torch.cat([self.query.expand(len(tokens[0]), -1, -1), torch.stack(tokens, dim=1)], dim=1)
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return x_BTD[:, 0]


class Crossed(Fusion):
    """Products of the inputs' units, layer by layer, beside a perceptron (DCN-v2: Wang et al. 2021, arXiv:2008.13535).
    For tables of categories."""

    def __init__(
        self,
        sizes: list[int],
        *,
        depth: Annotated[int, Field(ge=1, description="cross layers")] = 2,
        rank: Annotated[int | None, Field(ge=1, description="of the cross layers' matrices; open: full")] = None,
        structure: Annotated[
            Literal["parallel", "stacked"], Field(description="the perceptron beside the cross layers, or after them")
        ] = "parallel",
        widths: Widths = None,
        activation: Annotated[Activation, Field(description="function after each layer of the perceptron")] = "relu",
        dropout: Dropout = 0.0,
    ) -> None:
        if len(sizes) == 1:
            super().__init__(sizes[0], 1, widths, activation, dropout)
            return
        network = DeepCross(
            sizes, depth=depth, rank=rank, widths=(128, 64) if widths is None else widths, structure=structure,
            activation=activation, dropout=dropout,
        )  # fmt: skip
        super().__init__(network.width, len(sizes), (), activation, dropout)
        self.network = network

    def join(self, encodings: list[Encoding]) -> Tensor:
        out: Tensor = self.network([encoding.pooled for encoding in encodings])
        return out


class Factors(Fusion):
    """Products of each two inputs, unit by unit, beside the inputs: with the head's linear layer a factorisation
    machine (Rendle 2010); of a user and an item, matrix factorisation with biases."""

    def __init__(
        self,
        sizes: list[int],
        *,
        width: Annotated[
            int | None, Field(ge=1, description="that inputs of another width are brought to; open: the largest")
        ] = None,
        dropout: Annotated[float, Field(ge=0, lt=1, description="share of the products' units dropped")] = 0.0,
    ) -> None:
        single, width = len(sizes) == 1, width or max(sizes)
        products = Factorised([width] * len(sizes))
        super().__init__(sizes[0] if single else products.width, len(sizes), (), "relu", 0.0)
        others = [] if single else sizes
        self.project = nn.ModuleList(nn.Identity() if size == width else nn.Linear(size, width) for size in others)
        self.products, self.dropout = products, nn.Dropout(dropout) if dropout else nn.Identity()

    def join(self, encodings: list[Encoding]) -> Tensor:
        same = [layer(encoding.pooled) for layer, encoding in zip(self.project, encodings, strict=True)]
        out: Tensor = self.dropout(self.products(same))
        return out


FUSIONS: dict[str, type[Fusion]] = {
    "concat": Concat,
    "gated": Gated,
    "attention": Attention,
    "deep_cross": Crossed,
    "factorised": Factors,
}
