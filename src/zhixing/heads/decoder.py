"""What writes a text, and what all that score it token by token share.

Shape legend: B rows, T tokens of the text, S tokens of the input, D width, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..columns.vocabulary import BEGIN, END, PAD
from ..layers.packed import packed
from ..models.encoding import Encoding
from .search import Search, Steps

__all__ = ["NOTHING", "Decoder", "Forced", "Smoothing", "shifted"]

Smoothing = Annotated[float, Field(ge=0, lt=1, description="label smoothing")]
NOTHING = -1e4  # the logarithm of no chance; finite, and within half precision


class Decoder(nn.Module):
    """Base of the decoders, which are made for an input's ``width`` (0: there is none), a number of tokens and the
    most tokens of a text.

    ``goal`` is the metric that a model is chosen by. Targets [B, T] end with END, then PAD; a negative token is seen
    and not predicted (it stands there for context alone).
    """

    goal: ClassVar[str]
    forced: ClassVar[bool]

    def forward(self, encoding: Encoding, target: Tensor | None = None) -> Tensor:
        raise AssertionError(f"{type(self).__name__} has no forward")

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The mean loss of each row's tokens, [B]."""
        raise AssertionError(f"{type(self).__name__} has no loss")

    def keep(self, prediction: Tensor, target: Tensor) -> Tensor:
        """What the metrics read."""
        raise AssertionError(f"{type(self).__name__} has no keep")

    def write(self, encoding: Encoding, settings: Search, most: int, prompt: Tensor | None = None) -> Tensor:
        """The texts [B, T'] that are found for the encodings, perhaps going on from a prompt [B, T]."""
        return torch.stack(list(self.stream(encoding, settings, most, prompt)), dim=1)

    def stream(self, encoding: Encoding, settings: Search, most: int, prompt: Tensor | None = None) -> Steps:
        """The same texts as they grow: the tokens [B] of each step, PAD where a text has ended."""
        raise AssertionError(f"{type(self).__name__} has no stream")

    def ready(self, rows: int) -> Self:
        """A copy for writing ``rows`` texts at a time, faster on a CPU; weights not laid out anew are shared."""
        return packed(self, rows)

    def looks(self, encoding: Encoding, target: Tensor) -> Tensor | None:
        """Where the decoder looks in the input as it writes each token of the targets, [B, T, S]; None if nowhere."""
        return None


class Forced(Decoder):
    """Base of those that score each token by all that came before it: forward gives the scores [B, T, V]."""

    goal, forced = "perplexity", True
    smoothing: float
    token_bytes: Tensor
    absent: Tensor
    lead: Tensor

    def __init__(self) -> None:
        super().__init__()
        # All three follow from the column's tokenizer: nothing of them has to be kept with the weights.
        self.register_buffer("token_bytes", torch.zeros(0), persistent=False)  # or [V], see count_bytes
        self.register_buffer("absent", torch.zeros(0, dtype=torch.int64), persistent=False)
        self.register_buffer("lead", torch.zeros(0, dtype=torch.int64), persistent=False)

    def count_bytes(self, token_bytes: Tensor) -> None:
        """Say how many bytes each token stands for, [V]."""
        self.token_bytes = token_bytes.to(self.token_bytes.device)

    def follow(self, absent: Sequence[int], lead: Sequence[int]) -> None:
        """Say which tokens never come, and which stand between BEGIN and each text: published weights want both."""
        self.absent, self.lead = (torch.tensor(ids, dtype=torch.int64) for ids in (absent, lead))

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        losses, real = self.token_losses(prediction, target, self.smoothing)
        return losses.sum(1) / real.sum(1).clamp(min=1)

    def keep(self, prediction: Tensor, target: Tensor) -> Tensor:
        """For each row the sum of its tokens' losses, how many are right when the true ones before are known, how many
        there are, and how many bytes they stand for: [B, 4] float64."""
        losses, real = self.token_losses(prediction, target, 0.0)
        right = (prediction.argmax(-1) == target) & real
        bytes_ = self.token_bytes[torch.where(real, target, PAD)] if len(self.token_bytes) else torch.zeros_like(losses)
        return torch.stack([part.double().sum(1) for part in (losses, right, real, bytes_)], dim=1)

    @staticmethod
    def token_losses(prediction: Tensor, target: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
        real = target > PAD
        wanted = torch.where(real, target, -100)
        losses = F.cross_entropy(
            prediction.flatten(0, 1), wanted.flatten(), reduction="none", label_smoothing=smoothing, ignore_index=-100
        )
        return losses.view(target.shape), real


def shifted(target: Tensor) -> Tensor:
    """What is read when each token of a target is predicted: the one before it, BEGIN before the first of a text.

    >>> shifted(torch.tensor([[7, 8, END, 9, END, 0]])).tolist()
    [[2, 7, 8, 2, 9, 2]]
    """
    before = F.pad(target.abs()[:, :-1], (1, 0), value=BEGIN)
    return torch.where(before == END, BEGIN, before)
