"""The doctor: what its checks compute, the order of findings, and the mends that it writes."""

from __future__ import annotations

import doctest
import graphlib
import importlib
import json
import pkgutil
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import zhixing.doctor as doctor
from zhixing.commands.doctor import doctor as command
from zhixing.doctor import CHECKS, Finding, Mend, examine, fix
from zhixing.doctor.case import Case, case_of_data
from zhixing.doctor.checks_data.label_noise import confident_joint, suspects
from zhixing.doctor.checks_data.leak import told
from zhixing.doctor.checks_data.near import likeness, shingles_of, signatures
from zhixing.doctor.checks_data.texts import language_of
from zhixing.doctor.checks_learning.steps import culprit_of
from zhixing.doctor.examine import diagnose, explained
from zhixing.doctor.finding import escaped, in_order
from zhixing.doctor.probe import auc, out_of_fold
from zhixing.errors import UsageError
from zhixing.models.encoding import Encoding
from zhixing.recipe import load
from zhixing.report import write_report


def table(rows: int = 240) -> dict[str, Any]:
    """Two numbers and a class, of which a line tells two kinds apart, with some overlap."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 2))
    kind = x[:, 0] - x[:, 1] + 0.5 * rng.normal(size=rows) > 0
    return {
        "a": x[:, 0],
        "b": x[:, 1],
        "town": rng.choice(["x", "y", "z"], rows).tolist(),
        "label": np.where(kind, "yes", "no").tolist(),
    }


def named(source: dict[str, Any], *only: str, **recipe: Any) -> list[Finding]:
    return examine(source, recipe={"outputs": {"label": None}, **recipe}, only=only).findings


def case(source: dict[str, Any], encoder: Any = None, **recipe: Any) -> Case:
    return case_of_data(source, {"outputs": {"label": None}, **recipe}, encoder=encoder)


class Two(nn.Module):
    """An encoder of pictures 8 x 8 with a place for a fault."""

    width = token_width = 8

    def __init__(self, middle: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.middle = nn.Linear(64, 8), nn.Linear(8, 8), middle

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Encoding:
        pooled = torch.relu(self.second(self.middle(self.first(values.flatten(1)))))
        return Encoding(pooled, pooled[:, None])


# What checks compute --------------------------------------------------------------------------------------------------


def modules() -> list[str]:
    return [one.name for one in pkgutil.walk_packages(doctor.__path__, "zhixing.doctor.")]


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings_hold(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@given(st.integers(0, 10_000), st.integers(2, 4))
@settings(max_examples=25, deadline=None)
def test_label_noise_is_that_of_cleanlab(seed: int, classes: int) -> None:
    count = pytest.importorskip("cleanlab.count")
    rng = np.random.default_rng(seed)
    codes = np.concatenate([np.arange(classes), rng.integers(classes, size=120)])
    logits = 2.5 * np.eye(classes)[codes] + rng.normal(size=(len(codes), classes))
    logits[rng.random(len(codes)) < 0.15] *= -1
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    theirs = count.compute_confident_joint(codes, probability, calibrate=False)
    ours = confident_joint(probability, codes)
    off = ~np.eye(classes, dtype=bool)
    assert (ours[off] == theirs[off]).all()
    assert suspects(probability, codes).sum() == theirs[off].sum()


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=4, max_size=60))
def test_auc_is_that_of_scikit_learn(rows: list[tuple[int, bool]]) -> None:
    from sklearn.metrics import roc_auc_score

    score, positive = np.array([float(s) for s, _ in rows]), np.array([p for _, p in rows])
    if positive.all() or not positive.any():
        assert auc(score, positive) == 0.5
    else:
        assert auc(score, positive) == pytest.approx(roc_auc_score(positive, score))


def test_the_probe_has_not_seen_the_rows_that_it_judges() -> None:
    """Random labels: in sample a probe of so many features would be right; out of fold it is right by chance."""
    rng = np.random.default_rng(0)
    features, codes = rng.normal(size=(400, 200)).astype(np.float32), rng.integers(2, size=400)
    right = (out_of_fold(features, codes, 2).argmax(1) == codes).mean()
    assert 0.4 < right < 0.6
    clear = features + 3 * codes[:, None].astype(np.float32)
    assert (out_of_fold(clear, codes, 2).argmax(1) == codes).mean() > 0.99


def test_a_rule_is_not_tried_on_what_it_was_made_from() -> None:
    """A name of each row tells all in sample, and nothing of other rows."""
    target = np.random.default_rng(0).integers(2, size=200)
    assert told(np.arange(200), target) <= 0.0
    assert told(target, target) == 1.0


def test_signatures_agree_as_often_as_sets_are_alike() -> None:
    """MinHash: over many pairs, the share of equal hashes scatters about the likeness as 64 throws of a coin would."""
    deviations = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        common = int(rng.integers(10, 190))
        one = np.unique(rng.integers(0, 2**30, 200))
        other = np.concatenate([one[:common], np.unique(rng.integers(2**30, 2**31 - 2, 200 - common))])
        alike = likeness(one, other)
        first, second = signatures([one, other])
        deviations.append(((first == second).mean() - alike) / np.sqrt(alike * (1 - alike) / 64))
    assert abs(np.mean(deviations)) < 4 / np.sqrt(400)
    assert 0.85 < np.std(deviations) < 1.15


def test_one_changed_word_leaves_most_pieces() -> None:
    tokens = np.arange(100)
    changed = tokens.copy()
    changed[50] = 7777
    assert likeness(shingles_of(tokens, 3), shingles_of(changed, 3)) == pytest.approx(95 / 101)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("I have been to the house and it was not for me", "English"),
        ("Ich war in dem Haus und es ist nicht von mir, sondern von den anderen", "German"),
        ("我昨天去了图书馆借了一本很有意思的书", "Chinese or Japanese"),
        ("12 34 56", ""),
    ],
)
def test_languages(text: str, language: str) -> None:
    assert language_of(text) == language


# Findings and their order ---------------------------------------------------------------------------------------------


def test_what_explains_what_has_no_cycle() -> None:
    graph = {check.name: check.explains for check in CHECKS}
    assert len(graph) == len(CHECKS)
    assert {name for names in graph.values() for name in names} <= set(graph)
    graphlib.TopologicalSorter(graph).prepare()


@given(
    st.lists(
        st.tuples(st.sampled_from(range(len(CHECKS))), st.sampled_from(["note", "warning", "fault"])), max_size=12
    ),
    st.randoms(),
)
def test_the_order_does_not_hang_on_that_of_the_checks(rows: list[tuple[int, Any]], shuffle: random.Random) -> None:
    found = [(Finding(CHECKS[place].name, severity, "…"), place) for place, severity in dict(rows).items()]
    first = [one.check for one in in_order(explained(found))]
    shuffle.shuffle(found)
    assert [one.check for one in in_order(explained(found))] == first
    alarms = [one for one, _ in explained(found) if one.severity != "note"]
    assert not alarms or any(not one.because for one in alarms), "something is always left unexplained"


def test_a_broken_row_of_the_data_comes_before_what_follows_from_it() -> None:
    source = table()
    source["a"] = np.where(np.random.default_rng(1).random(240) < 0.05, 1e6, source["a"])
    found = named(source)
    assert found[0].check == "ranges"
    assert found[0].evidence["rows"] == int((np.abs(source["a"]) > 1e5).sum())
    listed = {row.row for row in found[0].rows}
    assert listed <= set(np.flatnonzero(source["a"] > 1e5).tolist())


def test_a_healthy_table_gives_no_alarm_and_is_not_changed() -> None:
    source = table()
    before = {name: list(values) for name, values in source.items()}
    assert [one for one in named(source) if one.severity != "note"] == []
    assert before == {name: list(values) for name, values in source.items()}


def test_the_same_case_gives_the_same_findings() -> None:
    def once() -> str:
        checks = ["drift", "label_noise", "rate", "flow", "dead_units"]
        plain = examine(table(), recipe={"outputs": {"label": None}}, only=checks).plain()
        return json.dumps({**plain, "seconds": None})

    assert once() == once()


def test_copies_of_rows_are_counted_exactly() -> None:
    source = table()
    parts = ["train"] * 160 + ["validation"] * 40 + ["test"] * 40
    for name in ("a", "b", "town"):
        values = list(source[name])
        values[230:240] = values[0:10]  # ten test rows are training rows
        source[name] = values
    split = {
        "data": {"split": {"by": "column", "column": "split"}, "unused": []},
        "inputs": {"a": None, "b": None, "town": None},
    }
    found = named({**source, "split": parts}, "exact_duplicates", **split)
    assert found[0].evidence["rows"] == 10
    assert [row.row for row in found[0].rows] == list(range(230, 240))


def test_repeats_of_coarse_tables_are_no_leak() -> None:
    rng = np.random.default_rng(0)
    source = {"a": rng.choice(["u", "v"], 300).tolist(), "b": rng.choice(["m", "n", "o"], 300).tolist()}
    source["label"] = [one if rng.random() < 0.9 else "v" for one in source["a"]]
    assert all(one.severity == "note" for one in named(source, "exact_duplicates"))


# Learning -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(digits: dict[str, Any]) -> dict[str, Any]:
    return {"picture": digits["picture"], "label": digits["label"]}


def test_the_module_that_gives_a_nan_is_named(pictures: dict[str, Any]) -> None:
    broken = case(pictures, Two(nn.Sequential(nn.Identity(), Logarithm())), inputs={"picture": {"type": "image"}})
    assert "encoders.0.middle.1" in culprit_of(broken, broken.fresh())
    found = diagnose(broken).findings[0]
    assert found.check == "nonfinite"
    assert "encoders.0.middle.1" in found.found


class Logarithm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.log()


@pytest.mark.parametrize(
    ("middle", "check"),
    [
        (lambda x: x.relu().detach(), "no_gradient"),
        (lambda x: 0 * x, "ignored"),
        (lambda x: nn.functional.dropout(x, 0.5, training=True), "evaluation_mode"),
        (lambda x: x - x.mean(0, keepdim=True), "evaluation_mode"),
    ],
    ids=["detached", "blind", "always random", "depends on the batch"],
)
def test_faults_of_an_encoder(pictures: dict[str, Any], middle: Callable[[Tensor], Tensor], check: str) -> None:
    found = diagnose(case(pictures, Two(middle), inputs={"picture": {"type": "image"}}))
    assert found.findings[0].check == check


def test_the_user_s_module_is_left_as_it_was(pictures: dict[str, Any]) -> None:
    module = Two(torch.relu)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    state = torch.random.get_rng_state()
    diagnose(case(pictures, module, inputs={"picture": {"type": "image"}}), only=["rate", "one_batch", "repeatable"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(not one._forward_hooks and not one._backward_hooks for one in module.modules())
    assert all(p._post_accumulate_grad_hooks is None or not p._post_accumulate_grad_hooks for p in module.parameters())


def test_gradients_and_updates_are_those_of_the_steps(pictures: dict[str, Any]) -> None:
    """Of plain gradient descent without momentum, an update is the rate times the gradient."""
    training = {"optimizer": {"name": "sgd", "lr": 0.05}, "batch_size": 32, "schedule": "one_cycle"}
    seen = case(pictures, Two(torch.relu), inputs={"picture": {"type": "image"}}, training=training).trial
    gradients, updates = seen.gradients["encoders.0.first.weight"], seen.updates["encoders.0.first.weight"]
    assert len(gradients) == len(seen.losses) == len(seen.rates)
    expected = [rate * gradient for rate, gradient in zip(seen.rates, gradients, strict=True)]
    assert updates == pytest.approx(expected, rel=2e-3)


def test_the_first_loss_is_beside_the_entropy(pictures: dict[str, Any]) -> None:
    found = diagnose(case(pictures, inputs={"picture": {"type": "image"}}), only=["initial_loss"]).findings
    assert found[0].evidence["theory"] == pytest.approx(np.log(10), abs=0.02)
    assert found[0].severity == "note"


# Mends ----------------------------------------------------------------------------------------------------------------


def test_names_with_dots_are_mended_too() -> None:
    source = table()
    source["size (cm.)"] = np.where(np.arange(240) % 15 == 0, 9e5, source.pop("a") + 10)
    diagnosis = examine(source, recipe={"outputs": {"label": None}})
    fixed = fix(diagnosis.recipe, diagnosis.findings)
    assert fixed.recipe["inputs"]["size (cm.)"]["scale"] == "quantile"
    assert escaped("a.b=c") == r"a\.b\=c"


def test_a_mended_recipe_is_valid_and_the_fault_is_gone(tmp_path: Path) -> None:
    source = table()
    source["code"] = [{"yes": "Y1", "no": "N7"}[one] for one in source["label"]]
    diagnosis = examine(
        source, recipe={"outputs": {"label": None}, "training": {"optimizer": {"name": "adamw", "lr": 80.0}}}
    )
    assert diagnosis.findings[0].check == "leak"
    fixed = fix(diagnosis.recipe, diagnosis.findings)
    assert "code" not in fixed.recipe["inputs"]
    again = examine(source, recipe=fixed.recipe)
    assert "leak" not in {one.check for one in again.alarms}


def test_an_earlier_mend_is_not_undone() -> None:
    recipe = examine(table(), recipe={"outputs": {"label": None}}, only=["constant"]).recipe
    found = [
        Finding("rate", "fault", "…", mend=Mend(("training.optimizer.lr=0.01",))),
        Finding("updates", "warning", "…", mend=Mend(("training.optimizer.lr=5.0", "training.clip=1.0"))),
        Finding("flow", "warning", "…", mend=Mend(("training.nonsense=1",))),
        Finding("imbalance", "note", "…", mend=Mend(("training.oversample=true",))),
        Finding("near_duplicates", "fault", "…", advice="by hand"),
    ]
    fixed = fix(recipe, found)
    assert fixed.recipe["training"]["optimizer"]["lr"] == 0.01
    assert fixed.recipe["training"]["clip"] == 1.0
    assert not fixed.recipe["training"]["oversample"]
    assert [one.check for one in fixed.left] == ["near_duplicates"]
    assert recipe["training"]["clip"] is None


# The command and the report -------------------------------------------------------------------------------------------


def csv(path: Path, source: dict[str, Any]) -> Path:
    names = list(source)
    lines = [",".join(names), *(",".join(str(cell) for cell in row) for row in zip(*source.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def test_the_command_writes_the_mended_recipe(tmp_path: Path) -> None:
    source = csv(tmp_path / "rows.csv", {**table(), "country": ["CH"] * 240})
    target = tmp_path / "mended.yaml"
    words = [
        str(source),
        "--target",
        "label",
        "--fix-to",
        str(target),
        "--json",
        "--check",
        "constant",
        "--set",
        "inputs.country.type=category",
    ]
    done = CliRunner().invoke(command, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["findings"][0]["check"] == "constant"
    assert told["fixed"]["recipe"] == str(target)
    assert "country" not in load(target)["inputs"]
    with pytest.raises(UsageError, match="is there already"):
        CliRunner().invoke(command, words, catch_exceptions=False)
    plain = CliRunner().invoke(command, [str(target), "--check", "constant"], catch_exceptions=False)
    assert "0 faults, 0 warnings" in plain.output


def test_a_check_that_is_not_known_is_told_of() -> None:
    with pytest.raises(UsageError, match="Did you mean 'drift'"):
        examine(table(), recipe={"outputs": {"label": None}}, only=["drfit"])


def test_findings_of_a_run_are_in_its_report(tmp_path: Path) -> None:
    import zhixing as zx

    source = csv(tmp_path / "rows.csv", {**table(), "number": range(1000, 1240)})
    run = zx.train(source, target="label", epochs=2, out=tmp_path / "run", settings=["inputs.number.type=number"])
    weights = (run.path / "model.safetensors").read_bytes()
    before = {path.name for path in run.path.iterdir()}
    CliRunner().invoke(command, [str(run.path), "--check", "identifier"], catch_exceptions=False)
    assert {path.name for path in run.path.iterdir()} - before == {"doctor.json"}
    assert (run.path / "model.safetensors").read_bytes() == weights
    page = (run.path / "report.html").read_text("utf-8")
    assert 'id="health"' in page
    assert "looks like an identifier" in page
    assert "<script" not in page
    facts = json.loads((run.path / "doctor.json").read_text("utf-8"))
    facts["findings"][0]["found"] = "<script>alert(1)</script>"
    (run.path / "doctor.json").write_text(json.dumps(facts), "utf-8")
    assert "<script>" not in write_report(run.path).read_text("utf-8")
    zx.load(run.path)
