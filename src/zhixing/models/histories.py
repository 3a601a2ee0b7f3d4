"""Encoders of histories: what somebody bought, watched or clicked, the newest last.

Both read items in order and tell of a row by its state after the newest. A head that predicts the next item may share
their ``item_embedding``, whose vectors are as wide as that state.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from ..layers.transformer import Depth, Dropout, Heads, TransformerSettings, Width
from .encoding import Spec
from .recurrent import GRU
from .transformer import StepTransformer

__all__ = ["GRU4Rec", "SASRec"]


class SASRec(StepTransformer):
    """Self-attentive sequential recommendation (Kang and McAuley 2018, arXiv:1808.09781): causal blocks over items.

    Positions are learned and count from the newest item, as in the paper, where rows are padded in front: the newest
    item is in place 0 however long the history, so that "the one before" has one vector to be learned and not as many
    as there are lengths. So the state of an earlier item depends on how many follow it, though not on which.

    As in the paper, one head, feed-forward as wide as the model, norms first; but norms go before keys and values as
    well as queries, and items are not multiplied by sqrt(width), since positions start small here.

    Shape: values [B, T] int64 to tokens [B, T, D], the states, and pooled [B, D], the newest item's.

    >>> import torch
    >>> encoder = SASRec(Spec("tokens", (50,), 1000), width=16).eval()
    >>> encoding = encoder(torch.tensor([[7, 3, 12], [5, 0, 0]]))
    >>> encoding.pooled.shape, bool(torch.equal(encoding.pooled[1], encoding.tokens[1, 0]))
    (torch.Size([2, 16]), True)
    """

    accepts = frozenset({"tokens"})

    def __init__(
        self, spec: Spec, *, width: Width = 64, depth: Depth = 2, heads: Heads = 1, dropout: Dropout = 0.2
    ) -> None:
        chosen = TransformerSettings(
            heads=heads, hidden=width, feed_forward="relu", positions="learned", causal=True, dropout=dropout
        )
        super().__init__(spec, width, depth, chosen, "last")

    def places(self, mask: Tensor) -> Tensor:
        """The number of real items after each."""
        after = mask.flip(1).cumsum(1).flip(1) - 1
        return after.clamp(min=0)  # of padding behind the newest it would be -1


class GRU4Rec(GRU):
    """Recommendation with gated recurrent units (Hidasi et al. 2016, arXiv:1511.06939): the state after all items.

    Items are looked up as vectors as wide as the state, so that a head can share them; the paper does best with one-hot
    items, which amount to a table for each gate, and takes 100 units or more.

    Shape: values [B, T] int64 to tokens [B, T, D], the states, and pooled [B, D], that after the newest item.

    >>> import torch
    >>> encoder = GRU4Rec(Spec("tokens", (50,), 1000)).eval()
    >>> encoder(torch.tensor([[7, 3, 12], [5, 0, 0]])).pooled.shape, encoder.item_embedding
    (torch.Size([2, 64]), Embedding(1000, 64, padding_idx=0))
    """

    accepts = frozenset({"tokens"})

    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Field(ge=1, description="units of the state and of an item's vector")] = 64,
        layers: Annotated[int, Field(ge=1, description="layers on each other")] = 1,
        dropout: Annotated[float, Field(ge=0, lt=1, description="share of units dropped after each layer")] = 0.2,
    ) -> None:
        super().__init__(spec, width=width, layers=layers, dropout=dropout, embedding=width)
