"""Labels of tokens: losses against torch's, metrics against scikit-learn and against entities found one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from torch import Tensor, nn

from zhixing.columns.labels import Labels
from zhixing.heads.labels import LabelsHead, entities, is_bio
from zhixing.models.encoding import Encoding, Spec
from zhixing.models.recurrent import LSTM
from zhixing.settings import settings_of

BIO = ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"]


def fitted(cells: list[list[str]]) -> Labels:
    column = Labels()
    column.role = "output"
    column.fit(pa.chunked_array([pa.array(cells)]), Path)
    return column


def words(count: int) -> Labels:
    return fitted([[f"c{number}"] * (1 + number) for number in range(count)])


def encoding(lengths: list[int], width: int = 6, most: int | None = None, seed: int = 0) -> Encoding:
    chance = torch.Generator().manual_seed(seed)
    mask = torch.arange(most or max(lengths)) < torch.tensor(lengths)[:, None]
    tokens = torch.randn(*mask.shape, width, generator=chance)
    return Encoding(tokens[:, 0], tokens, mask)


def targets(lengths: list[int], classes: int, most: int | None = None, seed: int = 1) -> Tensor:
    mask = torch.arange(most or max(lengths)) < torch.tensor(lengths)[:, None]
    return torch.randint(1, classes + 1, mask.shape, generator=torch.Generator().manual_seed(seed)) * mask


def ids(rows: list[list[int]]) -> Tensor:
    most = max(map(len, rows))
    return torch.tensor([row + [0] * (most - len(row)) for row in rows], dtype=torch.int64)


def head(column: Labels, **keywords: Any) -> LabelsHead:
    torch.manual_seed(0)
    return LabelsHead(6, column, **keywords)


# Prediction and loss


def test_a_prediction_knows_which_tokens_are_real() -> None:
    tagger, parts = head(words(3)), encoding([4, 2, 0])
    prediction = tagger(parts)
    assert prediction.shape == (3, 4, 4)
    assert parts.mask is not None
    torch.testing.assert_close(prediction[parts.mask][:, 1:], tagger.linear(parts.tokens[parts.mask]))
    probability = prediction.softmax(-1)
    assert (probability[..., 0] == (~parts.mask).float()).all()
    assert ((prediction.argmax(-1) > 0) == parts.mask).all()
    whole = tagger(parts._replace(mask=None))
    assert (whole.argmax(-1) > 0).all()
    halved = prediction.half()
    assert halved.isfinite().all()
    assert ((halved.argmax(-1) > 0) == parts.mask).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_a_row_is_the_mean_over_its_tokens(smoothing: float) -> None:
    tagger, parts, lengths = head(words(3), smoothing=smoothing), encoding([5, 2, 0, 1]), [5, 2, 0, 1]
    target = targets(lengths, 3)
    rows = tagger.loss(tagger(parts), target)
    assert rows.shape == (4,)
    for row, length in enumerate(lengths):
        if not length:
            assert rows[row] == 0
            continue
        logits = tagger.linear(parts.tokens[row, :length])
        expected = F.cross_entropy(logits, target[row, :length] - 1, label_smoothing=smoothing)
        torch.testing.assert_close(rows[row], expected)
    weights = tagger.row_weights(target)
    assert weights is not None
    assert weights.tolist() == lengths
    logits, known = tagger.linear(parts.tokens), target > 0
    expected = F.cross_entropy(logits[known], target[known] - 1, label_smoothing=smoothing)
    torch.testing.assert_close((rows * weights).sum() / weights.sum(), expected)  # each token counts the same


def test_balanced_classes_count_the_same() -> None:
    column = fitted([["a"] * 6 + ["b"] * 3 + ["c"]])
    tagger, parts, target = head(column, class_weights="balanced"), encoding([4, 3]), targets([4, 3], 3)
    rows, weights = tagger.loss(tagger(parts), target), tagger.row_weights(target)
    assert weights is not None
    known, share = target > 0, torch.tensor([10 / 18, 10 / 9, 10 / 3])
    torch.testing.assert_close(weights[0], share[target[0] - 1].sum())
    expected = F.cross_entropy(tagger.linear(parts.tokens[known]), target[known] - 1, weight=share)
    torch.testing.assert_close((rows * weights).sum() / weights.sum(), expected)
    assert not any("weight" in key for key in tagger.state_dict() if not key.startswith("linear"))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7)), min_size=1, max_size=4), st.integers(0, 2))
def test_only_tokens_that_were_read_and_have_a_label_count(lengths: list[tuple[int, int]], more: int) -> None:
    """Texts may be cut and each column is padded by itself: a row's loss is that of the tokens which both have."""
    read, given_ = ([pair[place] for pair in lengths] for place in (0, 1))
    tagger = head(words(3))
    parts, target = encoding(read, most=max(1, *read)), targets(given_, 3, most=max(given_) + more)
    prediction = tagger(parts)
    rows, codes = tagger.loss(prediction, target), tagger.keep(prediction, target)
    rights = total = 0
    for row, both in enumerate(map(min, lengths)):
        logits, truth = tagger.linear(parts.tokens[row, :both]), target[row, :both] - 1
        torch.testing.assert_close(rows[row], F.cross_entropy(logits, truth) if both else torch.tensor(0.0))
        rights, total = rights + int((logits.argmax(-1) == truth).sum()), total + both
    rows.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in tagger.parameters())
    found = tagger.metrics(codes, target, words(3))
    assert found == {} if not total else found["token_accuracy"] == pytest.approx(rights / total)
    unread = sum(max(0, labels - tokens) for tokens, labels in lengths)
    assert tagger.examine(codes, target, words(3))["unread_labels"] == unread


