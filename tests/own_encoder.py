"""An encoder of one's own, as somebody passes one in from Python."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zhixing.models.encoding import Encoder, Encoding

__all__ = ["Mean"]


class Mean(Encoder):
    def __init__(self, width: int = 1) -> None:
        super().__init__()
        self.width = self.token_width = width
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Encoding:
        pooled = values.flatten(1).mean(1, keepdim=True) * self.scale
        return Encoding(pooled, pooled[:, None])
