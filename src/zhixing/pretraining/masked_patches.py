"""Masked patches of pictures.

Shape legend: B rows, C channels, H height, W width, N patches, P = C x patch x patch numbers of one.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..columns import Column
from ..data.batches import ColumnBatch, Draw
from ..models.encoding import Asked, Encoder, Encoding
from .head import PretextHead, Question
from .masked_tokens import choose_places

__all__ = ["MaskedPatches"]


class MaskedPatches(PretextHead):
    """Masked image modelling for the vision Transformer: patches are hidden and are to be painted.

    As SimMIM (Xie et al. 2022, arXiv:2111.09886) the encoder reads hidden patches too, and a linear layer paints; as in
    the masked autoencoder (He et al. 2022, arXiv:2111.06377) single patches are hidden, and what is painted may be
    brought to mean 0 and deviation 1 in each patch (``normalise``). The error is the mean square over hidden patches.
    A hidden patch is the mean of all pictures, not a vector that is learned: so the encoder is the one that any other
    run has. The figures of a row: its loss.
    """

    reads = "tokens"
    reads_types = ("image",)

    def __init__(
        self,
        width: int,
        column: Column,
        *,
        share: Annotated[float, Field(gt=0, lt=1, description="of the patches that are hidden")] = 0.6,
        normalise: Annotated[bool, Field(description="each patch that is to be painted to mean 0, deviation 1")] = True,
    ) -> None:
        super().__init__(column)
        self.width, self.share, self.normalise = width, share, normalise

    def build(self, encoder: Encoder) -> None:
        patch = getattr(encoder, "patch", None)
        self.check(
            isinstance(patch, int),
            f"needs an encoder of patches, which {type(encoder).__name__} is not",
            "Take the encoder vit, or the objective views.",
        )
        assert isinstance(patch, int)
        self.patch = patch
        self.paint = nn.Linear(self.width, self.input.spec().shape[0] * patch * patch)

    def ask(self, stem: nn.Module, given: ColumnBatch, other: ColumnBatch, draw: Draw) -> Question:
        x_BCHW, _ = stem(*given)
        height, width = x_BCHW.shape[2:]
        x_BCHW = F.pad(x_BCHW, (0, -width % self.patch, 0, -height % self.patch))
        truth = F.unfold(x_BCHW, self.patch, stride=self.patch).transpose(1, 2)  # [B, N, P]
        everywhere = torch.ones(truth.shape[:2], dtype=torch.bool, device=truth.device)
        place, counts = choose_places(draw.uniform(truth.shape[1], "places"), everywhere, self.share)
        hidden = torch.zeros_like(everywhere).scatter(1, place, counts)
        shown = truth.masked_fill(hidden.unsqueeze(-1), 0.0).transpose(1, 2)
        seen = F.fold(shown, x_BCHW.shape[2:], self.patch, stride=self.patch)
        return Question(seen[:, :, :height, :width], None, (truth, hidden))

    def judge(self, encoding: Encoding, asked: Asked) -> Tensor:
        truth, hidden = asked
        if self.normalise:
            mean, variance = truth.mean(-1, keepdim=True), truth.var(-1, keepdim=True, correction=0)
            truth = (truth - mean) / (variance + 1e-6).sqrt()
        apart = (self.paint(encoding.tokens).float() - truth.float()).square().mean(-1)
        rows: Tensor = (apart * hidden).sum(1) / hidden.sum(1).clamp(min=1)
        return rows.unsqueeze(1)
