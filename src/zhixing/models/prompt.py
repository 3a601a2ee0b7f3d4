"""A text that the decoder reads itself, before its own."""

from __future__ import annotations

import torch
from torch import Tensor

from .encoding import Encoder, Encoding, Spec

__all__ = ["Prompt"]


class Prompt(Encoder):
    """Hands tokens on to a decoder that looks them up in its own table, as causal language models read what they are
    to answer. It learns nothing and says nothing by itself, so that no other head can use it.

    Shape: values [B, T] to ``ids`` [B, T]; pooled [B, 0] and tokens [B, T, 0] are empty.

    >>> Prompt(Spec("tokens", (5,), 10))(torch.tensor([[7, 3, 0]])).ids
    tensor([[7, 3, 0]])
    """

    accepts = frozenset({"prompt"})
    width = token_width = 0

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.most = spec.shape[0]

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Encoding:
        real = values > 0 if mask is None else mask
        empty = torch.zeros(*values.shape, 0, device=values.device)
        return Encoding(empty[:, 0], empty, real, ids=values.masked_fill(~real, 0))
