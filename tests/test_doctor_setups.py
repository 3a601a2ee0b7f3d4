"""The doctor's suite: faults planted one at a time are named first, and what is healthy gives no alarm."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.doctor import judge
from benchmarks.doctor_setups import BROKEN, HEALTHY

FEW = (
    "table: a code that is made from the answer", "table: -999 for a missing age",
)  # fmt: skip


@pytest.mark.parametrize("name", FEW)
def test_some_broken_setups(name: str, tmp_path: Path) -> None:
    setup = next(one for one in BROKEN if one.name == name)
    right, found = judge(setup, tmp_path)
    assert right, [(one.check, one.found) for one in found.alarms]


def test_there_are_enough_of_all_kinds() -> None:
    assert len(BROKEN) >= 40
    assert len(HEALTHY) >= 20
    assert {setup.name.partition(":")[0] for setup in BROKEN} >= {"image", "table", "text", "series", "audio"}
    assert len({setup.name for setup in (*BROKEN, *HEALTHY)}) == len(BROKEN) + len(HEALTHY)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_true_cause_is_named_first(tmp_path: Path) -> None:
    wrong = []
    for place, setup in enumerate(BROKEN):
        right, found = judge(setup, tmp_path / str(place))
        if not right:
            wrong.append((setup.name, [one.check for one in found.alarms]))
    assert len(wrong) <= len(BROKEN) // 10, wrong


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_healthy_setups_give_no_alarm(tmp_path: Path) -> None:
    told = {}
    for place, setup in enumerate(HEALTHY):
        right, found = judge(setup, tmp_path / str(place))
        if not right:
            told[setup.name] = [one.found for one in found.alarms]
    assert told == {}
