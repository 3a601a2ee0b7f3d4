"""A bag of tokens: their vectors, without their order."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from ..layers.recurrent import AdditiveAttention
from .encoding import Encoding, Spec, StepEncoder, Steps, pool_tokens

__all__ = ["Bag"]


class Bag(StepEncoder):
    """The vectors of a row's tokens, pooled: a baseline that is hard to beat where order tells little.

    With ``mean`` and a linear head this is fastText (Joulin et al. 2017, arXiv:1607.01759) without its n-grams; with
    ``attention`` a learned weight says how much each token counts. Vectors start as in :class:`Steps`.

    Shape: values [B, T] int64 to tokens [B, T, D], the vectors, and pooled [B, D].

    >>> import torch
    >>> encoder = Bag(Spec("tokens", (9,), 50), width=8, pooling="sum")
    >>> one, other = encoder(torch.tensor([[4, 17, 3], [3, 4, 17]])).pooled
    >>> bool(torch.allclose(one, other))
    True
    """

    accepts = frozenset({"tokens"})

    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Field(ge=1, description="units of a token's vector")] = 128,
        pooling: Annotated[
            Literal["mean", "sum", "max", "attention"],
            Field(description="summary of all vectors: mean, sum, largest of each unit, or weighted mean"),
        ] = "mean",
        dropout: Annotated[float, Field(ge=0, lt=1, description="share of the summary's units dropped")] = 0.0,
    ) -> None:
        super().__init__()
        self.steps = Steps(spec, width)
        self.pooling = pooling
        self.attention = AdditiveAttention(width) if pooling == "attention" else None
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.width = self.token_width = width

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Encoding:
        tokens, mask = self.steps(values, mask)
        if self.attention is not None:
            pooled, _ = self.attention(tokens, mask)
        else:
            pooled = pool_tokens(tokens, mask, self.pooling)
        return Encoding(self.dropout(pooled), tokens, mask)
