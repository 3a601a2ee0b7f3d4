"""Calibration: temperatures against a reference, sets and intervals that hold what they promise, what a run keeps."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import zhixing as zx
from zhixing.calibration import CALIBRATIONS, Classes, Ranges, calibration_for, dump, parse
from zhixing.calibration.conformal import Quantiles, adaptive_scores, threshold_scores
from zhixing.calibration.outputs import spread_chances
from zhixing.calibration.temperature import fit_temperature
from zhixing.cli import main
from zhixing.errors import RunError, UsageError
from zhixing.heads import HEADS
from zhixing.heads.category import calibration_error, reliability


def drawn(rows: int, classes: int, sharpness: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits of which the softmax is the true distribution of the targets that are drawn with them."""
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(rows, classes, generator=generator)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


# Temperature ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_a_temperature_that_was_put_in_is_found(temperature: float) -> None:
    logits, target = drawn(20_000, 5, 2.0)
    assert fit_temperature(logits * temperature, target) == pytest.approx(temperature, rel=0.05)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 6), st.floats(0.2, 5.0))
def test_it_is_where_lbfgs_finds_the_least_loss(seed: int, classes: int, factor: float) -> None:
    logits, target = drawn(400, classes, 1.5, seed)
    logits = (logits * factor).double()
    rows, doubt = len(target), 1 / (len(target) + 2)
    soft = torch.full_like(logits, doubt / (classes - 1)).scatter(1, target[:, None], 1 - doubt)
    inverse = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([inverse], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-10)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(logits * inverse.exp(), soft)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert rows == 400
    assert fit_temperature(logits, target) == pytest.approx(math.exp(-inverse.item()), rel=1e-3)


def test_rows_that_are_all_right_leave_some_doubt() -> None:
    logits = 50 * F.one_hot(torch.arange(3).repeat(40), 3).float()
    temperature = fit_temperature(logits, logits.argmax(1))
    sure = (logits[0] / temperature).softmax(0).max().item()
    assert 0.98 < sure < 0.9999


def test_the_calibration_error_falls_where_a_network_is_too_sure() -> None:
    logits, target = drawn(10_000, 10, 2.0)
    fitted = Classes.fit(head_of_classes(10), 3 * logits[:5000], target[:5000])
    assert fitted is not None
    found = fitted.measure(head_of_classes(10), None, 3 * logits[5000:], target[5000:])  # type: ignore[arg-type]
    assert found["ece_before"] > 0.15
    assert found["ece_after"] < 0.03
    assert found["log_loss_after"] < found["log_loss_before"]
    sure, code = (3 * logits[5000:]).double().softmax(1).max(1)
    assert found["ece_before"] == calibration_error(reliability(sure, code == target[5000:]))


def head_of_classes(count: int) -> Any:
    from zhixing.columns.category import Category

    column = Category()
    column.classes, column.counts = [str(i) for i in range(count)], [1] * count
    return HEADS["category"](4, column)


# Sets and intervals --------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.5, 0.8, 0.9, 0.99]), st.sampled_from(["threshold", "adaptive"]))
def test_sets_hold_the_truth_as_often_as_asked(seed: int, coverage: float, sets: Any) -> None:
    """Whatever the model: here its logits are too sharp and partly turned round. Of 4,000 and 8,000 rows the share is
    within five of its standard deviations."""
    logits, target = drawn(12_000, 6, 2.0, seed)
    logits = 2.5 * logits + torch.roll(logits, 1, 1)
    fitted = Classes.fit(head_of_classes(6), logits[:4000], target[:4000])
    assert fitted is not None
    inside = fitted.members(logits[4000:], coverage, sets)
    share = inside.gather(1, target[4000:, None]).double().mean().item()
    assert abs(share - coverage) < 5 * math.sqrt(coverage * (1 - coverage) * (1 / 4000 + 1 / 8000)) + 1 / 4000


