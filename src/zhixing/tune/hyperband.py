"""Hyperband (Li et al., "Hyperband: a novel bandit-based approach to hyperparameter optimization", 2018).

A *rung* is a share of the whole training, the last one all of it. Trials come in brackets: those of one bracket start
at the same rung, and when all of them have been there, the best ``1 / eta`` go on to the next and the others stop.
Brackets that start higher guard against settings that begin slowly. Everything here is a function of the trials'
numbers and results, so any process comes to the same decision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Bracket", "brackets", "cost", "order", "rungs", "trials_within", "verdict"]

MOST_RUNGS = 5


def rungs(validations: int, eta: int) -> tuple[float, ...]:
    """Shares of the training at which trials are compared, rising to 1; the first is at least one validation.

    >>> rungs(9, 3)
    (0.1111111111111111, 0.3333333333333333, 1.0)
    >>> rungs(9, 1)
    (1.0,)
    """
    if eta < 2:
        return (1.0,)
    levels = 1
    while levels < MOST_RUNGS and eta**levels <= validations:
        levels += 1
    return tuple(float(eta) ** -level for level in reversed(range(levels)))


@dataclass(frozen=True)
class Bracket:
    """Trials ``first`` to ``first + size - 1``, which begin at the rung of index ``start``. ``whole`` says that the
    bracket has all the trials that it was meant to have."""

    first: int
    size: int
    start: int
    whole: bool = True

    @property
    def numbers(self) -> range:
        return range(self.first, self.first + self.size)


def brackets(levels: int, eta: int, trials: int) -> list[Bracket]:
    """The brackets of so many trials: those of Hyperband, again and again; the last one is cut.

    >>> [(one.first, one.size, one.start) for one in brackets(3, 3, 20)]
    [(0, 9, 0), (9, 5, 1), (14, 3, 2), (17, 3, 0)]
    """
    out: list[Bracket] = []
    first = 0
    while first < trials:
        start = len(out) % levels
        deep = levels - 1 - start
        size = math.ceil(levels / (deep + 1) * eta**deep)
        out.append(Bracket(first, min(size, trials - first), start, size <= trials - first))
        first += size
    return out


def going_on(entrants: int, eta: int) -> int:
    """How many of the trials at a rung go on to the next."""
    return max(1, entrants // eta) if entrants else 0


def cost(shares: Sequence[float], eta: int, trials: int) -> float:
    """The most that a study of so many trials costs, in whole trainings."""
    total = 0.0
    for bracket in brackets(len(shares), eta, trials):
        entrants, before = bracket.size, 0.0
        for share in shares[bracket.start :]:
            total += entrants * (share - before)
            entrants, before = going_on(entrants, eta), share
    return total


def trials_within(shares: Sequence[float], eta: int, trainings: float) -> int:
    """The most trials whose study costs no more than so many whole trainings.

    >>> trials_within((1.0,), 1, 7.5), trials_within((1 / 9, 1 / 3, 1.0), 3, 8.0)
    (7, 17)
    """
    count = 0
    while cost(shares, eta, count + 1) <= trainings + 1e-9:
        count += 1
    return count


def order(points: Mapping[int, Sequence[float]]) -> list[int]:
    """Trials by their values, the best first; more is better.

    Of several objectives, those that no other trial beats in all come first, then those that only these beat, and so
    on (Schmucker et al., "Multi-objective asynchronous successive halving", 2021); within a front, by the first value.
    """
    left, out = dict(points), list[int]()
    while left:
        front = [number for number, values in left.items() if not any(beats(other, values) for other in left.values())]
        out += sorted(front, key=lambda number: (*(-value for value in left[number]), number))
        left = {number: values for number, values in left.items() if number not in front}
    return out


def beats(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether one is at least as good in all, and better in some."""
    pairs = list(zip(one, other, strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def verdict(
    bracket: Bracket, scores: Sequence[Mapping[int, Sequence[float]]], gone: set[int], eta: int
) -> tuple[dict[int, int], set[int]]:
    """Of one bracket's trials: the rung that each is to reach as far as can be told, and those that are to stop.

    ``scores`` holds, for each rung, the values of the trials that have been there, by number; ``gone`` are trials that
    have failed or have been stopped, and of which nothing more will come. A rung is judged when every other trial that
    was to reach it has been there.

    >>> verdict(Bracket(0, 3, 0), [{0: [0.1], 1: [0.3], 2: [0.2]}, {}], set(), 3)
    ({0: 0, 1: 1, 2: 0}, {0, 2})
    """
    goal = dict.fromkeys(bracket.numbers, bracket.start)
    stopped: set[int] = set()
    entrants = list(bracket.numbers)
    for rung in range(bracket.start, len(scores) - 1):
        here = scores[rung]
        if any(number not in here and number not in gone for number in entrants):
            break
        ranked = order({number: here[number] for number in entrants if number in here})
        kept = ranked[: going_on(len(entrants), eta)]
        stopped |= set(entrants) - set(kept) - gone
        goal |= dict.fromkeys(kept, rung + 1)
        entrants = kept
    return goal, stopped