def test_garbage_behind_a_row_reaches_no_gradient() -> None:
    tagger, parts, target = head(words(3)), encoding([4, 2, 0]), targets([4, 4, 4], 3)
    tokens = parts.tokens.clone().requires_grad_()
    tagger.loss(tagger(parts._replace(tokens=tokens)), target).sum().backward()
    assert tokens.grad is not None
    assert parts.mask is not None
    assert not tokens.grad[~parts.mask].any()
    assert tokens.grad[parts.mask].any(1).all()


# Answers


def test_an_answer_has_a_class_for_each_token_of_the_text() -> None:
    column = words(3)
    tagger, parts = head(column), encoding([3, 1, 0])
    prediction = tagger.answer(parts)
    longer = F.pad(prediction, (0, 0, 0, 2))  # rows of several batches are brought to one length with zeros
    decoded = tagger.decode(longer, column, probabilities=True)
    assert list(map(len, decoded[""])) == [3, 1, 0]
    best = tagger.linear(parts.tokens).softmax(-1)
    for row, length in enumerate([3, 1, 0]):
        assert decoded[""][row] == [column.classes[i] for i in best[row, :length].argmax(-1)]
        assert decoded["probability"][row] == pytest.approx(best[row, :length].amax(-1).tolist(), abs=1e-5)
        each = [decoded[f"probability_{name}"][row] for name in column.classes]
        assert torch.tensor(each).sum(0).tolist() == pytest.approx([1.0] * length, abs=1e-5)
    assert "probability_c0" not in tagger.decode(prediction, column)
    json.dumps(decoded)


def test_settings_and_what_the_head_reads() -> None:
    assert (LabelsHead.reads, LabelsHead.goal, LabelsHead.higher) == ("tokens", "token_accuracy", True)
    model = settings_of(LabelsHead, name="labels")
    assert all(field.description for key, field in model.model_fields.items() if key != "name")


def test_a_baseline_says_how_often_classes_are() -> None:
    column = fitted([["a"] * 6 + ["b"] * 3 + ["c"]])
    tagger = head(column)
    tagger.baseline(column)
    torch.testing.assert_close(tagger.linear.bias.detach().softmax(0), torch.tensor([0.6, 0.3, 0.1]))


# Metrics


def test_metrics_are_scikit_learns() -> None:
    column, lengths = words(4), [7, 3, 1, 5, 6]
    tagger = head(column)
    truth, said = targets(lengths, 3), targets(lengths, 4, seed=5)  # the last class is said though it is never true
    truth[2] = said[2]
    found, real = tagger.metrics(said, truth, column), truth > 0
    assert found["token_accuracy"] == pytest.approx(sk.accuracy_score(truth[real], said[real]))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(truth[real], said[real], average="macro"))
    assert found["sequence_accuracy"] == pytest.approx(1 / 5)
    assert set(found) == {"token_accuracy", "macro_f1", "sequence_accuracy"}
    details = tagger.examine(said, truth, column)
    precision, recall, f1, rows = sk.precision_recall_fscore_support(
        truth[real], said[real], labels=[1, 2, 3, 4], zero_division=0
    )
    for number, row in enumerate(details["per_class"]):
        assert row["class"] == f"c{number}"
        assert row["tokens"] == rows[number]
        figures = [row["precision"], row["recall"], row["f1"]]
        assert figures == pytest.approx([precision[number], recall[number], f1[number]], abs=1e-6)
    json.dumps((found, details), allow_nan=False)


