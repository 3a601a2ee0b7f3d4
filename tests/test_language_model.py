"""A language model trained by the loop, beside a plain loop written from the equations."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import zhixing as zx
from zhixing.columns.vocabulary import BEGIN
from zhixing.data.batches import Batches, Order
from zhixing.data.packing import pack
from zhixing.data.prepare import prepare
from zhixing.data.source import open_source
from zhixing.data.split import split
from zhixing.recipe import Recipe
from zhixing.run import RunFolder, build_model, make_columns

STEPS, WIDTH, HEADS, DEPTH, LENGTH, RATE, DECAY, WARMUP, CLIP = 100, 32, 4, 2, 48, 3e-3, 0.1, 0.1, 1.0
RECIPE = {
    "data": {"source": "memory:table", "split": {"train": 0.8, "validation": 0.1, "test": 0.1}},
    "outputs": {
        "text": {
            "type": "text", "tokenizer": "byte", "length": LENGTH, "packed": True,
            "decoder": {
                "name": "transformer", "width": WIDTH, "depth": DEPTH, "heads": HEADS, "feed_forward": "gelu",
                "positions": "learned", "dropout": 0.0,
            },
            "search": {"most": 5},
        }
    },
    "training": {
        "epochs": 10, "batch_size": 8, "precision": "fp32", "threads": 1, "log_every": 1, "clip": CLIP, "keep": "last",
        "optimizer": {"name": "adamw", "lr": RATE, "weight_decay": DECAY, "betas": [0.9, 0.95]},
        "schedule": {"name": "cosine", "warmup": WARMUP},
    },
}  # fmt: skip


def texts() -> list[str]:
    rng = np.random.default_rng(0)
    words = ["the", "cat", "sat", "on", "a", "mat", "and", "looked", "at", "moon", "北京"]
    return [" ".join(rng.choice(words, rng.integers(3, 30))) + "." for _ in range(60)]


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    spread = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / (spread + 1e-5).sqrt() * weight + bias


def gpt(w: dict[str, Tensor], tokens: Tensor) -> Tensor:
    """Scores of each next token of rows [B, T] that begin with BEGIN, by GPT's equations; a BEGIN within a row starts a
    text of its own, which sees nothing before it."""
    rows, length = tokens.shape
    text = torch.zeros_like(tokens)
    place = torch.zeros_like(tokens)
    for row in range(rows):
        for t in range(1, length):
            new = bool(tokens[row, t] == BEGIN)
            text[row, t] = text[row, t - 1] + new
            place[row, t] = 0 if new else place[row, t - 1] + 1
    x = w["embed.weight"][tokens] + w["stack.positions.table.weight"][place]
    past = torch.ones(length, length, dtype=torch.bool).tril()
    seen = past & (text[:, :, None] == text[:, None, :])
    for block in range(DEPTH):
        name = f"stack.blocks.{block}."

        def linear(part: str, x: Tensor, name: str = name) -> Tensor:
            return x @ w[f"{name}{part}.weight"].T + w[f"{name}{part}.bias"]

        y = layer_norm(x, w[f"{name}attention.norm.weight"], w[f"{name}attention.norm.bias"])
        q, k, v = (
            linear(f"attention.branch.{part}", y).view(rows, length, HEADS, -1).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        scores = (q @ k.transpose(2, 3)) / math.sqrt(WIDTH / HEADS)
        share = scores.masked_fill(~seen[:, None], -math.inf).softmax(-1)
        x = x + linear("attention.branch.out", (share @ v).transpose(1, 2).reshape(rows, length, WIDTH))
        y = layer_norm(x, w[f"{name}feed_forward.norm.weight"], w[f"{name}feed_forward.norm.bias"])
        up = linear("feed_forward.branch.up", y)
        x = x + linear("feed_forward.branch.down", up * (1 + torch.erf(up / math.sqrt(2))) / 2)
    return layer_norm(x, w["stack.norm.weight"], w["stack.norm.bias"]) @ w["embed.weight"].T


def read_of(target: Tensor) -> Tensor:
    """Each row moved by one, with BEGIN in front and in place of each END."""
    end = 3
    before = torch.cat([torch.full((len(target), 1), BEGIN), target[:, :-1]], dim=1)
    return torch.where(before == end, BEGIN, before)


def plain_losses(weights: dict[str, Tensor], batches: list[Tensor]) -> list[float]:
    """Cross-entropy, AdamW, clipping and a cosine after a linear rise, all written out."""
    w = {name: tensor.clone().requires_grad_() for name, tensor in weights.items()}
    means = {name: torch.zeros_like(tensor) for name, tensor in w.items()}
    squares = {name: torch.zeros_like(tensor) for name, tensor in w.items()}
    losses = []
    for step, target in enumerate(batches):
        logits = gpt(w, read_of(target))
        real = target > 0
        loss = F.cross_entropy(logits[real], target[real])
        gradients = dict(zip(w, torch.autograd.grad(loss, list(w.values())), strict=True))
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients.values()))
        progress = (step + 1) / (STEPS + 1)
        rate = RATE * (
            progress / WARMUP if progress < WARMUP else (1 + math.cos(math.pi * (progress - WARMUP) / (1 - WARMUP))) / 2
        )
        with torch.no_grad():
            for name, g in gradients.items():
                g = g * min(1.0, CLIP / (norm + 1e-6))
                means[name] = 0.9 * means[name] + 0.1 * g
                squares[name] = 0.95 * squares[name] + 0.05 * g * g
                mean = means[name] / (1 - 0.9 ** (step + 1))
                square = squares[name] / (1 - 0.95 ** (step + 1))
                if w[name].ndim >= 2:
                    w[name] *= 1 - rate * DECAY
                w[name] -= rate * mean / (square.sqrt() + 1e-8)
        losses.append(loss.item())
    return losses


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("language") / "run"
    steps = steps_per_epoch()
    raw = RECIPE | {"training": RECIPE["training"] | {"epochs": STEPS / steps}}
    zx.train({"text": texts()}, recipe=raw, out=folder)
    return folder


def packed() -> tuple[Recipe, dict, Batches, Order]:
    recipe = Recipe(RECIPE | {"inputs": {}})
    table = open_source({"text": texts()})
    columns = make_columns(recipe)
    prepared = prepare(table, columns, split(table, recipe.data.split, 0), cache=None)
    blocks = pack(prepared, columns, seed=0)
    batches = Batches(blocks.columns, torch.device("cpu"))
    rows = blocks.split["train"]
    return recipe, columns, batches, Order(rows, 8, seed=0, lengths=batches.lengths(rows))


def steps_per_epoch() -> int:
    return packed()[3].steps_per_epoch


def test_the_curve_is_that_of_a_plain_loop(run: Path) -> None:
    recipe, columns, batches, order = packed()
    weights = {
        name.removeprefix("heads.0.decoder."): tensor
        for name, tensor in build_model(recipe, columns).state_dict().items()
    }
    wanted = plain_losses(weights, [batches.gather(order.at(step)).columns["text"].values for step in range(STEPS)])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    got = [line["loss"] for line in lines if line["kind"] == "train"]
    assert len(got) == STEPS
    assert got[-1] < 0.6 * got[0]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-4)


def test_bits_per_byte_are_those_of_the_texts(run: Path) -> None:
    """Every held-out token is scored once: the sum over blocks is the sum over texts, where none is longer than half a
    block; and each text counts one byte for its end."""
    folder = RunFolder(run)
    loaded = zx.load(run)
    short = ["the cat.", "a mat", ""]
    got = loaded.evaluate({"text": short})["text"]
    recipe = folder.recipe()
    model = build_model(recipe, folder.columns(recipe))
    folder.load_weights(model, folder.verify()["model.safetensors"])
    w = {name.removeprefix("heads.0.decoder."): tensor for name, tensor in model.state_dict().items()}
    nats, bytes_ = 0.0, 0
    for text in short:
        target = torch.tensor([[4 + byte for byte in text.encode()] + [3]])
        nats += float(F.cross_entropy(gpt(w, read_of(target))[0], target[0], reduction="sum"))
        bytes_ += len(text.encode()) + 1
    assert got["bits_per_byte"] == pytest.approx(nats / math.log(2) / bytes_, rel=1e-5)
    assert got["perplexity"] == pytest.approx(math.exp(nats / bytes_), rel=1e-5)
