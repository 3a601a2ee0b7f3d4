"""A text as an alignment of the input's steps with it.

Shape legend: B rows, T tokens of the text, S tokens of the input, D width, V tokens of the vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..columns.vocabulary import END, PAD
from ..errors import UsageError
from ..models.encoding import Encoding
from .decoder import NOTHING, Decoder
from .search import Search, Steps

__all__ = ["CTC"]


class CTC(Decoder):
    """Each step of the input says a token or nothing; repeats without a nothing between them are one token
    (Graves et al. 2006, "Connectionist temporal classification"). For an input longer than its text, as speech is.

    Padding says nothing with certainty, so that it changes neither loss nor text. PAD is the "nothing" of the paper.
    """

    goal, forced = "cer", False

    def __init__(self, width_in: int, vocabulary: int, length: int) -> None:
        super().__init__()
        if not width_in:
            raise UsageError("ctc aligns an input with a text", place="decoder", mend="Take the transformer decoder.")
        self.out = nn.Linear(width_in, vocabulary)

    def forward(self, encoding: Encoding, target: Tensor | None = None) -> Tensor:
        scores: Tensor = self.out(encoding.tokens)
        scores = scores.log_softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))
        if encoding.mask is None:
            return scores
        nothing = torch.full_like(scores[0, 0], NOTHING)
        nothing[PAD] = 0.0
        return torch.where(encoding.mask[:, :, None], scores, nothing)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Of a row whose input has too few steps for its text the loss is 0: nothing can be learned of it."""
        lengths = ((target > PAD) & (target != END)).sum(1)
        # Padding may not count as steps: there, a text that is too long would be possible, at the cost of NOTHING.
        place = torch.arange(1, prediction.shape[1] + 1, device=target.device)
        steps = torch.where(prediction[:, :, END] > NOTHING, place, 0).amax(1)
        losses = F.ctc_loss(
            prediction.transpose(0, 1), target, steps, lengths, blank=PAD, reduction="none", zero_infinity=True
        )
        return losses / (target > PAD).sum(1).clamp(min=1)

    def keep(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The likeliest text, one token a step, [B, S]."""
        best = prediction.argmax(-1)
        before = F.pad(best[:, :-1], (1, 0), value=PAD)
        kept = (best != PAD) & (best != before)
        order = (~kept).to(torch.uint8).argsort(dim=1, stable=True)
        return torch.where(kept, best, PAD).gather(1, order)

    def write(self, encoding: Encoding, settings: Search, most: int, prompt: Tensor | None = None) -> Tensor:
        said: Tensor = self(encoding)
        return self.keep(said, said)[:, :most]

    def stream(self, encoding: Encoding, settings: Search, most: int, prompt: Tensor | None = None) -> Steps:
        yield from self.write(encoding, settings, most, prompt).unbind(1)  # all at once: what is sent back is too late
