"""From a model that says what comes next to whole texts: greedy, by beams, or drawn by chance.

Shape legend: B rows, K beams of a row, V tokens of the vocabulary, T tokens so far.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Annotated, Any, NamedTuple, Protocol, Self

import torch
from pydantic import Field
from torch import Tensor

from ..columns.vocabulary import END, PAD
from ..randomness import uniform_rows
from ..settings import Settings

__all__ = ["Search", "State", "Steps", "search", "stream"]


class Search(Settings):
    """How a text is found. Without beams and temperature, the likeliest token is taken each time."""

    beams: Annotated[int, Field(ge=1, description="texts that are followed at once")] = 1
    length_penalty: Annotated[
        float, Field(ge=0, description="beams: how much longer texts are favoured (alpha of Wu et al. 2016)")
    ] = 0.6
    temperature: Annotated[float, Field(ge=0, description="0: no chance; 1: as the model says; more: bolder")] = 0.0
    top_k: Annotated[int | None, Field(ge=1, description="chance: of the likeliest so many tokens")] = None
    top_p: Annotated[
        float | None, Field(gt=0, le=1, description="chance: of the likeliest tokens that make up this share")
    ] = None
    repetition_penalty: Annotated[
        float, Field(ge=1, description="divides the scores of tokens that were used (Keskar et al. 2019); 1: off")
    ] = 1.0
    most: Annotated[int | None, Field(ge=1, description="most tokens; open: as in training")] = None
    seed: Annotated[int, Field(ge=0, description="of all chance")] = 0


class State(Protocol):
    """What a model remembers of rows that it has read."""

    def pick(self, rows: Tensor) -> Self: ...


Steps = Generator[Tensor, Tensor | None, None]
Advance = Callable[[Tensor, Any], tuple[Tensor, Any]]


def search(
    logits: Tensor, state: State, advance: Advance, settings: Search, most: int, room: Tensor | None = None
) -> Tensor:
    """The texts of B rows as tokens [B, T'], T' at most ``most``, each ended by END, then PAD: see :func:`stream`."""
    return torch.stack(list(stream(logits, state, advance, settings, most, room)), dim=1)


@torch.no_grad()
def stream(
    logits: Tensor, state: State, advance: Advance, settings: Search, most: int, room: Tensor | None = None
) -> Steps:
    """The tokens [B] of each step as they are found, PAD where a text has ended; by beams, all of them at the end.

    Who reads them may send back [B], True for texts that are to end here.

    ``room`` [B] is the most of each row, where that is less for some: a text that it cuts off has no END.

    ``logits`` [B, V] and ``state`` are what stands after all that was given; ``advance(tokens [B], state)`` gives
    them after one more token, PAD for a text that has ended. The search stops as soon as all texts have ended.
    """
    if settings.beams > 1:
        yield from beam_search(logits, state, advance, settings, most, room).unbind(1)
        return
    rows = torch.arange(len(logits), device=logits.device)
    ended = torch.zeros_like(rows, dtype=torch.bool)
    used = torch.zeros_like(logits, dtype=torch.bool)
    for step in range(most):
        scores = allowed(penalised(logits.float(), used, settings))
        tokens = drawn(scores, rows, step, settings) if settings.temperature else scores.argmax(-1)
        tokens = torch.where(ended, PAD, tokens)
        stopped = yield tokens
        ended = ended | (tokens == END)
        if stopped is not None:
            ended = ended | stopped
        if room is not None:
            ended = ended | (step + 1 >= room)
        if bool(ended.all()) or step + 1 == most:
            break
        used.scatter_(1, tokens[:, None], True)
        logits, state = advance(torch.where(ended, PAD, tokens), state)


def penalised(logits: Tensor, used: Tensor, settings: Search) -> Tensor:
    if settings.repetition_penalty == 1:
        return logits
    lower = torch.where(logits > 0, logits / settings.repetition_penalty, logits * settings.repetition_penalty)
    return torch.where(used, lower, logits)


def allowed(logits: Tensor) -> Tensor:
    """Scores without the tokens that no text is to hold: padding, unknown and begin, which come before END."""
    logits = logits.clone()
    logits[..., :END] = float("-inf")
    return logits


def drawn(scores: Tensor, rows: Tensor, step: int, settings: Search) -> Tensor:
    """A token for each row by chance: a function of (seed, row of the batch, step).

    ``top_k`` keeps the likeliest so many tokens (Fan et al. 2018), ``top_p`` the fewest that make up this share
    (Holtzman et al. 2020); the likeliest token always stays.
    """
    probability, order = (scores / settings.temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
    if settings.top_k is not None:
        probability[..., settings.top_k :] = 0
    if settings.top_p is not None:
        before = probability.cumsum(-1) - probability
        probability = probability.masked_fill(before >= settings.top_p, 0)
    total = probability.cumsum(-1)
    chance = uniform_rows(rows, 1, settings.seed, step, "token").to(total) * total[..., -1:]
    place = (total <= chance).sum(-1, keepdim=True)
    last = (probability > 0).sum(-1, keepdim=True) - 1  # rounding must not lead past it
    return order.gather(-1, torch.minimum(place, last)).squeeze(-1)


class Beams(NamedTuple):
    """K texts of each row: their tokens [B, K, T], sums of log-probabilities, lengths and whether they have ended."""

    tokens: Tensor
    totals: Tensor
    lengths: Tensor
    ended: Tensor

    def scores(self, alpha: float) -> Tensor:
        """Sums of log-probabilities by ((5 + length) / 6)^alpha (Wu et al. 2016, arXiv:1609.08144, section 7)."""
        return self.totals / ((5 + self.lengths) / 6) ** alpha


def beam_search(
    logits: Tensor, state: State, advance: Advance, settings: Search, most: int, room: Tensor | None
) -> Tensor:
    """The best of K texts of each row. A text that has ended stays among them as it is, until K better ones are there.

    What ``repetition_penalty`` does to logits counts in the sums as well.
    """
    batch, vocabulary = logits.shape
    width, device = settings.beams, logits.device
    first = torch.arange(batch, device=device)[:, None] * width
    rows = torch.arange(batch, device=device).repeat_interleave(width)
    state, logits = state.pick(rows), logits[rows]
    zeros = torch.zeros(batch, width, dtype=torch.int64, device=device)
    totals = torch.full((batch, width), float("-inf"), device=device)
    totals[:, 0] = 0  # at first all beams are one
    beams = Beams(zeros[:, :, None][:, :, :0], totals, zeros, zeros.bool())
    used = torch.zeros_like(logits, dtype=torch.bool)
    for step in range(most):
        scores = allowed(penalised(logits.float(), used, settings)).log_softmax(-1).view(batch, width, vocabulary)
        beams, parent = grown(beams, scores, settings.length_penalty)
        if room is not None:
            beams = beams._replace(ended=beams.ended | (step + 1 >= room)[:, None])
        if bool(beams.ended.all()) or step + 1 == most:
            break
        chosen, tokens = (first + parent).flatten(), beams.tokens[:, :, -1].flatten()
        used = used[chosen].scatter(1, tokens[:, None], True)
        logits, state = advance(torch.where(beams.ended.flatten(), PAD, tokens), state.pick(chosen))
    best = beams.scores(settings.length_penalty).argmax(1)
    return beams.tokens[torch.arange(batch, device=device), best]


def grown(beams: Beams, scores: Tensor, alpha: float) -> tuple[Beams, Tensor]:
    """The K best texts that are one token longer, or have ended; and the place [B, K] of the beam each comes from."""
    _, width, vocabulary = scores.shape
    stay = torch.full_like(scores[0, 0], float("-inf"))
    stay[PAD] = 0
    scores = torch.where(beams.ended[:, :, None], stay, scores)
    totals = beams.totals[:, :, None] + scores
    lengths = (beams.lengths + ~beams.ended)[:, :, None]
    ranked = (totals / ((5 + lengths) / 6) ** alpha).flatten(1)
    best = ranked.topk(width, dim=1).indices
    parent, token = best // vocabulary, best % vocabulary
    ended = beams.ended.gather(1, parent)
    earlier = beams.tokens.gather(1, parent[:, :, None].expand(-1, -1, beams.tokens.shape[2]))
    return Beams(
        torch.cat([earlier, token[:, :, None]], dim=2),
        totals.flatten(1).gather(1, best),
        beams.lengths.gather(1, parent) + ~ended,
        ended | (token == END),
    ), parent
