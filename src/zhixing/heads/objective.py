"""What a written text is trained for: to be likely, or to be likelier than another one.

Shape legend: B rows, T tokens of a text.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ..columns.vocabulary import PAD
from ..models.encoding import Encoding
from .decoder import Decoder, Forced

__all__ = ["DPO", "OBJECTIVES", "Likelihood", "Objective", "pair_of"]


class Objective:
    """Base of the objectives: prediction, loss and figures of a decoder's texts."""

    pairs: ClassVar[bool] = False  # whether it needs a text that is preferred and one that is not

    def goal(self, decoder: Decoder) -> str:
        """The metric that a model is chosen by; less of it is better."""
        return decoder.goal

    def remember(self, decoder: Decoder, *, shared: bool) -> None:
        """Note the weights that training starts from; ``shared``: they will stay as they are."""

    def moved(self, change: Callable[[Tensor], Tensor]) -> None:
        """Do to what is remembered what was done to the decoder's tensors."""

    def predict(self, decoder: Decoder, encoding: Encoding, target: Tensor | None) -> Tensor:
        out: Tensor = decoder(encoding, target)
        return out

    def loss(self, decoder: Decoder, prediction: Tensor, target: Tensor) -> Tensor:
        return decoder.loss(prediction, target)

    def row_weights(self, target: Tensor) -> Tensor | None:
        """The number of tokens that are predicted: each counts the same, whichever text it stands in."""
        return (target > PAD).sum(1).float()

    def keep(self, decoder: Decoder, prediction: Tensor, target: Tensor) -> Tensor:
        return decoder.keep(prediction, target)

    def metrics(self, kept: Tensor) -> dict[str, float]:
        """Figures of what was kept of a text that is scored token by token."""
        loss, right, tokens, bytes_ = kept.double().sum(0).tolist()
        out = {"perplexity": math.exp(min(loss / max(tokens, 1), 700)), "token_accuracy": right / max(tokens, 1)}
        return out | ({"bits_per_byte": loss / math.log(2) / bytes_} if bytes_ else {})


class Likelihood(Objective):
    """The true text is to be likely, token by token. Of a pair, the preferred one."""


class DPO(Objective):
    """Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290, equation 7): of two answers the preferred
    one is to become likelier, beside the other and beside what both were to the model that training started from.

    The loss of a pair is -log sigmoid(beta ((c - r) - (c' - r'))), where c and r are the log-probabilities of the whole
    chosen and rejected texts, and c' and r' those of the reference: the weights at the start. While these stay as they
    are (LoRA), they are not held twice.

    Prediction: c, r, c', r' of each row, [B, 4]; the last two are NaN where no start is remembered, as in a finished
    run, and then count as 0. ``margin`` is the mean of c - r, in nats, ``preferred`` the share of pairs in which it is
    above 0; ``reward_margin`` and ``reward_accuracy`` are the same of beta ((c - r) - (c' - r')).
    """

    pairs = True

    def __init__(
        self,
        *,
        beta: Annotated[float, Field(gt=0, description="how dear it is to move away from the start")] = 0.1,
    ) -> None:
        self.beta = beta
        self.reference: Decoder | None = None

    def goal(self, decoder: Decoder) -> str:
        return "preference_loss"

    def remember(self, decoder: Decoder, *, shared: bool) -> None:
        kept = {id(tensor): tensor for tensor in decoder.parameters()} if shared else {}
        self.reference = copy.deepcopy(decoder, kept).eval()
        if not shared:
            self.reference.requires_grad_(False)

    def moved(self, change: Callable[[Tensor], Tensor]) -> None:
        if self.reference is not None:
            self.reference._apply(change)  # type: ignore[no-untyped-call]

    def predict(self, decoder: Decoder, encoding: Encoding, target: Tensor | None) -> Tensor:
        assert target is not None
        own = likelihoods(decoder, encoding, target)
        if self.reference is None:
            return torch.cat([own, torch.full_like(own, math.nan)], dim=1)
        with torch.no_grad():
            start = likelihoods(self.reference, encoding, target)
        return torch.cat([own, start], dim=1)

    def rewards(self, prediction: Tensor) -> Tensor:
        """By how much the chosen text has gained on the other one, times beta, [B]."""
        chosen, rejected, *start = prediction.unbind(1)
        return self.beta * ((chosen - rejected) - (start[0] - start[1]).nan_to_num(0.0))

    def loss(self, decoder: Decoder, prediction: Tensor, target: Tensor) -> Tensor:
        return -F.logsigmoid(self.rewards(prediction))

    def row_weights(self, target: Tensor) -> Tensor | None:
        return None

    def keep(self, decoder: Decoder, prediction: Tensor, target: Tensor) -> Tensor:
        return prediction.double()

    def metrics(self, kept: Tensor) -> dict[str, float]:
        margin, rewards = kept[:, 0] - kept[:, 1], self.rewards(kept)
        out = {"margin": float(margin.mean()), "preferred": share_above(margin)}
        if not bool(kept[:, 2:].isnan().any()):
            out |= {"reward_margin": float(rewards.mean()), "reward_accuracy": share_above(rewards)}
        return {"preference_loss": float(-F.logsigmoid(rewards).mean()), **out}


OBJECTIVES: dict[str, type[Objective]] = {"likelihood": Likelihood, "dpo": DPO}


def share_above(values: Tensor) -> float:
    return float((values > 0).double().mean())


def pair_of(target: Tensor) -> tuple[Tensor, Tensor]:
    """The preferred text and the other one, [B, T / 2] each, of rows [B, T] that hold both.

    >>> [one.tolist() for one in pair_of(torch.tensor([[7, 8, 3, -9, -3, 0], [7, 3, -8, -3, 0, 0]]))]
    [[[7, 8, 3], [7, 3, 0]], [[9, 3, 0], [8, 3, 0]]]
    """
    chosen, rejected = target.clamp(min=0), (-target).clamp(min=0)
    rejected = rejected.gather(1, (rejected == PAD).to(torch.uint8).argsort(dim=1, stable=True))
    most = -(-target.shape[1] // 2)  # rows are twice as long as the longer of their texts
    return chosen[:, :most], rejected[:, :most]


def likelihoods(decoder: Decoder, encoding: Encoding, target: Tensor) -> Tensor:
    """Log-probabilities of the chosen and the rejected text of each row, [B, 2], in one pass of both."""
    assert isinstance(decoder, Forced)
    both = torch.cat(pair_of(target))
    assert encoding.ids is not None  # which is all that the decoder reads: see TextHead.meet
    twice = encoding._replace(pooled=torch.cat([encoding.pooled] * 2), ids=torch.cat([encoding.ids] * 2))
    losses, _ = decoder.token_losses(decoder(twice, both).float(), both, 0.0)
    chosen, rejected = (-losses.sum(1)).chunk(2)
    return torch.stack([chosen, rejected], dim=1)
