"""Objectives: what they hide and draw, what they count, and that learning from them goes through the one loop."""

from __future__ import annotations

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
from pretraining_words import WORDS
from torch import Tensor

from zhixing.columns import Column
from zhixing.columns.history import History
from zhixing.columns.image import Image
from zhixing.columns.series import Series
from zhixing.columns.text import Text
from zhixing.data.batches import Batch, ColumnBatch, Draw
from zhixing.errors import UsageError
from zhixing.models import ENCODERS
from zhixing.pretraining import PRETEXTS, Pretext
from zhixing.pretraining.contrastive import nt_xent
from zhixing.pretraining.masked_tokens import choose_places
from zhixing.pretraining.pairs import in_batch


def pretext(of: Column, paired: bool = False) -> Pretext:
    column = Pretext()
    column.role = "output"
    column.beside({"x": of})
    column.fit(pa.chunked_array([["a"]] if paired else [pa.nulls(1)]), Path)
    return column


def fitted(column: Column, cells: list[Any]) -> Column:
    column.fit(pa.chunked_array([cells]), Path)
    return column


def texts() -> Column:
    return fitted(Text(tokenizer="word", length=12), [" ".join(WORDS)] * 3)


def histories() -> Column:
    return fitted(History(length=12), [list(WORDS)])


def series() -> Column:
    return fitted(Series(), [[[float(i), 2.0 * i] for i in range(30)]] * 4)


def pictures(side: int = 12) -> Image:
    column = Image(size=side, channels=1)
    column.mean, column.std = [100.0], [50.0]
    return column


SMALL: dict[str, Any] = {"width": 16, "depth": 1, "heads": 2}


def made(kind: str, column: Column, encoder: str, paired: bool = False, **settings: Any) -> tuple[Any, Any]:
    torch.manual_seed(0)
    chosen = {} if encoder in ("cnn", "gru") else SMALL
    network = ENCODERS[encoder](column.spec(), **chosen)
    reads = network.token_width if PRETEXTS[kind].reads == "tokens" else network.width
    chosen_class: Any = PRETEXTS[kind]
    head = chosen_class(reads, pretext(column, paired), **settings)
    head.meet([network])
    return head, network


def tokens(rows: int, steps: int, lowest: int, highest: int, seed: int = 0) -> ColumnBatch:
    random = np.random.default_rng(seed)
    lengths = random.integers(1, steps + 1, rows)
    mask = torch.from_numpy(np.arange(steps) < lengths[:, None])
    ids = torch.from_numpy(random.integers(lowest, highest, (rows, steps)))
    return ColumnBatch(torch.where(mask, ids, 0), mask)


NOTHING = ColumnBatch(torch.zeros(0, dtype=torch.uint8))


def draw(rows: int, step: int = 3, first: int = 0) -> Draw:
    return Draw(torch.arange(first, first + rows), 0, step)


# What is hidden -----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 20), st.integers(1, 30), st.floats(0.05, 0.9), st.integers(0, 5))
def test_as_many_places_are_hidden_as_the_share_says(rows: int, steps: int, share: float, seed: int) -> None:
    mask = tokens(rows, steps, 4, 9, seed).mask
    assert mask is not None
    place, counts = choose_places(draw(rows, seed).uniform(steps), mask, share)
    assert place.shape == (rows, max(1, math.ceil(share * steps)))
    for row in range(rows):
        real = int(mask[row].sum())
        chosen = place[row][counts[row]].tolist()
        assert len(chosen) == len(set(chosen)) == min(real, max(1, round(share * real)))
        assert all(mask[row, one] for one in chosen)


def test_masked_tokens_are_hidden_swapped_and_left_in_the_shares_of_bert() -> None:
    head, _ = made("masked_tokens", texts(), "transformer")
    given = tokens(4000, 12, 4, 20)
    seen, _, (place, truth) = head.ask(texts().stem(), given, NOTHING, draw(4000))
    live = truth > 0
    shown = seen.gather(1, place)[live]
    asked = truth[live]
    share = live.sum() / given.values.bool().sum()
    assert 0.13 < share < 0.25  # 0.15, and at least one of each short row
    assert (given.values.gather(1, place)[live] == asked).all()
    assert abs(float((shown == 2).float().mean()) - 0.8) < 0.03
    same = float((shown == asked).float().mean())
    other = float(((shown != asked) & (shown != 2)).float().mean())
    assert abs(same - 0.1 - 0.1 / 16) < 0.02  # left, or swapped for itself
    assert abs(other - 0.1 * 15 / 16) < 0.02
    untouched = torch.ones_like(seen, dtype=torch.bool).scatter(1, place, ~live)
    assert torch.equal(seen[untouched], given.values[untouched])


