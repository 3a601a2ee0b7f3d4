"""Texts from a model that says what comes next: beside enumeration of all texts, and by the laws of each rule."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zhixing.columns.vocabulary import END, PAD
from zhixing.heads.search import Search, drawn, search

FEW = settings(max_examples=40, deadline=None, derandomize=True)
WORDS = 3  # of the toy language, beside the four ids with a meaning
V = 4 + WORDS


class Toy:
    """Scores of the next token depend on the last two tokens and the row, by a fixed random table."""

    def __init__(self, table: torch.Tensor, rows: torch.Tensor, last: torch.Tensor, before: torch.Tensor) -> None:
        self.table, self.rows, self.last, self.before = table, rows, last, before

    @classmethod
    def make(cls, seed: int, rows: int) -> Toy:
        table = torch.randn(rows, V, V, V, generator=torch.Generator().manual_seed(seed)) * 2
        zeros = torch.zeros(rows, dtype=torch.int64)
        return cls(table, torch.arange(rows), zeros, zeros)

    def pick(self, rows: torch.Tensor) -> Toy:
        return Toy(self.table, self.rows[rows], self.last[rows], self.before[rows])

    def scores(self) -> torch.Tensor:
        return self.table[self.rows, self.before, self.last]


def advance(tokens: torch.Tensor, state: Toy) -> tuple[torch.Tensor, Toy]:
    after = Toy(state.table, state.rows, tokens, state.last)
    return after.scores(), after


def found(state: Toy, most: int, **how: object) -> torch.Tensor:
    return search(state.scores(), state, advance, Search(**how), most)


def spoken(row: list[int]) -> list[int]:
    return row[: row.index(END) + 1] if END in row else row


def log_probability(toy: Toy, row: int, text: list[int]) -> float:
    state, total = toy.pick(torch.tensor([row])), 0.0
    logits = state.scores()
    for token in text:
        scores = logits.clone()
        scores[:, :END] = float("-inf")
        total += float(scores.log_softmax(-1)[0, token])
        logits, state = advance(torch.tensor([token]), state)
    return total


def all_texts(most: int) -> list[list[int]]:
    words = range(END + 1, V)
    ended = [[*body, END] for size in range(most) for body in itertools.product(words, repeat=size)]
    return ended + [list(body) for body in itertools.product(words, repeat=most)]


@FEW
@given(st.integers(0, 999), st.sampled_from([0.0, 0.6, 1.0]))
def test_wide_beams_find_the_best_of_all_texts(seed, alpha) -> None:
    toy, most = Toy.make(seed, 2), 4
    got = found(toy, most, beams=200, length_penalty=alpha)
    for row in range(2):
        ranked = {
            tuple(text): log_probability(toy, row, text) / ((5 + len(text)) / 6) ** alpha for text in all_texts(most)
        }
        best = max(ranked.values())
        assert ranked[tuple(spoken(got[row].tolist()))] == pytest.approx(best, abs=1e-5)


@FEW
@given(st.integers(0, 999))
def test_greedy_takes_the_likeliest_each_time(seed) -> None:
    toy = Toy.make(seed, 3)
    got = found(toy, 6)
    for row in range(3):
        state, text = toy.pick(torch.tensor([row])), []
        logits = state.scores()
        while len(text) < 6 and END not in text:
            text.append(int(logits[0, END:].argmax()) + END)
            logits, state = advance(torch.tensor([text[-1]]), state)
        assert spoken(got[row].tolist()) == text
    assert torch.equal(got, found(toy, 6, temperature=0.7, top_k=1))
    assert torch.equal(got, found(toy, 6, temperature=0.7, top_p=1e-6))


@FEW
@given(st.integers(0, 999), st.integers(1, 5))
def test_batched_and_single_rows_give_the_same_texts(seed, beams) -> None:
    toy = Toy.make(seed, 4)
    together = found(toy, 7, beams=beams)
    for row in range(4):
        alone = found(toy.pick(torch.tensor([row])), 7, beams=beams)
        assert spoken(alone[0].tolist()) == spoken(together[row].tolist())


@FEW
@given(st.integers(0, 999), st.sampled_from([{}, {"beams": 3}, {"temperature": 1.0}, {"temperature": 2.0, "top_k": 2}]))
def test_after_the_end_there_is_padding_and_nothing_that_no_text_may_hold(seed, how) -> None:
    for row in found(Toy.make(seed, 5), 6, **how).tolist():
        text = spoken(row)
        assert all(token >= END for token in text)
        assert set(row[len(text) :]) <= {PAD}


def test_draws_follow_the_probabilities_and_their_limits() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0]).expand(20000, 4)
    rows = torch.arange(20000)

    def shares(**how: object) -> list[float]:
        got = drawn(logits, rows, 0, Search(**how))
        return (torch.bincount(got, minlength=4) / len(got)).tolist()

    def wanted(kept: int, temperature: float) -> list[float]:
        some = (logits[0, :kept] / temperature).softmax(0)
        return [*some.tolist(), *[0.0] * (4 - kept)]

    assert shares(temperature=1.0) == pytest.approx(wanted(4, 1.0), abs=0.015)
    assert shares(temperature=2.0) == pytest.approx(wanted(4, 2.0), abs=0.015)
    assert shares(temperature=1.0, top_k=2) == pytest.approx(wanted(2, 1.0), abs=0.015)
    assert shares(temperature=1.0, top_p=0.8) == pytest.approx(wanted(2, 1.0), abs=0.015)  # 0.64, then 0.88
    assert torch.equal(drawn(logits, rows, 3, Search(temperature=1)), drawn(logits, rows, 3, Search(temperature=1)))
    assert not torch.equal(drawn(logits, rows, 3, Search(temperature=1)), drawn(logits, rows, 4, Search(temperature=1)))


def test_a_penalty_on_repetition_breaks_a_loop() -> None:
    toy = Toy.make(0, 1)
    toy.table[:] = 0
    toy.table[..., END + 1] = 3.0
    toy.table[..., END + 2] = 2.5
    assert found(toy, 5)[0].tolist() == [END + 1] * 5
    assert set(found(toy, 5, repetition_penalty=2.0)[0].tolist()) > {END + 1}
    assert set(found(toy, 5, repetition_penalty=2.0, beams=2)[0].tolist()) > {END + 1}


def test_the_search_stops_when_all_texts_have_ended() -> None:
    toy, calls = Toy.make(0, 2), []
    toy.table[:] = 0
    toy.table[..., END] = 9.0

    def counted(tokens: torch.Tensor, state: Toy) -> tuple[torch.Tensor, Toy]:
        calls.append(1)
        return advance(tokens, state)

    for how in (Search(), Search(beams=1, temperature=1e-3)):
        assert search(toy.scores(), toy, counted, how, 50).tolist() == [[END], [END]]
    assert calls == []
