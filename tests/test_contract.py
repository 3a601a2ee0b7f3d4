"""What every encoder promises to every head, for every type of column: one contract over the tables of all three."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from contract import (
    CPU,
    HEADS_AND_DECODERS,
    HEAVY,
    PAIRS,
    WORDS,
    clip,
    fits,
    made,
    ready,
    recipe_of,
    table_of,
)
from safetensors.torch import load, save
from torch import Tensor

from zhixing.columns import Column
from zhixing.columns.column import Ragged
from zhixing.data.batches import Batch, Batches, ColumnBatch
from zhixing.errors import UsageError
from zhixing.model import Model
from zhixing.recipe import Recipe
from zhixing.run import build_model, make_columns
from zhixing.training.loop import Loop
from zhixing.verbs.train import resume, train

SMALL_PAIRS = [pair for pair in PAIRS if pair[0] != "image"]
PRODUCT = [(*pair, head) for pair in SMALL_PAIRS for head in HEADS_AND_DECODERS if fits(pair[1], head)]
# Pictures have no mask, and each encoder of them is looked at closely in test_models.py: one head each, a different
# one each time, and all heads with two small ones.
PICTURES = [("image", name, head) for name in ("cnn", "vit") for head in HEADS_AND_DECODERS if head != "labels"]
TURNS = [head for head in HEADS_AND_DECODERS if head != "labels"]
ONE_HEAD = [
    pytest.param(kind, name, TURNS[turn % len(TURNS)], marks=[pytest.mark.slow] if name in HEAVY else [])
    for turn, (kind, name) in enumerate(pair for pair in PAIRS if pair[0] == "image")
]


# One batch and its loss ----------------------------------------------------------------------------------------------


def losses_of(model: Model, batch: Batch) -> tuple[Tensor, Tensor]:
    """The prediction of the one head, and the loss of each row."""
    (name,) = model.outputs
    prediction = model(batch)[name]
    return prediction, model.target_losses(batch, name, prediction)


def copied(batch: Batch) -> Batch:
    return Batch(dict(batch.columns), batch.rows)


def padded_further(batch: Batch, more: int) -> Batch:
    """The same rows with more steps that are not real: whatever stands there in the input, zeros in the target."""
    out = copied(batch)
    for name, (values, mask) in batch.columns.items():
        if mask is None or mask.ndim == 1:
            continue
        rest = values.new_zeros(len(values), more, *values.shape[2:])
        if name == "x":  # numbers that a row may hold, and would be seen
            rest = rest + (1 if not values.is_floating_point() else 100)
            values = torch.where(mask.view(*mask.shape, *[1] * (values.ndim - 2)), values, rest[:, :1])
        off = torch.zeros(len(values), more, dtype=torch.bool)
        out.columns[name] = ColumnBatch(torch.cat([values, rest], dim=1), torch.cat([mask, off], dim=1))
    return out


def emptied(batch: Batch) -> Batch:
    """Rows that hold nothing, in the input and in the target."""
    out = copied(batch)
    for name, (values, mask) in batch.columns.items():
        if mask is not None and mask.ndim > 1:
            nothing = torch.zeros_like(values[:, :1]), torch.zeros_like(mask[:, :1])
            out.columns[name] = ColumnBatch(*nothing)
        elif name != "x":
            gone = torch.full_like(values, float("nan")) if name == "series_out" else torch.zeros_like(values)
            out.columns[name] = ColumnBatch(gone, torch.zeros(len(values), dtype=torch.bool))
    return out


def without_choice(name: str, steps: int) -> bool:
    """Weights that need not have a gradient: an attention's bias of keys moves all scores alike; where there is one
    step to look at, whatever asks for it changes nothing."""
    looks = any(part in name for part in (".query.", ".key.", ".score.", "attention.states", "cross.norm"))
    return name.endswith("key.bias") or (looks and steps == 1)


def for_pooled_alone(name: str, model: Model) -> bool:
    """Layers of convolutional encoders behind the last map, which heads that read tokens pass by."""
    return model.head(model.outputs[0]).reads == "tokens" and name.startswith("encoders.0.dense.")


def check_gradients(model: Model, batch: Batch) -> None:
    model.zero_grad()
    steps = model.encode(batch).tokens.shape[1]
    model.loss(model.weigh(copied(batch))).backward()
    for name, parameter in model.named_parameters():
        if for_pooled_alone(name, model):
            assert parameter.grad is None
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0 or without_choice(name, steps), name


def check_rows_alone(model: Model, batch: Batch, losses: Tensor) -> None:
    """A row in a batch of its own, cut to its own length, has the loss that it has among others."""
    for row in range(len(batch)):
        alone = batch.part(row, row + 1)
        for name, (values, mask) in alone.columns.items():
            if mask is not None and mask.ndim > 1:
                steps = max(1, int(mask.sum()))
                alone.columns[name] = ColumnBatch(values[:, :steps], mask[:, :steps])
        _, own = losses_of(model, alone)
        torch.testing.assert_close(own[0], losses[row], rtol=1e-4, atol=1e-5)


def check_empty(model: Model, batch: Batch) -> None:
    """A batch of nothing has a loss of nothing, and moves nothing out of bounds."""
    model.zero_grad()
    loss = model.loss(model.weigh(emptied(batch)))
    assert loss.isfinite()
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def check_answers(model: Model, batch: Batch, columns: dict[str, Column]) -> None:
    """An answer for each row, and figures that are numbers."""
    (name,) = model.outputs
    head, (target, mask) = model.head(name), batch.columns[name]
    with torch.inference_mode():
        encoding = model.encode(batch)
        answers = head.decode(head.answer(encoding), columns[name])
        prediction = model.predict(name, encoding, batch)
    assert all(len(cells) == len(batch) for cells in answers.values())
    here = torch.ones(len(target), dtype=torch.bool) if mask is None else mask if mask.ndim == 1 else mask.any(1)
    figures = head.metrics(head.keep(prediction, target)[here], target[here], columns[name])
    assert head.goal in figures
    assert all(np.isfinite(value) for value in figures.values()), figures


# The contract --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "encoder", "head"), [*PRODUCT, *PICTURES])
def test_every_encoder_with_every_head(kind: str, encoder: str, head: str) -> None:
    model, batch = made(kind, encoder, head)
    model.eval()  # no chance, and norms of batches stand still
    check_gradients(model, batch)
    with torch.no_grad():
        prediction, losses = losses_of(model, batch)
        assert len(prediction) == len(losses) == len(batch)
        present = model.target_weights(model.outputs[0], batch.columns[model.outputs[0]])
        assert losses[slice(None) if present is None else present > 0].isfinite().all()
        further, same = losses_of(model, padded_further(batch, 5))
        real = further[:, : prediction.shape[1]] if prediction.ndim == 3 else further
        if not head.startswith("labels"):  # of those, steps that are not real say so
            places = real_places(model, batch, prediction)
            torch.testing.assert_close(real[places], prediction[places], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(same, losses, rtol=1e-4, atol=1e-5, equal_nan=True)
        check_rows_alone(model, batch, losses)
    check_empty(model, batch)
    check_answers(model, batch, ready(kind)[0])


def real_places(model: Model, batch: Batch, prediction: Tensor) -> Tensor:
    """Where a prediction means something, as a mask of its first axes."""
    target = batch.columns[model.outputs[0]].values
    if prediction.ndim == 3 and model.forced:
        return target > 0
    return torch.ones(prediction.shape[:1], dtype=torch.bool)


@pytest.mark.parametrize(("kind", "encoder", "head"), ONE_HEAD)
def test_encoders_of_pictures(kind: str, encoder: str, head: str) -> None:
    model, batch = made(kind, encoder, head)
    check_gradients(model, batch)  # in training: deep stacks are scaled by the norms of their batches
    model.eval()
    with torch.no_grad():
        prediction, losses = losses_of(model, batch)
        assert len(prediction) == len(batch)
        check_rows_alone(model, batch, losses)
    check_answers(model, batch, ready(kind, 64 if encoder == "alexnet" else 32)[0])


@pytest.mark.parametrize(("kind", "encoder"), SMALL_PAIRS)
def test_training_on_single_rows_is_possible(kind: str, encoder: str) -> None:
    model, batch = made(kind, encoder, "category")
    for row in range(len(batch)):
        loss = model.loss(model.weigh(batch.part(row, row + 1)))
        loss.backward()
        assert loss.isfinite()


@pytest.mark.parametrize(("kind", "encoder"), [(k, e) for k, e in PAIRS if e not in HEAVY])
def test_a_model_that_was_saved_predicts_the_same(kind: str, encoder: str) -> None:
    assert_loaded_is_the_same(kind, encoder, "category")


@pytest.mark.parametrize("head", HEADS_AND_DECODERS)
@pytest.mark.parametrize(("kind", "encoder"), [("text", "transformer"), ("series", "gru")])
def test_a_head_that_was_saved_predicts_the_same(kind: str, encoder: str, head: str) -> None:
    assert_loaded_is_the_same(kind, encoder, head)


def assert_loaded_is_the_same(kind: str, encoder: str, head: str) -> None:
    """Weights through safetensors, columns through JSON; cells are read anew."""
    model, batch = made(kind, encoder, head)
    model.eval()
    size = {"size": 64 if encoder == "alexnet" else 32} if kind == "image" else {}
    columns, prepared = ready(kind, **size)
    plain = recipe_of(kind, encoder, (head,), seed=1).plain()
    names = ["x", *plain["outputs"]]
    for part in ("inputs", "outputs"):
        for name in plain[part]:
            plain[part][name] |= columns[name].settings()
    recipe = Recipe(json.loads(json.dumps(plain)))
    again = make_columns(recipe)
    states = json.loads(json.dumps({name: columns[name].state() for name in names}))
    for name, column in again.items():
        column.load_state(states[name])
        assert column.state() == columns[name].state()
    other = build_model(recipe, again).eval()
    other.load_state_dict(load(save({key: value.contiguous() for key, value in model.state_dict().items()})))
    table, tensors = table_of(kind), {}
    for name in names:
        done = again[name].tensorize(whole(table[name]), table.locate)
        values = torch.from_numpy(done.values)
        cut = None if done.lengths is None else np.concatenate([[0], np.cumsum(done.lengths)])
        stored = ColumnBatch(values, torch.from_numpy(done.present)) if cut is None else Ragged(values, cut)
        tensors[name] = stored if name != "x" or cut is not None else ColumnBatch(values)
    fresh = Batches(tensors, CPU).gather(prepared.split["train"])
    with torch.no_grad():
        assert torch.equal(losses_of(other, fresh)[0], losses_of(model, batch)[0])
        own, loaded = (m.head(m.outputs[0]).answer(m.encode(batch)) for m in (model, other))
    assert torch.equal(own, loaded)


def whole(values: pa.ChunkedArray) -> pa.Array:
    return values.chunk(0) if values.num_chunks == 1 else values.combine_chunks()


@pytest.mark.parametrize(("kind", "encoder"), [pair for pair in SMALL_PAIRS if not fits(pair[1], "labels")])
def test_labels_need_an_encoder_that_reads_one_by_one(kind: str, encoder: str) -> None:
    with pytest.raises(UsageError, match="labels"):
        made(kind, encoder, "labels")


# Stopped and resumed -------------------------------------------------------------------------------------------------


TRAINING = {"epochs": 3, "batch_size": 4, "threads": 1, "log_every": 2, "checkpoint_every": 2, "average": 0.9}
TRAINING |= {"keep": "last", "precision": "fp32"}
CATEGORY = {"y": {"type": "category"}}


def log_of(kind: str) -> tuple[dict[str, list[Any]], dict[str, Any], dict[str, Any]]:
    """Some dozen rows of one kind, with an encoder and a decoder that drop units by chance."""
    draw = np.random.default_rng(0)
    rows = 16
    lengths = draw.integers(1, 8, rows)
    label = ["ab"[int(n > 3)] for n in lengths]
    words = [" ".join(draw.choice(list(WORDS), n)) for n in lengths]
    decoder = {"name": "transformer", "width": 8, "depth": 1, "heads": 2, "dropout": 0.3}
    encoders = {
        "text": {"name": "transformer", "width": 8, "depth": 1, "heads": 2, "dropout": 0.3},
        "series": {"name": "tcn", "width": 4, "dropout": 0.3},
        "history": {"name": "sasrec", "width": 8, "dropout": 0.3},
        "audio": {"name": "conformer", "width": 8, "depth": 1, "heads": 2, "kernel": 3, "dropout": 0.3},
    }
    if kind == "language model":
        return {"y": words}, {}, {"y": {"type": "text", "length": 12, "decoder": decoder}}
    cells = {
        "text": words,
        "series": [draw.normal(size=n).tolist() for n in lengths],
        "history": [line.split() for line in words],
        "audio": [clip(0.03 * n, 90.0 * n) for n in lengths],
    }[kind]
    own: dict[str, Any] = {"audio": {"rate": 8000, "bands": 8, "spec_augment": True}}.get(kind, {})
    outputs = CATEGORY if kind != "text" else {"z": {"type": "text", "decoder": decoder, "search": {"most": 4}}}
    inputs = {"x": {"type": kind, "encoder": encoders[kind], **own}}
    return {"x": cells, "y": label, "z": words[::-1]}, inputs, outputs


class Limit(Exception):  # noqa: N818
    """The time that was lent is over."""


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Makes the next training end amid a step."""
    gradients = Loop.gradients

    def until(last: int) -> None:
        def stopping(loop: Loop, batch: Batch) -> Tensor:
            found = gradients(loop, batch)
            if loop.progress.step == last:
                raise Limit
            return found

        monkeypatch.setattr(Loop, "gradients", stopping)

    yield until
    monkeypatch.undo()


@pytest.mark.parametrize("kind", ["text", "series", "history", "audio", "language model"])
def test_a_run_that_was_stopped_ends_with_the_same_bits(
    kind: str, limited: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data, inputs, outputs = log_of(kind)
    recipe = {"inputs": inputs, "outputs": outputs, "training": TRAINING, "seed": 4}
    alone = train(data, recipe, out=tmp_path / "alone", device="cpu").path
    limited(5)
    run = tmp_path / "stopped"
    with pytest.raises(Limit):
        train(data, recipe, out=run, device="cpu")
    assert not (run / "manifest.json").exists()
    monkeypatch.undo()
    resume(run, source=data, device="cpu")
    for name in ("model.safetensors", "metrics.jsonl"):
        one, other = (hashlib.sha256((folder / name).read_bytes()).hexdigest() for folder in (alone, run))
        assert one == other, name
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert max(line["step"] for line in lines) > 6