def test_special_tokens_are_never_asked_for() -> None:
    head, _ = made("masked_tokens", texts(), "transformer", share=0.9)
    ids = torch.tensor([[2, 1, 7, 3, 0]])
    seen, _, (_, truth) = head.ask(texts().stem(), ColumnBatch(ids, ids > 0), NOTHING, draw(1))
    assert truth.sum() == 7
    assert seen[0, [0, 1, 3, 4]].tolist() == [2, 1, 3, 0]


def test_what_is_drawn_depends_on_seed_step_and_row_alone() -> None:
    head, _ = made("masked_tokens", texts(), "transformer")
    given, stem = tokens(20, 12, 4, 20), texts().stem()
    whole = head.ask(stem, given, NOTHING, draw(20)).values
    part = head.ask(stem, given.each(lambda x: x[5:9]), NOTHING, draw(4, first=5)).values
    assert torch.equal(whole[5:9], part)
    assert torch.equal(whole, head.ask(stem, given, NOTHING, draw(20)).values)
    assert not torch.equal(whole, head.ask(stem, given, NOTHING, draw(20, step=4)).values)


def test_masked_items_hide_the_newest_alone_in_some_rows() -> None:
    head, _ = made("masked_items", histories(), "transformer", newest=1.0)
    given = tokens(50, 12, 2, 18)
    assert given.mask is not None
    seen, _, (_, truth) = head.ask(histories().stem(), given, NOTHING, draw(50))
    last = given.mask.sum(1, keepdim=True) - 1
    assert torch.equal(truth.sum(1, keepdim=True), given.values.gather(1, last))
    assert (seen.gather(1, last) == 1).all()
    assert ((seen != given.values).sum(1) == 1).all()


