"""Forecasts: losses by their formulas with values missing, metrics in the column's units against scikit-learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from torch import Tensor

from zhixing.columns.series import Series
from zhixing.heads.series import SeriesHead
from zhixing.models.encoding import Encoding
from zhixing.settings import settings_of

HORIZON, FEATURES = 4, 2


def column_of(steps: int = HORIZON, features: int = FEATURES, **keywords: Any) -> Series:
    """Two features far apart: one near 100, the other near 0.01."""
    chance = np.random.default_rng(0)
    values = chance.normal([100.0, 0.01, 5.0][:features], [20.0, 0.002, 1.0][:features], (60, steps, features))
    column = Series(**keywords)
    column.role = "output"
    cells = values[:, :, 0].tolist() if features == 1 else values.tolist()
    column.fit(pa.chunked_array([pa.array(cells)]), Path)
    return column


def head(column: Series, **keywords: Any) -> SeriesHead:
    torch.manual_seed(0)
    return SeriesHead(6, column, **keywords)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_gaps(target: Tensor, share: float = 0.3, seed: int = 7) -> Tensor:
    gone = torch.rand(target.shape, generator=torch.Generator().manual_seed(seed)) < share
    return target.masked_fill(gone, torch.nan)


def test_shapes() -> None:
    pooled = drawn(5, 6)
    encoding = Encoding(pooled, pooled[:, None])
    column = column_of()
    assert head(column)(encoding).shape == (5, HORIZON, FEATURES)
    assert head(column, loss="quantile")(encoding).shape == (5, HORIZON, FEATURES, 3)
    assert head(column, loss="quantile", quantiles=(0.9, 0.9, 0.1))(encoding).shape == (5, HORIZON, FEATURES, 2)
    assert head(column_of(1, 1))(encoding).shape == (5, 1, 1)
    assert head(column, loss="absolute", quantiles=(0.1, 0.9))(encoding).shape == (5, HORIZON, FEATURES)
    assert (SeriesHead.goal, SeriesHead.higher) == ("mae", False)


def test_settings_are_described() -> None:
    model = settings_of(SeriesHead, name="series")
    assert all(field.description for key, field in model.model_fields.items() if key != "name")


# Losses


def formula(kind: str, said: float, true: float) -> float:
    off = abs(said - true)
    if kind == "squared":
        return off**2
    if kind == "absolute":
        return off
    return off**2 / 2 if off < 0.5 else 0.5 * (off - 0.25)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(["squared", "absolute", "huber"]), st.floats(0, 1), st.integers(0, 1000))
def test_a_row_is_the_mean_over_its_known_values(kind: Any, share: float, seed: int) -> None:
    forecaster = head(column_of(), loss=kind, delta=0.5)
    prediction = drawn(3, HORIZON, FEATURES, seed=seed)
    target = with_gaps(drawn(3, HORIZON, FEATURES, seed=seed + 1), share, seed)
    rows = forecaster.loss(prediction, target)
    for row in range(3):
        costs = [
            formula(kind, float(said), float(true))
            for said, true in zip(prediction[row].flatten(), target[row].flatten(), strict=True)
            if not true.isnan()
        ]
        assert float(rows[row]) == pytest.approx(float(np.mean(costs)) if costs else 0.0, rel=1e-4, abs=1e-6)


def test_quantile_loss_is_scikit_learns() -> None:
    forecaster = head(column_of(), loss="quantile", quantiles=(0.2, 0.7))
    prediction, target = drawn(3, HORIZON, FEATURES, 2), with_gaps(drawn(3, HORIZON, FEATURES, seed=1))
    rows = forecaster.loss(prediction, target)
    for row in range(3):
        known = ~target[row].isnan()
        each = [
            sk.mean_pinball_loss(target[row][known], prediction[row, ..., place][known], alpha=level)
            for place, level in enumerate((0.2, 0.7))
        ]
        assert float(rows[row]) == pytest.approx(np.mean(each), rel=1e-5)


@pytest.mark.parametrize("loss", ["squared", "absolute", "huber", "quantile"])
def test_missing_values_have_no_gradient(loss: Any) -> None:
    forecaster = head(column_of(), loss=loss)
    shape = (3, HORIZON, FEATURES) + ((3,) if loss == "quantile" else ())
    prediction = drawn(*shape).requires_grad_()
    target = with_gaps(drawn(3, HORIZON, FEATURES, seed=1))
    target[2] = torch.nan
    rows = forecaster.loss(prediction, target)
    assert rows.isfinite().all()
    assert rows[2] == 0
    rows.sum().backward()
    assert prediction.grad is not None
    moved = prediction.grad != 0
    assert torch.equal(moved.all(-1) if loss == "quantile" else moved, ~target.isnan())
    assert not prediction.grad[2].any()


# Metrics


@pytest.mark.parametrize("features", [1, 3])
def test_metrics_are_in_the_columns_units(features: int) -> None:
    column = column_of(features=features)
    forecaster = head(column)
    prediction = drawn(50, HORIZON, features)
    target = with_gaps(drawn(50, HORIZON, features, seed=1))
    said, true = column.unscale(prediction), column.unscale(target)
    known = ~np.isnan(true)
    found = forecaster.metrics(prediction, target, column)
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(true[known], said[known]))
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(true[known], said[known]))
    assert set(found) == {"mae", "rmse", "mase"}
    steps = forecaster.examine(prediction, target, column)["per_step"]
    assert [step["step"] for step in steps] == [1, 2, 3, 4]
    for number, step in enumerate(steps):
        here = known[:, number]
        assert step["values"] == here.sum()
        off = (said[:, number] - true[:, number])[here]
        assert step["mae"] == pytest.approx(np.abs(off).mean())
        assert step["rmse"] == pytest.approx(np.sqrt((off**2).mean()))
    assert sum(step["values"] * step["mae"] for step in steps) / known.sum() == pytest.approx(found["mae"])
    json.dumps((found, steps), allow_nan=False)


def test_mase_is_there_where_the_naive_error_is_known() -> None:
    column = column_of(features=1)
    forecaster, prediction, target = head(column), drawn(9, HORIZON, 1), drawn(9, HORIZON, 1, seed=1)
    for unknown in (None, 0.0):
        column.naive_error = unknown  # type: ignore[attr-defined]
        assert "mase" not in forecaster.metrics(prediction, target, column)
    column.naive_error = 2.5  # type: ignore[attr-defined]
    found = forecaster.metrics(prediction, target, column)
    assert found["mase"] == pytest.approx(found["mae"] / 2.5)


def test_quantile_metrics_and_quantiles_that_cross() -> None:
    column = column_of(features=1)
    forecaster = head(column, loss="quantile", quantiles=(0.1, 0.5, 0.9))
    prediction = drawn(40, HORIZON, 1, 3)  # in no order
    target = with_gaps(drawn(40, HORIZON, 1, seed=1))
    levels, truth = np.sort(scaled(column, prediction), -1), column.unscale(target)
    known = ~np.isnan(truth)
    found = forecaster.metrics(prediction, target, column)
    inside = (truth >= levels[..., 0]) & (truth <= levels[..., 2])
    assert found["coverage"] == pytest.approx(inside[known].mean())
    each = [
        sk.mean_pinball_loss(truth[known], levels[..., place][known], alpha=level)
        for place, level in enumerate((0.1, 0.5, 0.9))
    ]
    assert found["pinball_loss"] == pytest.approx(np.mean(each))
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(truth[known], levels[..., 1][known]))
    flipped = forecaster.metrics(prediction.flip(-1), target, column)
    assert flipped == pytest.approx(found)


def scaled(column: Series, prediction: Tensor) -> np.ndarray[Any, Any]:
    return np.stack([column.unscale(level) for level in prediction.unbind(-1)], axis=-1)


def test_perfect_forecasts_and_splits_without_a_known_value() -> None:
    column = column_of()
    forecaster, target = head(column), drawn(6, HORIZON, FEATURES)
    assert forecaster.metrics(target, target, column) == {"mae": 0.0, "rmse": 0.0, "mase": 0.0}
    nothing = torch.full_like(target, torch.nan)
    assert forecaster.metrics(target, nothing, column) == {}
    assert all(step["mae"] is None for step in forecaster.examine(target, nothing, column)["per_step"])
    lost = target.clone()
    lost[0, 0, 0] = torch.nan
    assert np.isnan(forecaster.metrics(lost, target, column)["mae"])  # a forecast that is no number is not passed over


def test_answers_are_cells() -> None:
    column, prediction = column_of(), drawn(2, HORIZON, FEATURES)
    cells = head(column).decode(prediction, column)
    assert list(cells) == [""]
    np.testing.assert_allclose(cells[""], column.unscale(prediction))
    spread = head(column, loss="quantile", quantiles=(0.25, 0.5, 0.75))
    prediction = drawn(2, HORIZON, FEATURES, 3)
    cells = spread.decode(prediction, column)
    assert list(cells) == ["", "quantile_0.25", "quantile_0.5", "quantile_0.75"]
    assert cells[""] == cells["quantile_0.5"]
    low, middle, high = (np.array(cells[f"quantile_{level}"]) for level in (0.25, 0.5, 0.75))
    assert (low <= middle).all()
    assert (middle <= high).all()
    single = column_of(features=1)
    flat = head(single).decode(drawn(2, HORIZON, 1), single)[""]
    assert np.shape(flat) == (2, HORIZON)


# Learning


def test_waves_are_continued_and_quantiles_cover_what_they_say() -> None:
    """Sines with noise: from the past alone, the next steps are told to within the noise."""
    chance = np.random.default_rng(1)

    def waves(rows: int) -> np.ndarray[Any, Any]:
        phase = chance.uniform(0, 2 * np.pi, (rows, 1))
        clean = np.sin(phase + 0.5 * np.arange(12 + HORIZON))
        return 50 + 10 * (clean + chance.normal(0, 0.1, clean.shape))

    train, test = waves(1500), waves(500)
    column = Series()
    column.role = "output"
    column.fit(pa.chunked_array([pa.array(train[:, 12:].tolist())]), Path)

    def parts(rows: np.ndarray[Any, Any]) -> tuple[Encoding, Tensor]:
        past = torch.from_numpy((rows[:, :12] - 50) / 10).float()
        target = torch.from_numpy(column.tensorize(pa.array(rows[:, 12:].tolist()), Path).values)
        return Encoding(past, past[:, None]), target

    torch.manual_seed(0)
    forecaster = SeriesHead(12, column, loss="quantile")
    optimizer = torch.optim.Adam(forecaster.parameters(), lr=2e-2)
    encoding, target = parts(train)
    for _ in range(300):
        loss = forecaster.loss(forecaster(encoding), with_gaps(target)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    encoding, target = parts(test)
    with torch.inference_mode():
        found = forecaster.metrics(forecaster(encoding), target, column)
    assert found["mae"] < 1.2  # the noise alone makes 0.8
    assert found["coverage"] == pytest.approx(0.8, abs=0.05)
    assert F.mse_loss(forecaster.middle(forecaster(encoding)), target) < 0.05