def test_adaptive_sets_are_fairer_to_rows_that_are_hard() -> None:
    easy, easy_target = drawn(6000, 8, 8.0, 1)
    hard, hard_target = drawn(6000, 8, 0.7, 2)
    logits, target = torch.cat([easy, hard]), torch.cat([easy_target, hard_target])
    mix = torch.randperm(len(target), generator=torch.Generator().manual_seed(0))
    hard_row = torch.arange(len(target))[mix] >= 6000
    logits, target = logits[mix], target[mix]
    fitted = Classes.fit(head_of_classes(8), logits[:6000], target[:6000])
    assert fitted is not None
    gap = {}
    for sets in ("threshold", "adaptive"):
        inside = fitted.members(logits[6000:], 0.9, sets).gather(1, target[6000:, None])[:, 0]  # type: ignore[arg-type]
        gap[sets] = abs(inside[hard_row[6000:]].double().mean() - inside[~hard_row[6000:]].double().mean()).item()
    assert gap["adaptive"] < 0.05 < gap["threshold"]


@pytest.mark.parametrize("rows", [1, 2, 1000])
def test_chances_are_spread_evenly_and_of_themselves_uniform(rows: int) -> None:
    found = spread_chances(rows, "set")
    assert sorted((found * rows).floor().int().tolist()) == list(range(rows))
    several = torch.stack([spread_chances(rows, f"key {i}")[0] for i in range(2000)]).sort().values
    assert (several - (torch.arange(2000) + 0.5) / 2000).abs().max() < 1.63 / math.sqrt(2000)  # Kolmogorov, 1 %


def test_scores_tell_apart_what_is_one_as_a_probability() -> None:
    logits = torch.tensor([[100.0, 0.0, 0.0], [120.0, 0.0, 0.0]])
    found = threshold_scores(logits)
    assert found[0, 0] - found[1, 0] == pytest.approx(20)
    p = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64)
    assert threshold_scores(p.log())[0].tolist() == pytest.approx(((1 - p) / p).log()[0].tolist())
    assert adaptive_scores(p.log(), torch.tensor([0.0]))[0].tolist() == pytest.approx([0.8, 0.0, 0.5])


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 300), st.floats(0.01, 0.99), st.integers(5, 400))
def test_fewer_scores_that_are_kept_never_cover_less(count: int, coverage: float, most: int) -> None:
    scores = torch.rand(count, generator=torch.Generator().manual_seed(count))
    every, some = Quantiles.of(scores, 10**6), Quantiles.of(scores, most)
    assert len(some.scores) <= most
    assert some.at(coverage) >= every.at(coverage)
    rank = math.ceil((count + 1) * coverage - 1e-9)
    assert every.at(coverage) == (pytest.approx(scores.sort().values[rank - 1].item()) if rank <= count else math.inf)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.5, 0.9, 0.95]), st.booleans(), st.booleans())
