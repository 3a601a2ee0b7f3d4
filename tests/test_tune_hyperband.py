"""Who is trained how far: properties of Hyperband's plan, against a simulation of it."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhixing.tune.hyperband import Bracket, beats, brackets, cost, order, rungs, trials_within, verdict

ETAS = st.integers(1, 5)
TRIALS = st.integers(0, 120)


@given(st.integers(1, 500), ETAS)
def test_rungs_rise_by_equal_factors_to_the_whole(validations: int, eta: int) -> None:
    shares = rungs(validations, eta)
    assert shares[-1] == 1.0
    assert shares[0] * validations >= 1 - 1e-9
    assert all(b == pytest.approx(a * eta) for a, b in pairwise(shares))


@given(st.integers(1, 5), ETAS, TRIALS)
def test_every_trial_is_in_one_bracket(levels: int, eta: int, trials: int) -> None:
    found = brackets(levels, eta, trials)
    assert [number for one in found for number in one.numbers] == list(range(trials))
    assert all(one.whole for one in found[:-1])
    assert {one.start for one in found} <= set(range(levels))


@pytest.mark.parametrize(("levels", "sizes"), [(3, [9, 5, 3]), (5, [81, 34, 15, 8, 5])])
def test_brackets_are_those_of_the_paper(levels: int, sizes: list[int]) -> None:
    """Table 1 of Li et al. for R = 81 and eta = 3; of the smaller ones, the same formula."""
    assert [one.size for one in brackets(levels, 3, sum(sizes))] == sizes


def simulate(shares: tuple[float, ...], eta: int, trials: int, chance: random.Random) -> tuple[float, list[int]]:
    """Train as the verdicts say, one trial and rung at a time in any order; the cost, and the trials trained whole."""
    scores: list[dict[int, tuple[float]]] = [{} for _ in shares]
    gone: set[int] = set()
    paid = 0.0
    for bracket in brackets(len(shares), eta, trials):
        while True:
            goal, stopped = verdict(bracket, scores, gone, eta)
            gone |= stopped
            ready = [n for n in bracket.numbers if n not in gone and n not in scores[goal[n]]]
            if not ready:
                break
            number = chance.choice(ready)
            rung = goal[number]
            paid += shares[rung] - (shares[rung - 1] if rung > bracket.start else 0.0)
            scores[rung][number] = (chance.random(),)
    return paid, sorted(scores[-1])


@given(st.integers(1, 40), st.integers(2, 4), st.integers(1, 60), st.integers(0, 2**32))
def test_a_study_costs_what_was_said(validations: int, eta: int, trials: int, seed: int) -> None:
    shares = rungs(validations, eta)
    paid, whole = simulate(shares, eta, trials, random.Random(seed))
    assert paid == pytest.approx(cost(shares, eta, trials))
    assert whole  # some trial is always trained to the end


@given(st.integers(1, 40), ETAS, st.floats(0, 40))
def test_a_budget_buys_as_many_trials_as_it_can(validations: int, eta: int, trainings: float) -> None:
    shares = rungs(validations, eta)
    count = trials_within(shares, eta, trainings)
    assert cost(shares, eta, count) <= trainings + 1e-6
    assert cost(shares, eta, count + 1) > trainings - 1e-6


@given(st.integers(2, 4), st.lists(st.floats(-5, 5), min_size=1, max_size=30), st.data())
def test_those_that_go_on_are_the_best(eta: int, values: list[float], data: st.DataObject) -> None:
    failed = data.draw(st.sets(st.sampled_from(range(len(values)))))
    scores: list[dict[int, tuple[float]]] = [{n: (v,) for n, v in enumerate(values) if n not in failed}, {}]
    goal, stopped = verdict(Bracket(0, len(values), 0), scores, failed, eta)
    on = {number for number, rung in goal.items() if rung == 1}
    assert len(on) == min(max(1, len(values) // eta), len(values) - len(failed))
    assert on | stopped | failed == set(range(len(values)))
    assert not on & stopped
    assert all(values[a] >= values[b] for a in on for b in stopped)


def test_nothing_is_judged_before_all_have_been_there() -> None:
    scores: list[dict[int, tuple[float]]] = [{0: (1.0,), 1: (2.0,)}, {}]
    assert verdict(Bracket(0, 3, 0), scores, set(), 3) == ({0: 0, 1: 0, 2: 0}, set())
    assert verdict(Bracket(0, 3, 0), scores, {2}, 3) == ({0: 0, 1: 1, 2: 0}, {0})


def test_a_bracket_that_grows_does_not_wait_for_trials_that_were_stopped() -> None:
    scores: list[dict[int, tuple[float]]] = [{n: (float(n),) for n in range(6)}, {5: (1.0,)}]
    goal, stopped = verdict(Bracket(0, 6, 0), scores, {4}, 3)
    assert goal[5] == goal[4] == 1
    assert stopped == {0, 1, 2, 3}


@given(st.dictionaries(st.integers(0, 50), st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=25))
def test_several_objectives_go_by_fronts(points: dict[int, tuple[int, int]]) -> None:
    ranked = order(points)
    assert sorted(ranked) == sorted(points)
    for place, number in enumerate(ranked):  # nobody stands before one that beats it
        assert not any(beats(points[later], points[number]) for later in ranked[place + 1 :])


def test_a_single_objective_is_a_sort() -> None:
    assert order({3: (0.5,), 1: (0.9,), 2: (0.5,), 0: (0.1,)}) == [1, 2, 3, 0]
