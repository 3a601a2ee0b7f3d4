"""A learned vector for each class of a category."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from .encoding import Encoder, Encoding, Spec

__all__ = ["Embedding"]


class Embedding(Encoder):
    """A table of learned vectors, one a class.

    The last two rows are for classes that training did not see and for empty cells; they start at zero, so that an
    unknown class adds nothing until something has been learned of it.

    Shape: values [B] int64 to pooled [B, D]; tokens [B, 1, D] are the same.
    """

    accepts = frozenset({"ids"})

    def __init__(
        self,
        spec: Spec,
        *,
        width: Annotated[
            int | None, Field(ge=1, description="length of a vector; open: 1.6 · classes^0.56, 64 at most")
        ] = None,
    ) -> None:
        super().__init__()
        self.width = self.token_width = width or min(64, round(1.6 * spec.vocabulary**0.56))
        self.table = nn.Embedding(spec.vocabulary, self.width)
        # Vectors of about length 1, so that products of two of them start small.
        nn.init.normal_(self.table.weight, std=self.width**-0.5)
        with torch.no_grad():
            self.table.weight[-2:] = 0

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Encoding:
        pooled = self.table(values)
        return Encoding(pooled, pooled.unsqueeze(1))
