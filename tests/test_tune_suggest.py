"""What is tried next: even at first, then where results were good, and always a function of what is known."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhixing.recipe import Recipe
from zhixing.tune.journal import Record
from zhixing.tune.objectives import Objective, oriented
from zhixing.tune.ranges import given_space
from zhixing.tune.space import Dimension
from zhixing.tune.suggest import ENOUGH, Space, even, model_rung, observations, suggest

GOAL = Objective("accuracy", True, "y")
LR = "training.optimizer.lr"
RAW = {"data": {"source": "x.csv"}, "inputs": {"x": {"type": "number"}}, "outputs": {"y": {"type": "category"}}}
BASE = Recipe(RAW).plain()
SPACE = Space(BASE, given_space({LR: "log:1e-5:1", "training.clip": "0.1:10"}, BASE), defaults=False)


def search(sampler: str, seed: int, trials: int = 40) -> list[Record]:
    """A study of a function of the rate alone, best at 0.01."""
    records: list[Record] = []
    for number in range(trials):
        draw = suggest(SPACE, number, records, queue=[{}], objectives=[GOAL], sampler=sampler, seed=seed)
        rate = draw.settings.get(LR, 1e-4)
        seen = {0: {"values": [-abs(math.log10(rate) + 2)], "loss": 0.0}}
        records.append(Record(number, number, "complete", draw.settings, 0, seen, draw.params, draw.distributions))
    return records


def test_what_is_drawn_follows_from_what_is_known() -> None:
    assert search("tpe", 0, 20) == search("tpe", 0, 20)
    assert search("tpe", 0, 20) != search("tpe", 1, 20)


def test_the_model_goes_where_results_are_good() -> None:
    """Of the later trials of random search a fifth are near the best, which is a fifth of the range; of ours, more."""

    def near(sampler: str) -> float:
        later = [one for seed in range(4) for one in search(sampler, seed)[20:]]
        return sum(one.seen[0]["values"][0] > -0.5 for one in later) / len(later)

    assert near("random") < 0.4
    assert near("tpe") > max(0.4, near("random"))


@given(st.integers(0, 2**40), st.text(max_size=8), st.integers(0, 5))
def test_the_first_trials_cover_a_range_evenly(seed: int, key: str, turn: int) -> None:
    places = [even(turn * ENOUGH + number, seed, key) for number in range(ENOUGH)]
    assert sorted(int(place * ENOUGH) for place in places) == list(range(ENOUGH))


@given(st.floats(0, 1, exclude_max=True), st.sampled_from([
    Dimension("a", "float", 0.0, 0.5), Dimension("a", "float", 1e-5, 1e-1, log=True),
    Dimension("a", "int", 32, 128, step=32), Dimension("a", "int", 1, 64, log=True),
    Dimension("a", "choices", choices=("x", [1, 2], None)),
]))  # fmt: skip
def test_a_share_of_a_range_lies_in_it(share: float, one: Dimension) -> None:
    drawn = one.at(share)
    assert one.drawn(one.value(drawn)) == drawn
    assert one.distribution()._contains(one.distribution().to_internal_repr(drawn))


def record(number: int, seen: dict[int, float], state: str = "running", rung: int | None = None) -> Record:
    told = {at: {"values": [value], "loss": 0.0} for at, value in seen.items()}
    return Record(number, number, state, {}, max(seen, default=0) if rung is None else rung, told)


def test_the_model_is_of_the_highest_rung_with_enough_results() -> None:
    low = [record(number, {0: 0.1 * number}) for number in range(ENOUGH)]
    assert model_rung([]) == 0
    assert model_rung([record(0, {1: 0.5})]) == 1
    assert model_rung([*low, record(8, {0: 0.3, 1: 0.4})]) == 0
    high = [record(number, {1: 0.1 * number}) for number in range(ENOUGH)]
    assert model_rung([*low, *high]) == 1


def test_a_failed_trial_counts_as_the_worst_and_one_under_way_as_taken() -> None:
    records = [record(0, {0: 0.5}), record(1, {0: 0.2}), record(2, {}, "failed"), record(3, {})]
    found = observations(records, [GOAL])
    assert [one.state.name for one in found] == ["COMPLETE"] * 3 + ["RUNNING"]
    assert [one.value for one in found[:3]] == [0.5, 0.2, 0.2]


def test_the_loss_tells_apart_what_is_equal() -> None:
    assert oriented([GOAL], [0.9], 0.1) > oriented([GOAL], [0.9], 0.2)
    assert oriented([GOAL], [0.9], 5.0) < oriented([GOAL], [0.902], 50.0)
    assert oriented([Objective("loss", False), Objective("parameters", False)], [0.3, 10.0], 0.3)[1] == -10.0


@pytest.mark.parametrize("settings", [{LR: 0.02}, {"training.batch_size": 7}, {}])
def test_settings_that_are_given_are_tried_as_they_are(settings: dict[str, Any]) -> None:
    draw = suggest(SPACE, 1, [], queue=[{}, settings], objectives=[GOAL], sampler="tpe", seed=0)
    assert draw.settings == settings
    assert draw.params.get(LR) == settings.get(LR, BASE["training"]["optimizer"]["lr"])