def found_by_hand(row: list[str]) -> set[tuple[int, int, str]]:
    """(first, last + 1, type) of each entity, read from left to right."""
    out, first, kind = set(), 0, ""
    for place, name in enumerate([*row, "O"]):
        tag, _, here = name.partition("-")
        if kind and (tag != "I" or here != kind):
            out.add((first, place, kind))
            kind = ""
        if tag == "B" or (tag == "I" and not kind):
            first, kind = place, here
    return out


tagged = st.lists(st.lists(st.tuples(st.sampled_from(BIO), st.sampled_from(BIO)), max_size=8), min_size=1, max_size=4)


@settings(deadline=None, max_examples=150)
@given(tagged)
def test_entities_are_those_found_one_by_one(rows: list[list[tuple[str, str]]]) -> None:
    column = fitted([BIO])
    assert column.classes == BIO
    both: list[Tensor] = []
    sets = []
    for place in (0, 1):
        names = [[pair[place] for pair in row] for row in rows]
        both.append(ids([[BIO.index(name) + 1 for name in row] for row in names]))
        sets.append({(row, *one) for row, tags in enumerate(names) for one in found_by_hand(tags)})
        assert len(entities(both[-1], BIO)) == len(sets[-1])
    truth, said = sets
    found = head(column).metrics(both[1], both[0], column)
    if not any(rows):
        assert found == {}
        return
    right = len(truth & said)
    precision = right / len(said) if said else float(not truth)
    recall = right / len(truth) if truth else float(not said)
    f1 = 2 * right / (len(said) + len(truth)) if said or truth else 1.0
    figures = [found["entity_precision"], found["entity_recall"], found["entity_f1"]]
    assert figures == pytest.approx([precision, recall, f1])


@pytest.mark.parametrize(("row", "expected"), [
    ("O O O", set()),
    ("B-PER I-PER O", {(0, 2, "PER")}),
    ("B-PER B-PER", {(0, 1, "PER"), (1, 2, "PER")}),
    ("B-PER I-LOC I-LOC", {(0, 1, "PER"), (1, 3, "LOC")}),
    ("I-PER I-PER B-PER", {(0, 2, "PER"), (2, 3, "PER")}),
])  # fmt: skip
def test_the_rule_by_examples(row: str, expected: set[tuple[int, int, str]]) -> None:
    assert found_by_hand(row.split()) == expected
    code = torch.tensor([[BIO.index(name) + 1 for name in row.split()]])
    assert len(entities(code, BIO)) == len(expected)
    assert len(entities(code.repeat(3, 1), BIO)) == 3 * len(expected)


@pytest.mark.parametrize(("classes", "yes"), [
    (BIO, True), (["B-X"], True), (["I-X", "O"], True), (["O"], False), (["B-"], False), (["NOUN", "VERB"], False),
    (["B-X", "I-X", "O", "S-X"], False), (["o", "B-X"], False),
])  # fmt: skip
def test_which_classes_are_tags_of_entities(classes: list[str], yes: bool) -> None:
    assert is_bio(classes) is yes


# Learning


def test_tags_that_depend_on_the_neighbour_are_learned() -> None:
    """A word is a name if a title stands before it: B-PER for the title, I-PER for the name, O for all else."""
    column = fitted([["B-PER", "I-PER", "O"]])
    torch.manual_seed(0)
    encoder = LSTM(Spec("tokens", (8,), 12), width=16, embedding=8)
    tagger = LabelsHead(encoder.token_width, column)
    tagger.baseline(column)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *tagger.parameters()], lr=1e-2)

    def batch(seed: int, rows: int) -> tuple[Tensor, Tensor]:
        chance = torch.Generator().manual_seed(seed)
        length = torch.randint(1, 9, (rows, 1), generator=chance)
        tokens = torch.randint(1, 12, (rows, 8), generator=chance) * (torch.arange(8) < length)
        title = tokens == 1
        after = F.pad(title, (1, 0))[:, :-1]
        tags = torch.where(title, 1, torch.where(after, 2, 3)) * (tokens > 0)
        return tokens, tags

    for step in range(120):
        tokens, tags = batch(step, 64)
        rows, weights = tagger.loss(tagger(encoder(tokens)), tags), tagger.row_weights(tags)
        assert weights is not None
        optimizer.zero_grad()
        (rows * weights / weights.sum()).sum().backward()
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
    tokens, tags = batch(10**6, 300)
    with torch.inference_mode():
        prediction = tagger(encoder(tokens))
        found = tagger.metrics(tagger.keep(prediction, tags), tags, column)
    assert found["token_accuracy"] > 0.98
    assert found["entity_f1"] > 0.95
    assert tagger.decode(prediction, column)[""][0] == column.restore(tags[:1])[0]
