"""Masked stretches of sounds and series.

Shape legend: B rows, T steps, F features of a step, S steps that a token stands for.
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

__all__ = ["MaskedSpectrogram"]


class MaskedSpectrogram(PretextHead):
    """Stretches of steps are hidden and are to be told, after Mockingjay (Liu et al. 2020, arXiv:1910.12638), whose
    stretches are 7 frames and whose error is the mean distance; of a sound the steps are those of its spectrogram.

    The clip is cut into stretches of ``span`` steps, of which a ``share`` is hidden; a hidden feature is its mean over
    all training rows, so that hiding adds nothing to the encoder. An encoder that has one token for several steps tells
    all of them. The figures of a row: its loss.
    """

    reads = "tokens"
    reads_types = ("audio", "series")

    def __init__(
        self,
        width: int,
        column: Column,
        *,
        share: Annotated[float, Field(gt=0, lt=1, description="of the stretches that are hidden")] = 0.3,
        span: Annotated[int, Field(ge=1, description="steps of a stretch")] = 7,
    ) -> None:
        super().__init__(column)
        self.width, self.share, self.span = width, share, span

    def build(self, encoder: Encoder) -> None:
        self.shrink = int(getattr(encoder, "shrink", 1))
        self.features = self.input.spec().shape[1]
        self.tell = nn.Linear(self.width, self.shrink * self.features)

    def ask(self, stem: nn.Module, given: ColumnBatch, other: ColumnBatch, draw: Draw) -> Question:
        x_BTF, mask = stem(*given)
        steps = x_BTF.shape[1]
        real = torch.ones_like(x_BTF[..., 0], dtype=torch.bool) if mask is None else mask
        stretches = -(-steps // self.span)
        there = F.pad(real, (0, stretches * self.span - steps)).view(len(real), stretches, self.span).any(2)
        place, counts = choose_places(draw.uniform(stretches, "places"), there, self.share)
        hidden = torch.zeros_like(there).scatter(1, place, counts).repeat_interleave(self.span, 1)[:, :steps] & real
        return Question(x_BTF.masked_fill(hidden.unsqueeze(-1), 0.0), mask, (x_BTF, hidden))

    def judge(self, encoding: Encoding, asked: Asked) -> Tensor:
        truth, hidden = asked
        told = self.tell(encoding.tokens).float().reshape(len(truth), -1, self.features)
        steps = min(told.shape[1], truth.shape[1])  # the last token may stand for steps beyond the end
        apart = (told[:, :steps] - truth[:, :steps].float()).abs().mean(-1)
        hidden = hidden[:, :steps]
        rows: Tensor = (apart * hidden).sum(1) / hidden.sum(1).clamp(min=1)
        return rows.unsqueeze(1)
