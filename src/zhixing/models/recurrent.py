"""The recurrent encoders."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from ..layers.recurrent import AdditiveAttention, CellKind, Recurrent
from .encoding import Encoding, Spec, StepEncoder, Steps, TokenWidth, pool_tokens

__all__ = ["GRU", "LSTM", "RNN"]


class RecurrentEncoder(StepEncoder):
    """Base of the recurrent encoders, which differ in their ``cell``.

    Steps are tokens, those of a sequence or the rows of a picture; only the real ones are read. Weights start as
    torch's own layers do, the vectors of tokens as in :class:`Steps`.

    Shape: values [B, T] tokens, [B, T, F], or [B, C, H, W] read as [B, H, C W], to tokens [B, T, D], the states, and
    pooled [B, D]; D is ``width``, twice that where steps are read both ways.
    """

    cell: ClassVar[CellKind]

    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[int, Field(ge=1, description="units of the state in one direction")] = 128,
        layers: Annotated[int, Field(ge=1, description="layers on each other")] = 1,
        bidirectional: Annotated[bool, Field(description="also read from the last step to the first")] = False,
        dropout: Annotated[float, Field(ge=0, lt=1, description="share of units dropped after each layer")] = 0.0,
        pooling: Annotated[
            Literal["last", "mean", "max", "attention"],
            Field(description="summary: the states after the last step read; or of all steps: mean, largest, weighted"),
        ] = "last",
        embedding: TokenWidth = 128,
    ) -> None:
        super().__init__()
        self.steps = Steps(spec, embedding)
        self.recurrent = Recurrent(
            self.cell, self.steps.width, width, layers=layers, bidirectional=bidirectional, dropout=dropout
        )
        self.width = self.token_width = self.recurrent.width
        self.pooling = pooling
        self.attention = AdditiveAttention(self.width) if pooling == "attention" else None
        self.dropout = dropout

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Encoding:
        steps, mask = self.steps(values, mask)
        states, last = self.recurrent(steps, mask)
        if self.attention is not None:
            pooled, _ = self.attention(states, mask)
        else:
            pooled = last if self.pooling == "last" else pool_tokens(states, mask, self.pooling)
        if self.dropout:
            pooled = nn.functional.dropout(pooled, self.dropout, self.training)
        return Encoding(pooled, states, mask)


class RNN(RecurrentEncoder):
    """Recurrent network with tanh (Elman 1990): reads rows of a picture or steps of a sequence one after the other.

    >>> import torch
    >>> encoder = RNN(Spec("sequence", (5, 3)), width=8, bidirectional=True)
    >>> encoding = encoder(torch.zeros(2, 5, 3), torch.ones(2, 5, dtype=torch.bool))
    >>> encoding.pooled.shape, encoding.tokens.shape
    (torch.Size([2, 16]), torch.Size([2, 5, 16]))
    """

    cell = "rnn"


class LSTM(RecurrentEncoder):
    """Long short-term memory (Hochreiter and Schmidhuber 1997): a recurrent network with gates and a memory.

    >>> import torch
    >>> LSTM(Spec("image", (1, 28, 28)))(torch.zeros(2, 1, 28, 28)).tokens.shape
    torch.Size([2, 28, 128])
    """

    cell = "lstm"


class GRU(RecurrentEncoder):
    """Gated recurrent unit (Cho et al. 2014, arXiv:1406.1078): a recurrent network with gates, lighter than an LSTM.

    >>> import torch
    >>> GRU(Spec("image", (1, 28, 28)), pooling="attention")(torch.zeros(2, 1, 28, 28)).pooled.shape
    torch.Size([2, 128])
    """

    cell = "gru"
