"""Texts that CTC cannot say in the steps that it has, and where decoders look."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import zhixing as zx
from zhixing.columns.column import Ragged
from zhixing.columns.vocabulary import END
from zhixing.heads.decoders import CTC, RecurrentDecoder, TransformerDecoder
from zhixing.models.encoding import Encoding
from zhixing.verbs.alignment import steps_to_say

FEW = settings(max_examples=60, deadline=None, derandomize=True)


@FEW
@given(st.lists(st.lists(st.integers(4, 6), max_size=5), min_size=1, max_size=6))
def test_the_fewest_steps_are_those_of_which_ctc_makes_a_finite_loss(texts) -> None:
    rows = [[*text, END] for text in texts]
    flat = torch.tensor([token for row in rows for token in row], dtype=torch.int32)
    stored = Ragged(flat, np.cumsum([0, *map(len, rows)]))
    need = steps_to_say(stored)
    for row, steps in zip(rows, need.tolist(), strict=True):
        for given_steps in (steps, steps - 1):
            if given_steps < 1:
                continue
            scores = torch.zeros(given_steps, 1, 7).log_softmax(-1)
            target = torch.tensor([row[:-1]])
            loss = torch.nn.functional.ctc_loss(
                scores, target, torch.tensor([given_steps]), torch.tensor([len(row) - 1]), reduction="none"
            )
            assert bool(loss.isfinite()) == (given_steps >= steps)


def test_a_transcript_that_is_too_long_is_named_and_left_out(tmp_path: Path) -> None:
    """A series of 6 steps cannot say 9 letters, nor 4 letters of which all are the same."""
    rng = np.random.default_rng(0)
    table = {
        "steps": [rng.normal(size=6).tolist() for _ in range(40)],
        "said": ["ab", "ba", "aba", "b"] * 10,
        "split": (["train"] * 8 + ["validation", "test"]) * 4,
    }
    table["said"][5], table["said"][9] = "abababaab", "aaaa"
    recipe = {
        "inputs": {"steps": {"type": "series", "encoder": {"name": "gru", "width": 8}}},
        "outputs": {"said": {"type": "text", "tokenizer": "character", "decoder": "ctc"}},
        "training": {"epochs": 1, "batch_size": 4, "threads": 1},
    }
    run = zx.train(table, recipe=recipe, out=tmp_path / "run", on_error="skip")
    problems = [json.loads(line) for line in (run.path / "problems.jsonl").read_text("utf-8").splitlines()]
    told = {problem["row"]: problem["reason"] for problem in problems if problem["fatal"]}
    assert set(told) == {5, 9}
    assert told[5] == "the text takes 10 steps to say (a repeated character takes two), and the input has 6"
    assert told[9].startswith("the text takes 7 steps")
    assert run.read_json("data.json")["splits"] == {"train": 31, "validation": 4, "test": 3}
    reported = run.read_json("evaluation.json")["outputs"]["said"]["metrics"]
    assert run.evaluate(table, part="test")["said"] == reported


def encoding(rows: int = 3, steps: int = 5, width: int = 8) -> Encoding:
    torch.manual_seed(0)
    tokens = torch.randn(rows, steps, width)
    mask = torch.arange(steps) < torch.tensor([[5], [3], [1]])
    return Encoding(tokens.mean(1), tokens, mask)


@pytest.mark.parametrize("kind", [TransformerDecoder, RecurrentDecoder])
def test_looks_are_shares_of_the_real_tokens(kind) -> None:
    settings_ = {"width": 16, "depth": 2, "heads": 2} if kind is TransformerDecoder else {"width": 16}
    decoder = kind(8, 10, 6, **settings_).eval()
    target = torch.tensor([[4, 5, END], [6, END, 0], [END, 0, 0]])
    seen = encoding()
    weights = decoder.looks(seen, target)
    assert weights.shape == (3, 3, 5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 3))
    assert not weights.masked_select(~seen.mask[:, None].expand_as(weights)).any()


def test_looks_are_those_that_the_last_block_answers_by() -> None:
    decoder = TransformerDecoder(16, 10, 6, width=16, depth=1, heads=1).eval()
    target, seen = torch.tensor([[4, 5, END]] * 3), encoding(width=16)
    cross = decoder.stack.blocks[0].cross
    answers: list[torch.Tensor] = []
    handle = cross.branch.register_forward_hook(lambda module, given, out: answers.append(out))
    weights = decoder.looks(seen, target)
    handle.remove()
    values = cross.branch.value(seen.tokens)
    torch.testing.assert_close(cross.branch.out(weights @ values), answers[0], rtol=1e-4, atol=1e-5)


def test_who_looks_nowhere() -> None:
    assert CTC(8, 10, 6).looks(encoding(), torch.tensor([[4, END]] * 3)) is None
    assert TransformerDecoder(0, 10, 6, width=16, depth=1, heads=1).looks(encoding(), torch.tensor([[4]])) is None
