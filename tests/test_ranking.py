"""Areas under curves against torchmetrics."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from zhixing.heads.ranking import auroc, average_precision


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=60))
def test_areas_are_those_of_torchmetrics_with_ties_too(rows: list[tuple[int, bool]]) -> None:
    from torchmetrics.functional.classification import binary_auroc, binary_average_precision

    score = torch.tensor([score / 6 for score, _ in rows])
    truth = torch.tensor([int(real) for _, real in rows])
    assume(0 < int(truth.sum()) < len(truth))
    assert float(auroc(score, truth)) == pytest.approx(float(binary_auroc(score, truth)), abs=1e-6)
    assert float(average_precision(score, truth)) == pytest.approx(
        float(binary_average_precision(score, truth)), abs=1e-6
    )


@given(st.permutations(range(12)))
def test_the_order_of_rows_does_not_matter(order: list[int]) -> None:
    score = torch.tensor([0.1, 0.1, 0.1, 0.3, 0.3, 0.5, 0.5, 0.5, 0.7, 0.9, 0.9, 0.9])
    truth = torch.tensor([0, 1, 0, 0, 1, 1, 0, 0, 1, 0, 1, 1])
    for area in (auroc, average_precision):
        assert area(score[list(order)], truth[list(order)]) == area(score, truth)
