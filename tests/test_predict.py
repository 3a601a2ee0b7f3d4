"""Predicting in runs of rows: the same answers, places and order as all at once, and no more held than is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

import zhixing as zx
from zhixing.heads import CategoryHead
from zhixing.verbs import answers as written
from zhixing.verbs import predict as verb


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> zx.Run:
    rng = np.random.default_rng(0)
    data = {
        "x": rng.normal(size=120).tolist(),
        "shop": rng.choice(["a", "b", "c"], 120).tolist(),
        "label": rng.choice(["p", "q", "r"], 120).tolist(),
        "marks": [["m"] if i % 3 else ["m", "n"] for i in range(120)],
    }
    return zx.train(data, target=["label", "marks"], epochs=1, out=tmp_path_factory.mktemp("runs") / "r")


def answers(
    run: zx.Run, cells: dict[str, Any], *, probabilities: bool = False, **options: Any
) -> tuple[pa.Table, list[Any]]:
    table = zx.open_source({name: pa.array(values) for name, values in cells.items()}, name="asked")
    return verb.predict_table(
        run.settings,
        run.fitted,
        run.model,
        table,
        device=torch.device("cpu"),
        wanted=verb.Wanted(probabilities),
        **options,
    )


@pytest.fixture
def small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "RUN_BYTES", 1)
    monkeypatch.setattr(verb, "LEAST_RUN", 7)


CELLS = {"x": [str(i / 9) for i in range(45)], "shop": ["abc?"[i % 4] for i in range(45)]}


def test_runs_of_rows_give_what_all_at_once_gives(run: zx.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = {**CELLS, "x": ["bad" if i in (0, 3, 20, 44) or 28 <= i < 35 else x for i, x in enumerate(CELLS["x"])]}
    whole, problems = answers(run, cells)
    done: list[int] = []
    monkeypatch.setattr(verb, "RUN_BYTES", 1)
    monkeypatch.setattr(verb, "LEAST_RUN", 7)
    parts, found = answers(run, cells, progress=done.append)
    assert parts.combine_chunks().equals(whole.combine_chunks())
    assert [(p.row, p.place, p.reason) for p in found if p.fatal] == [
        (p.row, p.place, p.reason) for p in problems if p.fatal
    ]
    assert [p.row for p in found if p.fatal] == [0, 3, 20, *range(28, 35), 44]
    assert done == [7, 14, 21, 28, 35, 42, 45]
    empty = [i for i, cell in enumerate(whole["label"].to_pylist()) if cell is None]
    assert empty == [0, 3, 20, *range(28, 35), 44]


@pytest.mark.usefixtures("small_runs")
@pytest.mark.parametrize("good", [[], [40]])
def test_where_nearly_nothing_can_be_read(run: zx.Run, good: list[int]) -> None:
    cells = {**CELLS, "x": [x if i in good else "bad" for i, x in enumerate(CELLS["x"])]}
    found, problems = answers(run, cells)
    assert found.num_rows == 45
    assert sum(p.fatal for p in problems) == 45 - len(good)
    assert [i for i, cell in enumerate(found["label"].to_pylist()) if cell is not None] == good


@pytest.mark.usefixtures("small_runs")
def test_answers_do_not_depend_on_the_rows_beside_them(run: zx.Run) -> None:
    whole, _ = answers(run, CELLS, probabilities=True)
    order = np.random.default_rng(1).permutation(45)
    shuffled, _ = answers(run, {name: [cells[i] for i in order] for name, cells in CELLS.items()}, probabilities=True)
    assert shuffled["label"].to_pylist() == [whole["label"][int(i)].as_py() for i in order]
    for name in whole.column_names:
        if "probability" in name:
            expected = np.array(whole[name].to_pylist())[order]
            np.testing.assert_allclose(shuffled[name].to_pylist(), expected, atol=2e-6)


def test_probabilities_are_made_only_where_they_are_asked_for(run: zx.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    decode = CategoryHead.decode

    def listen(self: Any, prediction: Any, column: Any, *, probabilities: bool = False) -> Any:
        asked.append(probabilities)
        return decode(self, prediction, column, probabilities=probabilities)

    monkeypatch.setattr(CategoryHead, "decode", listen)
    assert answers(run, CELLS)[0].column_names == ["label", "label_probability", "marks"]
    names = answers(run, CELLS, probabilities=True)[0].column_names
    assert names == [
        "label", "label_probability", "label_probability_p", "label_probability_q", "label_probability_r",
        "marks", "marks_probability_m", "marks_probability_n",
    ]  # fmt: skip
    assert asked == [False, True]


def test_an_empty_table_has_empty_answers(run: zx.Run) -> None:
    found, problems = answers(run, {"x": [], "shop": []})
    assert found.num_rows == 0
    assert {"label", "marks"} <= set(found.column_names)
    assert problems == []


def test_what_was_asked_stands_beside_the_answers(run: zx.Run, tmp_path: Path) -> None:
    table = zx.open_source({**CELLS, "label": ["given"] * 45, "picture": [np.zeros((2, 2), np.uint8)] * 45})
    found, _ = verb.predict_table(run.settings, run.fitted, run.model, table, device=torch.device("cpu"))
    whole = written.beside(table, found)
    assert whole.column_names[:4] == ["x", "shop", "label_given", "label"]
    assert "picture" not in whole.column_names
    for suffix in written.WRITERS:
        path = tmp_path / f"answers{suffix}"
        written.write(whole, path)
        again = zx.open_source(path)
        assert again.rows == 45
        assert again["label"].to_pylist() == found["label"].to_pylist()
