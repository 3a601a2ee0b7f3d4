"""The Transformer encoder of sequences and tokens."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ..errors import UsageError
from ..layers.transformer import Depth, Heads, Transformer, TransformerSettings, Width
from .encoding import Encoding, Spec, StepEncoder, Steps, pool_tokens

__all__ = ["StepTransformer", "TransformerEncoder"]


class StepTransformer(StepEncoder):
    """Base of the encoders that are a stack of Transformer blocks over steps; settings of the blocks are given whole.

    Steps are projected to ``width`` units; tokens are looked up as vectors of that width. These are multiplied by
    sqrt(width), as in 2017: their units are then of order 1, as sines are and what blocks add. Not so before learned
    positions, which start small: beside tokens that large, what stands next to what is learned several times later.
    """

    def __init__(self, spec: Spec, width: int, depth: int, settings: TransformerSettings, pooling: str) -> None:
        super().__init__()
        self.pooling = pooling
        self.steps = Steps(spec, width)
        tokens = self.steps.embedding is not None
        self.scale = width**0.5 if tokens and settings.positions != "learned" else 1.0
        self.project = nn.Identity() if tokens else nn.Linear(self.steps.width, width)
        self.cls = nn.Parameter(0.02 * torch.randn(1, 1, width)) if pooling == "cls" else None
        self.blocks = Transformer(width, depth, settings, length=self.steps.most + (self.cls is not None))
        self.width = self.token_width = width

    def places(self, mask: Tensor) -> Tensor | None:
        """Where each step of ``mask`` [B, T] stands, [B, T]; None: 0, 1, 2, ... in each row."""
        return None

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Encoding:
        steps, mask = self.steps(values, mask)
        x_BTD = self.project(steps if self.scale == 1.0 else steps * self.scale)
        if self.cls is None:
            tokens = self.blocks(x_BTD, mask, at=None if mask is None else self.places(mask))
            return Encoding(pool_tokens(tokens, mask, self.pooling), tokens, mask)
        x_BTD = torch.cat([self.cls.to(x_BTD.dtype).expand(len(x_BTD), -1, -1), x_BTD], dim=1)
        x_BTD = self.blocks(x_BTD, None if mask is None else nn.functional.pad(mask, (1, 0), value=True))
        return Encoding(x_BTD[:, 0], x_BTD[:, 1:], mask)


class EncoderBlocks(TransformerSettings):
    """Settings of an encoder's blocks: fewer heads than in the large published ones."""

    heads: Heads = 4


class TransformerEncoder(StepTransformer):
    """Transformer (Vaswani et al. 2017, arXiv:1706.03762): attention among tokens, steps or rows of a picture.

    Each step is projected to ``width`` units, each token looked up. With ``cls`` a learned token stands before them,
    and what becomes of it is the summary; ``tokens`` are the steps alone. With ``first`` and ``last`` the summary is
    what becomes of a row's first or last real step. A row without any real step has the summary zero, except with
    ``cls``.

    Shape: values [B, T] tokens, [B, T, F], or [B, C, H, W] read as [B, H, C W], to tokens [B, T, D] and pooled [B, D].

    Raises:
        UsageError: heads that do not divide the width; a first or class token that, being causal, would see nothing.

    >>> encoder = TransformerEncoder(Spec("sequence", (5, 3)), width=16, heads=2, pooling="cls")
    >>> encoding = encoder(torch.zeros(2, 5, 3), torch.ones(2, 5, dtype=torch.bool))
    >>> encoding.pooled.shape, encoding.tokens.shape
    (torch.Size([2, 16]), torch.Size([2, 5, 16]))
    """

    def __init__(
        self,
        spec: Spec,
        *,
        width: Width = 128,
        depth: Depth = 2,
        pooling: Annotated[
            Literal["mean", "first", "last", "cls"],
            Field(description="summary: mean of all steps, the first or last step's token, or a class token's"),
        ] = "mean",
        **block: Annotated[Any, EncoderBlocks],
    ) -> None:
        chosen = EncoderBlocks(**block)
        if chosen.causal and pooling in ("first", "cls"):
            raise UsageError(
                f"a causal Transformer's first token sees no other, so that pooling {pooling} would tell nothing",
                place="transformer",
                mend="Choose pooling: last or mean.",
            )
        super().__init__(spec, width, depth, chosen, pooling)