def test_intervals_hold_the_truth_as_often_as_asked(seed: int, coverage: float, quantile: bool, series: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    head, shape = range_head(quantile, series)
    truth = torch.randn(6000, *shape, generator=generator) ** 3  # far from normal
    prediction = (0.7 * truth + 0.3 + 0.5 * torch.randn(6000, *shape, generator=generator)).unsqueeze(-1)
    if quantile:
        prediction = torch.cat([prediction - 0.2, prediction, prediction + 0.2], dim=-1)
    elif series:
        prediction = prediction.squeeze(-1)
    fitted = Ranges.fit(head, prediction[:2000], truth[:2000])
    assert fitted is not None
    again = Ranges.load(json.loads(json.dumps(fitted.state())))
    low, high = again.interval(head, prediction[2000:], coverage)
    share = ((truth[2000:] >= low) & (truth[2000:] <= high)).double().flatten(1).mean(0)
    spread = math.sqrt(coverage * (1 - coverage) * (1 / 2000 + 1 / 4000))
    assert (share - coverage).abs().max() < 5 * spread + 1 / 1000
    assert bool((low <= high).all())


def range_head(quantile: bool, series: bool) -> tuple[Any, tuple[int, ...]]:
    from zhixing.columns.number import Number
    from zhixing.columns.series import Series

    chosen = {"loss": "quantile"} if quantile else {}
    if series:
        column: Any = Series()
        column.role = "output"
        column.fit(pa.chunked_array([[[1.0, 2.0, 3.0], [2.0, 4.0, 1.0]]]), Path)
        return HEADS["series"](4, column, **chosen), (column.horizon, column.features)
    column = Number()
    column.role = "output"
    column.fit(pa.chunked_array([[[1.0, 2.0], [2.0, 4.0]]]), Path)
    return HEADS["number"](4, column, **chosen), (2,)


def test_too_few_rows_give_whatever_there_is() -> None:
    logits, target = drawn(5, 3, 1.0)
    fitted = Classes.fit(head_of_classes(3), logits, target)
    assert fitted is not None
    assert bool(fitted.members(logits, 0.9, "threshold").all())
    assert Classes.fit(head_of_classes(3), logits[:0], target[:0]) is None
    assert Classes.fit(head_of_classes(3), logits * math.nan, target) is None


# Files ---------------------------------------------------------------------------------------------------------------


def test_what_was_fitted_comes_back() -> None:
    logits, target = drawn(300, 4, 2.0)
    fitted = Classes.fit(head_of_classes(4), logits, target)
    assert fitted is not None
    again = parse(json.loads(json.dumps(dump({"label": fitted}))))["label"]
    assert isinstance(again, Classes)
    assert again.temperature == fitted.temperature
    assert torch.equal(again.members(logits, 0.9, "adaptive"), fitted.members(logits, 0.9, "adaptive"))


@pytest.mark.parametrize(
    "content",
    [
        None, [], {"format": 2, "outputs": {}}, {"format": 1}, {"format": 1, "outputs": {"x": {"kind": "os.system"}}},
        {"format": 1, "outputs": {"x": {"kind": "classes", "rows": 3, "temperature": -1, "scores": {}}}},
        {"format": 1, "outputs": {"x": {"kind": "ranges", "rows": 3, "shape": [2], "quantities": []}}},
    ],
)  # fmt: skip
def test_another_content_is_an_error(content: Any) -> None:
    with pytest.raises(RunError, match=r"calibration\.json"):
        parse(content)


def test_each_calibration_is_of_a_head() -> None:
    assert set(CALIBRATIONS) <= set(HEADS.values())
    assert calibration_for(head_of_classes(2)) is Classes


# Runs ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> zx.Run:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(600, 3))
    wide = np.where(draw.random(600) < 0.1, draw.integers(0, 3, 600), x.argmax(1))
    data = {
        **{f"x{i}": x[:, i] for i in range(3)},
        "label": np.array(list("abc"))[wide],
        "size": x.sum(1) + draw.normal(size=600),
    }
    return zx.train(
        data, target=["label", "size"], epochs=5, lr=0.01, out=tmp_path_factory.mktemp("runs") / "r",
        settings=["data.split.train=0.5", "data.split.validation=0.25", "data.split.test=0.25", "training.threads=1"],
    )  # fmt: skip


CELLS = {f"x{i}": [0.5, -1.0, 2.0, 0.1] for i in range(3)}


def test_a_run_tells_calibrated_probabilities_sets_and_intervals(run: zx.Run) -> None:
    plain, more = run.predict(CELLS), run.predict(CELLS, coverage=0.9, probabilities=True)
    assert plain.column_names == ["label", "label_probability", "size"]
    assert set(more.column_names) - set(plain.column_names) == {
        "label_probability_a", "label_probability_b", "label_probability_c", "label_set", "size_low", "size_high",
    }  # fmt: skip
    temperature = run.calibrations["label"].temperature  # type: ignore[attr-defined]
    assert temperature != 1
    rows = more.to_pylist()
    for row in rows:
        each = np.array([row[f"label_probability_{name}"] for name in "abc"])
        assert each.sum() == pytest.approx(1, abs=1e-5)
        assert row["label"] == "abc"[each.argmax()]
        assert list(row["label_set"]) == sorted(row["label_set"], key=lambda name: -row[f"label_probability_{name}"])
        assert row["size_low"] < row["size"] < row["size_high"]
    wider = run.predict(CELLS, coverage=0.99).to_pylist()
    for near, far in zip(rows, wider, strict=True):
        assert set(near["label_set"]) <= set(far["label_set"])
        assert far["size_low"] < near["size_low"]
    uncalibrated = run.calibrations
    run.calibrations = {}
    try:
        raw = run.predict(CELLS, probabilities=True).to_pylist()
        assert [row["label"] for row in raw] == [row["label"] for row in rows]
        odds = [math.log(one["label_probability_a"] / one["label_probability_b"]) for one in (raw[0], rows[0])]
        assert odds[0] / odds[1] == pytest.approx(temperature, rel=1e-2, abs=1e-3)
        with pytest.raises(UsageError, match="validation"):
            run.predict(CELLS, coverage=0.9)
    finally:
        run.calibrations = uncalibrated


@pytest.mark.parametrize("coverage", [0.0, 1.0, -3.0, math.nan])
def test_a_coverage_that_is_no_share_is_an_error(run: zx.Run, coverage: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        run.predict(CELLS, coverage=coverage)


def test_the_evaluation_tells_both_sides(run: zx.Run) -> None:
    outputs = json.loads((run.path / "evaluation.json").read_text("utf-8"))["outputs"]
    told = outputs["label"]["calibration"]
    assert told["ece_after"] == pytest.approx(outputs["label"]["metrics"]["ece"], abs=1e-6)
    assert told["calibration_rows"] == 150
    assert 0.75 < told["sets"]["threshold"]["coverage"] <= 1
    assert 0.75 < outputs["size"]["calibration"]["intervals"]["coverage"] <= 1
    page = (run.path / "report.html").read_text("utf-8")
    assert "Calibration" in page
    assert "temperature" in page


def test_a_changed_calibration_is_found_and_one_that_is_not_named_is_left_alone(run: zx.Run, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    file, manifest = copy / "calibration.json", copy / "manifest.json"
    content = json.loads(manifest.read_text("utf-8"))
    assert "calibration.json" in content["files"]
    file.write_text(file.read_text("utf-8").replace("0.", "0.1", 1), "utf-8")
    with pytest.raises(RunError, match=r"calibration\.json is not what was written"):
        zx.load(copy)
    del content["files"]["calibration.json"]  # as an older version wrote it
    manifest.write_text(json.dumps(content), "utf-8")
    assert zx.load(copy).calibrations == {}


def test_the_command(run: zx.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.csv").write_text("x0,x1,x2\n0.5,0.1,2\n", "utf-8")
    main(["predict", str(run.path), str(tmp_path / "rows.csv"), "--coverage", "0.9", "--format", "jsonl"])
    row = json.loads(capsys.readouterr().out)
    assert isinstance(row["label_set"], list)
    with pytest.raises(SystemExit) as leave:
        main(["predict", str(run.path), str(tmp_path / "rows.csv"), "--coverage", "90"])
    assert leave.value.code == 2


def test_a_run_without_validation_rows_is_as_it_was(tmp_path: Path) -> None:
    data = {"x": [0.0, 1.0] * 30, "label": ["no", "yes"] * 30}
    run = zx.train(
        data, epochs=1, out=tmp_path / "r",
        settings=["data.split.train=0.8", "data.split.validation=0", "data.split.test=0.2", "data.split.by=random"],
    )  # fmt: skip
    assert run.calibrations == {}
    assert not (run.path / "calibration.json").exists()
