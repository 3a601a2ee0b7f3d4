"""The encoder of Whisper."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..layers.transformer import BlockSettings, Depth, Heads, Transformer, TransformerSettings, Width
from .encoding import Encoder, Encoding, Spec, pool_tokens

__all__ = ["Whisper"]


class SoundBlocks(BlockSettings):
    """Settings of the blocks over a sound's steps."""

    heads: Heads = 4
    positions: Annotated[Literal["learned"], Field(description="how the place of a step is told")] = "learned"


class Whisper(Encoder):
    """The encoder of Whisper (Radford et al. 2022, arXiv:2212.04356): two convolutions over time, of which the second
    leaves every second step, then a Transformer.

    Deviations: places are learned, which holds the published waves too; and steps that are not real are zero and are
    not looked at, where Whisper hears silence up to thirty seconds. With features ``whisper`` all steps are real.

    Shape: values [B, T, F] to tokens [B, ceil(T / 2), D] and pooled [B, D], their mean.

    Attributes:
        shrink: steps that one token stands for.

    Raises:
        UsageError: heads that do not divide the width.

    >>> encoder = Whisper(Spec("sequence", (99, 80)), width=16, depth=1)
    >>> encoder(torch.zeros(2, 99, 80), torch.ones(2, 99, dtype=torch.bool)).tokens.shape
    torch.Size([2, 50, 16])
    """

    accepts = frozenset({"sequence"})
    shrink = 2

    def __init__(
        self, spec: Spec, *, width: Width = 128, depth: Depth = 4, **block: Annotated[Any, SoundBlocks]
    ) -> None:
        super().__init__()
        steps, features = spec.shape
        self.first = nn.Conv1d(features, width, 3, padding=1)
        self.second = nn.Conv1d(width, width, 3, stride=2, padding=1)
        blocks = TransformerSettings(**SoundBlocks(**block).keywords())
        self.most = -(-steps // 2)
        self.blocks = Transformer(width, depth, blocks, length=self.most)
        self.width = self.token_width = width

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Encoding:
        x_BDT = F.gelu(self.first(hidden(values.transpose(1, 2), mask)))
        x_BDT = F.gelu(self.second(hidden(x_BDT, mask)))
        mask = None if mask is None else mask[:, ::2]
        place = torch.arange(x_BDT.shape[2], device=x_BDT.device).clamp(max=self.most - 1)  # beyond stands padding
        tokens = self.blocks(x_BDT.transpose(1, 2), mask, at=place)
        return Encoding(pool_tokens(tokens, mask, "mean"), tokens, mask)


def hidden(x_BDT: Tensor, mask: Tensor | None) -> Tensor:
    """Zero where no step is real."""
    return x_BDT if mask is None else x_BDT.masked_fill(~mask.unsqueeze(1), 0.0)