def test_masked_patches_hide_whole_patches_and_their_truth_is_the_picture() -> None:
    column = pictures()
    head, encoder = made("masked_patches", column, "vit", normalise=False)
    given = ColumnBatch(torch.randint(0, 256, (6, 1, 12, 12), dtype=torch.uint8))
    seen, _, (truth, hidden) = head.ask(column.stem(), given, NOTHING, draw(6))
    standard = (given.values.float() - 100) / 50
    assert hidden.sum(1).tolist() == [5] * 6  # 0.6 of 9 patches of 4 x 4
    for row in range(6):
        for number in range(9):
            y, x = divmod(number, 3)
            patch = standard[row, :, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
            torch.testing.assert_close(truth[row, number], patch.flatten())
            shown = seen[row, :, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
            torch.testing.assert_close(shown, torch.zeros_like(patch) if hidden[row, number] else patch)
    # Painting all as the mean costs the mean square of what is hidden.
    for parameter in head.paint.parameters():
        torch.nn.init.zeros_(parameter)
    rows = head(encoder(seen)._replace(asked=(truth, hidden)))[:, 0]
    torch.testing.assert_close(rows, (truth.square().mean(-1) * hidden).sum(1) / 5)


@pytest.mark.parametrize(("encoder", "shrink"), [("gru", 1), ("conformer", 4)])
def test_masked_stretches_are_told_by_encoders_that_join_steps(encoder: str, shrink: int) -> None:
    column = series()
    head, network = made("masked_spectrogram", column, encoder, span=5, share=0.4)
    assert head.shrink == shrink
    values = torch.randn(3, 30, *column.blank(1)[0].shape[2:])
    mask = torch.arange(30) < torch.tensor([30, 17, 4])[:, None]
    seen, real, asked = head.ask(column.stem(), ColumnBatch(values, mask), NOTHING, draw(3))
    truth, hidden = asked
    assert not hidden[~mask].any()
    assert hidden.any(1).all()
    assert (seen[hidden] == 0).all()
    assert torch.equal(seen[~hidden], truth[~hidden])
    runs = hidden[0].view(6, 5)
    assert (runs.all(1) == runs.any(1)).all()  # whole stretches
    loss = head.loss(head(network(seen, real)._replace(asked=asked)), Tensor())
    assert loss.shape == (3,)
    assert loss.isfinite().all()


# What is counted ----------------------------------------------------------------------------------------------------


def test_the_loss_of_masked_tokens_is_the_mean_over_what_was_hidden() -> None:
    head, encoder = made("masked_tokens", texts(), "transformer")
    question = head.ask(texts().stem(), tokens(7, 12, 4, 20), NOTHING, draw(7))
    encoding = encoder.eval()(question.values, question.mask)._replace(asked=question.asked)
    rows = head(encoding)
    place, truth = question.asked
    for row in range(7):
        live = truth[row] > 0
        scores = head.scores(encoding.tokens[row, place[row][live]])
        torch.testing.assert_close(rows[row, 0], F.cross_entropy(scores, truth[row][live]))
        assert rows[row, 2] == (scores.argmax(-1) == truth[row][live]).sum()
        assert rows[row, 3] == live.sum()
    found = head.metrics(rows.detach(), Tensor(), pretext(texts()))
    assert found["perplexity"] == pytest.approx(
        math.exp(float((rows[:, 1].sum() / rows[:, 3].sum()).detach())), rel=1e-5
    )


def test_scores_share_the_table_of_the_encoder_and_do_not_own_it() -> None:
    head, encoder = made("masked_tokens", texts(), "transformer")
    before = head.scores(torch.ones(1, 16))
    with torch.no_grad():
        encoder.steps.embedding.weight += 1
    assert not torch.equal(before, head.scores(torch.ones(1, 16)))
    assert not any("embedding" in name for name in head.state_dict())


def test_nt_xent_is_the_formula() -> None:
    torch.manual_seed(1)
    z = torch.randn(10, 4)
    loss, _ = nt_xent(z, 0.5)
    near = torch.stack([torch.stack([F.cosine_similarity(a, b, dim=0) / 0.5 for b in z]) for a in z]).exp()
    each = [-math.log(near[i, (i + 5) % 10] / (near[i].sum() - near[i, i])) for i in range(10)]
    torch.testing.assert_close(loss, torch.tensor([(each[i] + each[i + 5]) / 2 for i in range(5)]))


def test_pairs_find_their_other_half_in_both_directions() -> None:
    torch.manual_seed(1)
    a, b = torch.randn(6, 4), torch.randn(6, 4)
    loss, right = in_batch(a, b, 0.1)
    near = F.cosine_similarity(a[:, None], b[None], dim=-1) / 0.1
    own = torch.arange(6)
    there, back = F.cross_entropy(near, own, reduction="none"), F.cross_entropy(near.T, own, reduction="none")
    torch.testing.assert_close(loss, (there + back) / 2)
    assert torch.equal(right, ((near.argmax(1) == own).float() + (near.argmax(0) == own).float()) / 2)
    assert in_batch(a, a, 0.1)[1].all()


def test_views_are_two_and_differ() -> None:
    column = pictures(16)
    head, encoder = made("views", column, "cnn")
    given = ColumnBatch(torch.randint(0, 256, (5, 1, 16, 16), dtype=torch.uint8))
    seen, mask, asked = head.ask(column.stem(), given, NOTHING, draw(5))
    assert seen.shape == (10, 1, 16, 16)
    assert not torch.equal(seen[:5], seen[5:])
    assert head(encoder(seen, mask)._replace(asked=asked)).shape == (5, 2)


def test_halves_of_unequal_length_are_read_as_if_alone() -> None:
    head, encoder = made("pairs", texts(), "transformer", paired=True)
    one, other = tokens(4, 12, 4, 20, 1), tokens(4, 7, 4, 20, 2)
    question = head.ask(texts().stem(), one, other, draw(4))
    both = encoder.eval()(question.values, question.mask).pooled
    alone = torch.cat([encoder(*one).pooled, encoder(*other).pooled])
    torch.testing.assert_close(both, alone)


# What does not fit ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "column", "encoder", "match"),
    [
        ("masked_tokens", histories, "transformer", "reads text, not history"),
        ("masked_patches", pictures, "cnn", "needs an encoder of patches"),
        ("pairs", texts, "transformer", "other halves"),
    ],
)
def test_what_cannot_be_learned_is_said(kind: str, column: Any, encoder: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        made(kind, column(), encoder)


def test_nothing_is_predicted_without_a_question() -> None:
    head, encoder = made("masked_tokens", texts(), "transformer")
    with pytest.raises(UsageError, match="predicts nothing"):
        head(encoder(torch.tensor([[4, 5]])))


def test_a_part_of_a_batch_draws_as_the_whole() -> None:
    batch = Batch({"x": ColumnBatch(torch.zeros(6, 2))}, torch.arange(6), moment=(1, 2))
    assert torch.equal(batch.draw.uniform(3)[2:4], batch.part(2, 4).draw.uniform(3))
    assert Batch(batch.columns, batch.rows).draw[1:] == (0, -1)
