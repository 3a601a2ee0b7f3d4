"""The convolutional network for sentences."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from .encoding import Encoding, Spec, StepEncoder, Steps, TokenWidth, pool_tokens

__all__ = ["TextCNN"]


class TextCNN(StepEncoder):
    """Convolutional network for sentences (Kim 2014, arXiv:1408.5882): in effect, which phrases occur anywhere.

    Convolutions of several widths, each over the steps themselves, then ReLU; of each map the largest value is kept.

    A window stands around each step, with zeros beyond a row's ends, so that a row may be shorter than a window and
    each step has a token; the paper's windows lie within the row. The paper's bound on the norm of the last layer's
    weights is left out. Weights start as torch's own layers do, the vectors of tokens as in :class:`Steps`.

    Shape: values [B, T] tokens, [B, T, F], or [B, C, H, W] read as [B, H, C W], to tokens [B, T, D] and pooled [B, D];
    D is ``channels`` times the number of widths. The maps of ``kernels`` lie behind each other.

    >>> encoder = TextCNN(Spec("tokens", (9,), 50), channels=8, kernels=(2, 3))
    >>> encoding = encoder(torch.tensor([[4, 17, 3, 9], [5, 0, 0, 0]]))
    >>> encoding.pooled.shape, encoding.tokens.shape
    (torch.Size([2, 16]), torch.Size([2, 4, 16]))
    """

    def __init__(
        self,
        spec: Spec,
        *,
        embedding: TokenWidth = 128,
        channels: Annotated[int, Field(ge=1, description="maps of each width")] = 100,
        kernels: Annotated[
            tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, description="widths of windows, in steps")
        ] = (3, 4, 5),
        dropout: Annotated[float, Field(ge=0, lt=1, description="share of the summary's units dropped")] = 0.5,
    ) -> None:
        super().__init__()
        self.steps = Steps(spec, embedding)
        self.convolutions = nn.ModuleList(nn.Conv1d(self.steps.width, channels, kernel) for kernel in kernels)
        self.paddings = [((kernel - 1) // 2, kernel // 2) for kernel in kernels]
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.width = self.token_width = channels * len(kernels)

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Encoding:
        steps, mask = self.steps(values, mask)
        x_BFT = steps.transpose(1, 2)
        maps = [layer(F.pad(x_BFT, padding)) for layer, padding in zip(self.convolutions, self.paddings, strict=True)]
        tokens = torch.cat(maps, dim=1).relu().transpose(1, 2)
        if mask is not None:
            tokens = tokens.masked_fill(~mask.unsqueeze(-1), 0.0)
        return Encoding(self.dropout(pool_tokens(tokens, mask, "max")), tokens, mask)
