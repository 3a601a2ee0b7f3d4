"""Texts with the times at which they are said, as Whisper writes them: tokens that stand for times around each phrase.

Shape legend: R rows, V tokens of the vocabulary, T tokens so far.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..columns.vocabulary import BEGIN, END, PAD
from ..layers.transformer import Cache
from ..models.encoding import Encoding
from .decoder_transformer import TransformerDecoder
from .search import Search, search

__all__ = ["Clock", "Heard", "Phrase", "hear", "phrases_of"]

FIRST_WITHIN = 1.0  # seconds in which the first phrase begins, as in the paper's own decoding


class Clock(NamedTuple):
    """What a vocabulary knows of times: tokens ``first`` to ``last`` stand for 0, ``step``, 2 ``step`` … seconds.

    ``lead`` are the tokens before a text with times, ``others`` those that are neither text nor times and never to be
    written, ``silence`` the one that says that nobody speaks, where there is such.
    """

    first: int
    last: int
    step: float
    lead: tuple[int, ...]
    others: tuple[int, ...]
    silence: int | None

    def seconds(self, token: int) -> float:
        return (token - self.first) * self.step


class Phrase(NamedTuple):
    """Tokens of what is said between two times, in seconds from the beginning of the window."""

    start: float
    end: float
    tokens: list[int]


class Heard(NamedTuple):
    """Tokens of one window, the mean log-probability of each, and the probability that nobody speaks."""

    tokens: list[int]
    confidence: float
    silence: float


class State(NamedTuple):
    """What the decoder has read of each row, the token before the last [R], the last [R], the latest time [R]."""

    cache: Cache
    before: Tensor
    last: Tensor
    latest: Tensor

    def pick(self, rows: Tensor) -> State:
        return State(self.cache.pick(rows), self.before[rows], self.last[rows], self.latest[rows])


def timed(scores: Tensor, state: State, clock: Clock) -> Tensor:
    """Scores [R, V] of what may come next, by the rules of Whisper's decoding (Radford et al. 2022, arXiv:2212.04356,
    section 4.5): a time before each phrase and one after it, none earlier than those before, and a time wherever times
    together are likelier than any one word."""
    scores, no = scores.clone(), float("-inf")
    place = torch.arange(scores.shape[1], device=scores.device)
    times = (place >= clock.first) & (place <= clock.last)
    scores[:, list(clock.others)] = no
    begins = state.last < 0
    after_time, after_two = state.last >= clock.first, (state.before >= clock.first) | (state.before < 0)
    scores.masked_fill_((after_time & after_two & ~begins)[:, None] & times, no)  # a phrase
    scores.masked_fill_((after_time & ~after_two)[:, None] & ~times & (place != END), no)  # the next one, or the end
    least = torch.where(after_time & ~after_two, state.latest, state.latest + 1)  # no phrase is of no length
    scores.masked_fill_(times & (place < least[:, None]), no)
    within = clock.first + round(FIRST_WITHIN / clock.step)
    scores.masked_fill_(begins[:, None] & ~(times & (place <= within)), no)
    logs = scores.log_softmax(-1)
    likelier = logs[:, times].logsumexp(-1) > logs[:, ~times].amax(-1)
    return scores.masked_fill(likelier[:, None] & ~times, no)


@torch.inference_mode()
def hear(decoder: TransformerDecoder, encoding: Encoding, clock: Clock, settings: Search) -> Heard:
    """What is said in one window, which ``encoding`` is of."""
    most = decoder.length - len(decoder.lead)
    read = torch.tensor([[BEGIN, *clock.lead]], device=encoding.tokens.device)
    source = decoder.project(encoding.tokens)
    cache = decoder.stack.start(1, read.shape[1] + most, source=source, source_real=encoding.mask)
    hidden, cache = decoder.stack.step(decoder.vectors(read), cache)
    silent = float(decoder.scores(hidden[:, 0]).softmax(-1)[0, clock.silence]) if clock.silence is not None else 0.0
    none = torch.full_like(read[:, 0], -1)
    state = State(cache, none, none, none + clock.first)

    def advance(tokens: Tensor, state: State) -> tuple[Tensor, State]:
        hidden, cache = decoder.stack.step(decoder.vectors(tokens[:, None]), state.cache, tokens[:, None] > PAD)
        latest = torch.where(tokens >= clock.first, tokens, state.latest)
        state = State(cache, state.last, tokens, latest)
        return timed(decoder.scores(hidden[:, 0]), state, clock), state

    first = timed(decoder.scores(hidden[:, -1]), state, clock)
    found = search(first, state, advance, settings, min(settings.most or most, most))[0]
    found = found[found > PAD]
    whole = torch.cat([read[0], found])[None]
    scores = decoder.scores(decoder.stack(decoder.vectors(whole), source=source, source_real=encoding.mask))
    logs = scores[0, read.shape[1] - 1 : -1].log_softmax(-1).gather(1, found[:, None])
    return Heard(found.tolist(), float(logs.mean()), silent)


def phrases_of(tokens: list[int], clock: Clock, span: float) -> tuple[list[Phrase], float]:
    """The phrases of a window of ``span`` seconds, and how far it has been understood: up to the last time at which a
    phrase ended and another began, so that what the window's end cuts is heard again in the next one.

    >>> clock = Clock(100, 1600, 0.02, (), (), None)
    >>> phrases_of([100, 7, 8, 200, 200, 9, 300, 300], clock, 30.0)
    ([Phrase(start=0.0, end=2.0, tokens=[7, 8]), Phrase(start=2.0, end=4.0, tokens=[9])], 4.0)
    >>> phrases_of([100, 7, 200], clock, 30.0)
    ([Phrase(start=0.0, end=2.0, tokens=[7])], 30.0)
    """
    tokens = [token for token in tokens if token != END]
    is_time = [token >= clock.first for token in tokens]
    ends_once = is_time[-2:] == [False, True]  # nothing is cut: after the phrase there is silence
    borders = [place for place in range(1, len(tokens)) if is_time[place - 1] and is_time[place]]
    borders += [len(tokens)] if ends_once else []
    if not borders:  # a phrase that has no end here
        times = [token for token in tokens if token >= clock.first]
        start = min(clock.seconds(times[0]), span) if times else 0.0
        end = clock.seconds(times[-1]) if len(times) > 1 else span
        words = [token for token in tokens if token < clock.first]
        return [Phrase(start, max(start, min(end, span)), words)] if words else [], span
    phrases, begun = [], 0
    for border in borders:
        part = tokens[begun:border]
        words = [token for token in part if token < clock.first]
        start, end = clock.seconds(part[0]), clock.seconds(part[-1])
        if words:
            phrases.append(Phrase(min(start, span), min(end, span), words))
        begun = border
    return phrases, span if ends_once else min(span, clock.seconds(tokens[begun - 1]))
