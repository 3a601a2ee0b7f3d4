"""The vision Transformer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..layers.convolution import cells
from ..layers.initialise import initialise
from ..layers.positions import sinusoids_2d
from ..layers.transformer import Depth, Heads, Transformer, TransformerSettings, Width
from .encoding import Encoder, Encoding, Spec

__all__ = ["ViT"]


class PictureBlocks(TransformerSettings):
    """Settings of the blocks over a picture's patches."""

    heads: Heads = 4
    eps: Annotated[float, Field(gt=0, description="added to the variance in norms")] = 1e-6
    positions: Annotated[Literal["learned", "sinusoidal"], Field(description="how the place of a patch is told")] = (
        "learned"
    )


class ViT(Encoder):
    """Vision Transformer (Dosovitskiy et al. 2021, arXiv:2010.11929): attention among square patches of a picture.

    A picture that is not a multiple of the patch gets zeros below and to the right. ViT-B/16 is
    ``{patch: 16, width: 768, depth: 12, heads: 12}``. With ``sinusoidal`` positions, half of the units tell the row of
    a patch and half its column; the class token has none.

    Shape: values [B, C, H, W] of the size in the spec to tokens [B, T, D], the patches, and pooled [B, D].

    Raises:
        UsageError: heads that do not divide the width.

    >>> encoder = ViT(Spec("image", (1, 28, 28)), width=16, heads=2)
    >>> encoding = encoder(torch.zeros(2, 1, 28, 28))
    >>> encoding.pooled.shape, encoding.tokens.shape, encoding.grid
    (torch.Size([2, 16]), torch.Size([2, 49, 16]), (7, 7))
    """

    accepts = frozenset({"image"})
    places: Tensor

    def __init__(
        self,
        spec: Spec,
        *,
        patch: Annotated[
            int | None,
            Field(ge=1, description="height and width of a patch; open: 4 for pictures under 64, 8 under 128, else 16"),
        ] = None,
        width: Width = 128,
        depth: Depth = 4,
        pooling: Annotated[Literal["cls", "mean"], Field(description="summary: a class token's, or the mean")] = "cls",
        **block: Annotated[Any, PictureBlocks],
    ) -> None:
        super().__init__()
        chosen = PictureBlocks(**block)
        channels, *size = spec.shape
        self.patch = patch or (4 if min(size) < 64 else 8 if min(size) < 128 else 16)
        height, columns = (-(side // -self.patch) for side in size)
        self.patches = nn.Conv2d(channels, width, self.patch, stride=self.patch)
        initialise(self.patches, "xavier")
        self.cls = nn.Parameter(0.02 * torch.randn(1, 1, width)) if pooling == "cls" else None
        self.learned = chosen.positions == "learned"
        if not self.learned:
            self.register_buffer("places", sinusoids_2d(height, columns, width), persistent=False)
            chosen = chosen.model_copy(update={"positions": "none"})
        self.blocks = Transformer(width, depth, chosen, length=height * columns + (self.cls is not None))
        self.width = self.token_width = width

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Encoding:
        below, right = (-side % self.patch for side in values.shape[2:])
        if below or right:
            values = F.pad(values, (0, right, 0, below))
        x_BTD, grid = cells(self.patches(values))
        if not self.learned:
            x_BTD = x_BTD + self.places.to(x_BTD.dtype)
        if self.cls is None:
            tokens = self.blocks(x_BTD)
            return Encoding(tokens.mean(1), tokens, grid=grid)
        x_BTD = self.blocks(torch.cat([self.cls.to(x_BTD.dtype).expand(len(x_BTD), -1, -1), x_BTD], dim=1))
        return Encoding(x_BTD[:, 0], x_BTD[:, 1:], grid=grid)
