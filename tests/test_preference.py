"""Preference tuning: its loss and gradient beside the paper's equation, its reference, its figures, and its runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from talkers import PAIRS, QUESTIONS, TRAINING, talker
from torch import Tensor

import zhixing as zx
from zhixing.columns.text import Text
from zhixing.columns.vocabulary import PAD
from zhixing.data.batches import Batch, ColumnBatch
from zhixing.errors import DataError, UsageError
from zhixing.heads.objective import DPO, pair_of
from zhixing.model import Model
from zhixing.pretrained import fine_tune, put_weights
from zhixing.recipe import Recipe
from zhixing.run import build_model, make_columns
from zhixing.training.loop import Loop
from zhixing.verbs.train import resume

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talker(tmp_path_factory.mktemp("talker"))


def recipe(base: Path, **training: Any) -> dict[str, Any]:
    return {
        "data": {"reshape": "preference"},
        "outputs": {"answer": {"decoder": str(base), "loss": {"name": "dpo", "beta": 0.5}}},
        "training": TRAINING | training,
    }


def trained(base: Path, out: Path, **training: Any) -> zx.Run:
    return zx.train(PAIRS, recipe=recipe(base, **training), out=out, device="cpu")


@pytest.fixture(scope="module")
def runs(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., zx.Run]:
    made: dict[str, zx.Run] = {}

    def run(method: str) -> zx.Run:
        if method not in made:
            made[method] = trained(base, tmp_path_factory.mktemp("preferred") / method, fine_tuning=method)
        return made[method]

    return run


@pytest.fixture(scope="module")
def given(runs: Callable[..., zx.Run]) -> Callable[..., tuple[Model, Batch]]:
    """A model as training starts with it, moved a little, and a batch of pairs of unequal lengths."""
    run = runs("lora")

    def make(method: str | None) -> tuple[Model, Batch]:
        plain = run.settings.plain()
        plain["training"]["fine_tuning"] = method
        made = Recipe(plain)
        columns = make_columns(made)
        for name, column in columns.items():
            column.load_state(run.fitted[name].state())
        model = build_model(made, columns)
        put_weights(made, columns, model)
        fine_tune(made, model)
        torch.manual_seed(1)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.requires_grad:
                    weight += 0.05 * torch.randn_like(weight)
        pairs = [("The cat sat", "bark"), ("x", "meow meow meow"), ("Dogs", "Dog")]
        cells = [{"chosen": one, "rejected": other} for one, other in pairs]
        prompts = ["Say cat", "a", "Say mat 3"]
        return model, model.weigh(batch_of(columns, {"prompt": pa.array(prompts), "answer": pa.array(cells)}))

    return make


def batch_of(columns: dict[str, Any], cells: dict[str, pa.Array]) -> Batch:
    made = {}
    for name, values in cells.items():
        done = columns[name].tensorize(values, Path)
        rows = torch.from_numpy(done.values).long().split(done.lengths.tolist())
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        made[name] = ColumnBatch(ids, ids != PAD)
    return Batch(made, torch.arange(len(values)))


def log_probability(decoder: Any, prompt: Tensor, text: Tensor) -> Tensor:
    """Of one text after one prompt, summed token by token."""
    prompt, text = prompt[prompt > PAD], text[text > PAD]
    row = torch.cat([prompt, text])[None]
    scores = decoder.scores(decoder.stack(decoder.vectors(row)))[0, len(prompt) - 1 : -1]
    return scores.log_softmax(-1)[torch.arange(len(text)), text].sum()


def equation(model: Model, batch: Batch, beta: float) -> Tensor:
    """Equation 7 of the paper, pair by pair: the mean over the batch."""
    head, losses = model.head("answer"), []
    decoder, reference = head.decoder, head.objective.reference
    chosen, rejected = pair_of(batch.columns["answer"].values)
    for place, prompt in enumerate(batch.columns["prompt"].values):
        policy = [log_probability(decoder, prompt, text[place]) for text in (chosen, rejected)]
        with torch.no_grad():
            start = [log_probability(reference, prompt, text[place]) for text in (chosen, rejected)]
        inner = beta * (policy[0] - start[0]) - beta * (policy[1] - start[1])
        losses.append(-F.logsigmoid(inner))
    return torch.stack(losses).mean()


def test_rows_of_pairs_are_twice_as_long_as_their_longer_text(runs: Callable[..., zx.Run]) -> None:
    column = runs("lora").fitted["answer"]
    cells = [{"chosen": "a cat", "rejected": "b"}, {"chosen": "b", "rejected": "a cat"}]
    done = column.tensorize(pa.array(cells), Path)
    first, second = torch.from_numpy(done.values).split(done.lengths.tolist())
    assert len(first) == len(second)
    for one, other in zip(pair_of(first[None]), reversed(pair_of(second[None])), strict=True):
        assert torch.equal(one, other)
    assert (first > 0).sum() == len(first) // 2


@pytest.mark.parametrize("method", ["lora", "full", None])
def test_loss_and_gradient_are_the_papers(method: str | None, given: Callable[..., tuple[Model, Batch]]) -> None:
    model, batch = given(method)
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    found, expected = model.loss(batch), equation(model, batch, 0.5)
    torch.testing.assert_close(found, expected)
    ours, theirs = (torch.autograd.grad(loss, learning, materialize_grads=True) for loss in (found, expected))
    assert any(bool(gradient.abs().max() > 1e-4) for gradient in ours)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_at_the_start_nothing_is_gained_and_the_loss_is_the_logarithm_of_two(runs: Callable[..., zx.Run]) -> None:
    run = runs("lora")
    columns = run.fitted
    model = build_model(run.settings, columns)
    put_weights(run.settings, columns, model)
    fine_tune(run.settings, model)
    cells = {"prompt": pa.array(["a", "b"]), "answer": pa.array([{"chosen": "x", "rejected": "cat"}] * 2)}
    loss = model.loss(model.weigh(batch_of(columns, cells)))
    assert loss.item() == pytest.approx(0.693147, abs=1e-5)


def test_under_lora_the_reference_takes_no_memory_and_never_learns(given: Callable[..., tuple[Model, Batch]]) -> None:
    model, _ = given("lora")
    head = model.head("answer")
    own = {p.data_ptr() for p in head.decoder.parameters()}
    assert all(p.data_ptr() in own and not p.requires_grad for p in head.objective.reference.parameters())
    model, _ = given("full")
    head = model.head("answer")
    own = {p.data_ptr() for p in head.decoder.parameters()}
    assert not any(p.data_ptr() in own or p.requires_grad for p in head.objective.reference.parameters())
    assert not any("reference" in name for name in model.state_dict())
    model.double()
    assert {p.dtype for p in head.objective.reference.parameters()} == {torch.float64}


def test_pairs_are_told_apart_whatever_their_lengths() -> None:
    rows = [[5, -6, -7, -8, 0, 0], [5, 6, 7, -8, 0, 0], [5, 0, 0, 0, 0, 0]]
    chosen, rejected = pair_of(torch.tensor(rows))
    assert chosen.tolist() == [[5, 0, 0], [5, 6, 7], [5, 0, 0]]
    assert rejected.tolist() == [[6, 7, 8], [8, 0, 0], [0, 0, 0]]


def test_figures_are_those_of_the_pairs() -> None:
    kept = torch.tensor([[-1.0, -3.0, -2.0, -2.0], [-5.0, -4.0, -5.0, -1.0]])
    told = DPO(beta=0.5).metrics(kept)
    assert told["margin"] == pytest.approx((2 - 1) / 2)
    assert (told["preferred"], told["reward_accuracy"]) == (0.5, 1.0)
    assert told["reward_margin"] == pytest.approx(0.5 * (2 + 3) / 2)
    assert told["preference_loss"] == pytest.approx(float(-F.logsigmoid(torch.tensor([1.0, 1.5])).mean()))
    later = DPO(beta=0.5).metrics(kept.index_fill(1, torch.tensor([2, 3]), torch.nan))
    assert set(later) == {"preference_loss", "margin", "preferred"}


# The column ----------------------------------------------------------------------------------------------------------


def test_what_is_odd_about_pairs_is_told(runs: Callable[..., zx.Run]) -> None:
    column = runs("lora").fitted["answer"]
    assert isinstance(column, Text)
    length = column.length or 0
    cells = [
        {"chosen": "a", "rejected": None},
        {"chosen": "a", "rejected": "a"},
        {"chosen": "a " * 80, "rejected": "b"},
        None,
    ]
    done = column.tensorize(pa.array(cells), Path)
    assert done.present.tolist() == [False, True, True, False]
    assert [(one.index, one.kind) for one in done.findings] == [(0, "broken"), (1, "suspect"), (2, "suspect")]
    row = torch.from_numpy(done.values).split(done.lengths.tolist())[2]
    assert (row > 0).sum() == length
    assert column.restore(row[None].long())[0].startswith("a a")


def test_the_reshape_wants_texts(tmp_path: Path, base: Path) -> None:
    with pytest.raises(DataError, match="are no texts"):
        zx.train({**PAIRS, "rejected": [["x"]] * 24}, recipe=recipe(base), out=tmp_path / "a", device="cpu")
    with pytest.raises(DataError, match="'answer' already"):
        zx.train({**PAIRS, "answer": PAIRS["chosen"]}, recipe=recipe(base), out=tmp_path / "b", device="cpu")


def test_single_texts_cannot_be_preferred(tmp_path: Path, base: Path) -> None:
    raw = {"outputs": {"answer": {"decoder": str(base), "loss": "dpo"}}, "training": TRAINING}
    with pytest.raises(UsageError, match="needs pairs"):
        zx.train(QUESTIONS, recipe=raw, out=tmp_path / "run", device="cpu")


def test_without_a_prompt_nothing_is_compared(tmp_path: Path, base: Path) -> None:
    raw = recipe(base)
    raw["inputs"] = {"prompt": {"type": "text", "encoder": {"name": "gru", "width": 8}}}
    with pytest.raises(UsageError, match="reads itself"):
        zx.train(PAIRS, recipe=raw, out=tmp_path / "run", device="cpu")


# Runs ----------------------------------------------------------------------------------------------------------------


def figures(run: zx.Run) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [line["metrics"]["answer"] for line in lines if line["kind"] == "validation"]


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("method", ["lora", "full"])
def test_margins_of_held_out_pairs_rise_and_the_base_is_untouched(
    method: str, base: Path, runs: Callable[..., zx.Run]
) -> None:
    before = hashes(base)
    run = runs(method)
    told = figures(run)
    assert told[-1]["reward_margin"] > 0
    assert told[-1]["margin"] > told[0]["margin"]
    assert hashes(base) == before
    test = json.loads((run.path / "evaluation.json").read_text("utf-8"))["outputs"]["answer"]["metrics"]
    assert test["reward_margin"] > 0, "the start is still known when the merged run is examined"
    later = run.evaluate(PAIRS, part="all")["answer"]
    assert later["margin"] > told[0]["margin"]
    assert "reward_margin" not in later
    assert len(run.predict({"prompt": PAIRS["prompt"][:2]})["answer"]) == 2


class Limit(Exception):  # noqa: N818
    """The time that was lent is over."""


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_run_that_was_killed_ends_with_the_same_bits(
    method: str, base: Path, runs: Callable[..., zx.Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, gradients = runs(method), Loop.gradients

    def stopping(loop: Loop, batch: Batch) -> Tensor:
        found = gradients(loop, batch)
        if loop.progress.step == 7:
            raise Limit
        return found

    monkeypatch.setattr(Loop, "gradients", stopping)
    with pytest.raises(Limit):
        trained(base, tmp_path / "run", fine_tuning=method)
    monkeypatch.undo()
    assert sorted((tmp_path / "run" / "checkpoints").iterdir())
    resume(tmp_path / "run", source=PAIRS, device="cpu")
    for file in ("model.safetensors", "metrics.jsonl", "evaluation.json"):
        assert (tmp_path / "run" / file).read_bytes() == (alone.path / file).read_bytes(), file
    if method == "lora":
        assert set(load_file(tmp_path / "run" / "adapter.safetensors")) == set(
            load_file(alone.path / "adapter.safetensors")
        )
