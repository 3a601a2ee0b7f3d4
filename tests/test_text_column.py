"""Text: lossless where it is said to be, the same in any number of threads, and nothing dropped in silence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from column_cells import done, fit, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor

from zhixing.columns.category import Category
from zhixing.columns.segment import cut_words, join_words, segmentation
from zhixing.columns.text import PORTION, Text, portions
from zhixing.columns.tokenizer_plain import Characters
from zhixing.columns.tokenizer_subword import BytePairs
from zhixing.columns.tokenizers import BEGIN, END, PAD, TOKENIZERS, UNKNOWN, choose, enough
from zhixing.columns.vocabulary import commonest, ids_of
from zhixing.errors import DataError, RunError

FEW = settings(max_examples=60, deadline=None, derandomize=True)
ENGLISH = [
    "The cat sat on the mat.",
    "A dog's breakfast: the dog ate it all!",
    "Don't ask why the cat ran from the dog",
    "on the log sat a cat and a dog",
    "Ünïcode naïve café — “quoted” 😀👍🏽",
]
CHINESE = ["我来到北京清华大学。", "他来到了网易杭研大厦", "我们中出了一个叛徒，请小心！", "北京大学的学生在清华大学"]
ODD = [None, "", "  ", "\0", "a\0b", "[padding] [unknown] ##the <s> <0x41>", "🧑‍🚀" * 30, "x" * 3000, "\u2028\r\n\t"]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)  # no lone surrogates: they are not UTF-8


def fitted(cells: Any, role: str = "input", **keywords: Any) -> Text:
    return fit(Text(**keywords), cells, role)


@cache
def column_of(tokenizer: str, role: str = "input") -> Text:
    return fitted(ENGLISH + CHINESE, role, tokenizer=tokenizer, length=5000)


def padded(rows: list[list[int]]) -> torch.Tensor:
    width = max(map(len, rows), default=0) + 2
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows], dtype=torch.int64)


def back(column: Text, cells: list[Any]) -> list[Any]:
    return column.restore(padded(rows_of(done(column, pa.array(cells, pa.string())))))


# --- the contract


@pytest.mark.parametrize("role", ["input", "output"])
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_contract(tokenizer, role) -> None:
    column = column_of(tokenizer, role)
    cells = pa.array([*ODD, *ENGLISH, *CHINESE, *ODD], pa.string())
    result = done(column, cells)
    rows, bad, spec = rows_of(result), len(ODD), column.spec()
    assert (spec.kind, spec.shape, spec.vocabulary) == ("tokens", (5000,), column.vocabulary_size)
    assert (result.values.dtype, len(rows), result.present.dtype) == (np.int32, len(cells), bool)
    # ids within the vocabulary, padding never in a row, an end where an output ends and nowhere else
    assert (result.values > PAD).all()
    assert (result.values < spec.vocabulary).all()
    assert BEGIN not in result.values
    assert [row.count(END) for row in rows] == [int(role == "output" and cell.is_valid) for cell in cells]
    # what is missing has no tokens; what is empty is told of, or is not there
    assert all(bool(row) == there for row, there in zip(rows, result.present.tolist(), strict=True))
    assert result.present[bad:-bad].all()
    assert result.present[:3].tolist() == ([False, True, True] if role == "output" else [False, False, bool(rows[2])])
    told = {finding.index: (finding.kind, finding.reason) for finding in result.findings}
    assert told.keys().isdisjoint(range(bad, len(cells) - bad))
    assert (1 in told, 0 in told) == (role == "output", False)
    assert (2 in told) == result.present[2]
    assert all(kind == "suspect" for kind, _ in told.values())
    # the state, through JSON, in a column made from its own settings
    twin = Text(**json.loads(json.dumps(column.settings())))
    twin.role = column.role
    twin.load_state(json.loads(json.dumps(column.state(), allow_nan=False)))
    assert (twin.state(), twin.settings(), twin.stored_as()) == (column.state(), column.settings(), column.stored_as())
    again = done(twin, cells)
    np.testing.assert_array_equal(again.values, result.values)
    np.testing.assert_array_equal(again.lengths, result.lengths)
    assert again.findings == result.findings
    # any cut of the cells gives the same rows, in any number of threads
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda start: done(column, cells[start : start + 3]), range(0, len(cells), 3)))
    assert [row for part in parts for row in rows_of(part)] == rows
    np.testing.assert_array_equal(np.concatenate([part.present for part in parts]), result.present)
    assert sum(len(part.findings) for part in parts) == len(result.findings)
    none = done(column, cells[:0])
    assert (none.values.shape, none.lengths.shape, none.values.dtype) == ((0,), (0,), np.int32)
    # for a person
    assert len(column.restore(padded(rows))) == len(cells)
    assert all(len(column.show(torch.tensor(row))["text"]) <= 300 for row in rows)
    assert all(isinstance(word, str) for word in column.tokens_of([PAD, END, *rows[bad]]))
    assert json.loads(json.dumps(column.summary()))["tokenizer"] == tokenizer
    values, mask = column.blank(2)
    assert (values.shape, mask.all().item()) == ((2, 5000), True)


@pytest.mark.parametrize("role", ["input", "output"])
@pytest.mark.parametrize("cells", [[], [None], [""], [[]], [None, [None]]])
def test_no_text_in_training_is_an_error(cells, role) -> None:
    kind = pa.list_(pa.string()) if any(isinstance(cell, list) for cell in cells) else pa.string()
    with pytest.raises(DataError, match="no training row holds a text"):
        fitted(pa.array(cells, kind), role)


def test_bytes_are_read_as_text_and_told_of_where_they_are_not() -> None:
    plain = column_of("word")
    column = fitted(pa.array([cell.encode() for cell in ENGLISH + CHINESE]), tokenizer="word", length=5000)
    assert column.state() == plain.state()
    result = done(column, pa.array([b"the cat", b"\xff\xfe", None]))
    assert [(finding.index, finding.kind) for finding in result.findings] == [(1, "broken")]
    assert result.present.tolist() == [True, False, False]
    assert back(plain, ["the cat"]) == [column.restore(padded(rows_of(result)))[0]]


# --- back to text


@FEW
@given(texts=st.lists(TEXTS, min_size=1, max_size=4), form=st.sampled_from(["none", "nfc", "nfkc"]))
@pytest.mark.parametrize("role", ["input", "output"])
@pytest.mark.parametrize("tokenizer", ["byte", "bpe"])
def test_bytes_are_lossless(tokenizer, role, texts, form) -> None:
    column = column_of(tokenizer, role)
    column.normalise = form
    assigned = [t for t in texts if all(unicodedata.category(c) != "Cn" for c in t)]  # two tables of Unicode agree
    want = assigned if form == "none" else [unicodedata.normalize(form.upper(), text) for text in assigned]
    try:
        assert back(column, assigned) == want
    finally:
        column.normalise = "nfc"


@FEW
@given(text=TEXTS)
def test_sentencepiece_is_lossless_but_for_its_space(text) -> None:
    column = column_of("sentencepiece")
    assert back(column, [text]) == [unicodedata.normalize("NFC", text).replace("▁", " ")]


@FEW
@given(text=TEXTS)
@pytest.mark.parametrize("tokenizer", ["word", "character", "wordpiece"])
def test_any_text_has_ids_within_the_vocabulary(tokenizer, text) -> None:
    column = column_of(tokenizer)
    (row,) = rows_of(done(column, pa.array([text])))
    assert all(PAD < token < column.vocabulary_size and token not in (BEGIN, END) for token in row)
    assert isinstance(column.restore(torch.tensor([row], dtype=torch.int64).reshape(1, -1))[0], str)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_training_text_comes_back(tokenizer) -> None:
    column = fitted(["the cat sat, and the dog ran!", "你好，北京。"] * 3, "output", tokenizer=tokenizer)
    assert back(column, ["the cat ran!", "北京，你好。"]) == ["the cat ran!", "北京，你好。"]


def test_what_follows_the_end_is_no_text() -> None:
    column = column_of("character", "output")
    row = rows_of(done(column, ["the cat"]))[0]
    assert row[-1] == END
    assert column.restore(torch.tensor([[BEGIN, *row, *row, PAD]])) == ["the cat"]


# --- what is learned


@pytest.mark.parametrize("tokenizer", ["word", "character"])
def test_only_training_rows_are_known(tokenizer) -> None:
    column = fitted(["a b c", "a b"], tokenizer=tokenizer)
    assert rows_of(done(column, ["b z"]))[0].count(UNKNOWN) == 1
    assert column.tokens_of(rows_of(done(column, ["bz" if tokenizer == "character" else "b z"]))[0]) == [
        "b",
        "[unknown]",
    ]


def test_the_rare_are_unknown_and_counted() -> None:
    column = fitted(["a a b", "a b c d"], tokenizer="word", at_least=2)
    assert column.codec.state()["entries"] == ["a", "b"]
    assert column.summary()["unknown tokens"] == pytest.approx(2 / 7, abs=1e-4)
    assert (column.summary()["longest"], column.summary()["median length"]) == (4, 3.5)


@pytest.mark.parametrize("tokenizer", ["word", "character", "bpe", "wordpiece"])
def test_the_vocabulary_is_no_larger_than_asked(tokenizer) -> None:
    column = fitted(ENGLISH * 20, tokenizer=tokenizer, vocabulary=300)
    assert column.vocabulary_size <= 300
    small = fitted(ENGLISH * 20, tokenizer=tokenizer, vocabulary=20)
    assert small.vocabulary_size <= (260 if tokenizer == "bpe" else 20)  # bytes are all there


def test_too_few_pieces_are_an_error_that_says_so() -> None:
    with pytest.raises(DataError, match=r"vocabulary"):
        fitted(ENGLISH, tokenizer="sentencepiece", vocabulary=20)


@pytest.mark.parametrize("text", ["a", "\0", "\n", " ", "北", "😀", "\0\0a"])
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_the_smallest_table(tokenizer, text) -> None:
    column = fitted([text], "output", tokenizer=tokenizer)
    assert column.spec().shape == (len(done(column, [text]).values),)
    if tokenizer in ("byte", "bpe", "character", "sentencepiece"):
        assert back(column, [text]) == [text]


SCRIPT = """
import hashlib, json, sys
from pathlib import Path
import pyarrow as pa
from zhixing.columns.text import Text
words = [f"{a}{b}{c}" for a in "xyzäж" for b in "aeiou京" for c in "klmn#"]
rows = [" ".join(words[(i * 7 + j * j) % len(words)] for j in range(12)) for i in range(200)]
for tokenizer in ("word", "character", "bpe", "wordpiece", "sentencepiece"):
    column = Text(tokenizer=tokenizer, vocabulary=500)
    column.fit(pa.chunked_array([rows]), Path)
    print(tokenizer, hashlib.sha256(json.dumps(column.state(), sort_keys=True).encode()).hexdigest())
"""


def test_the_same_rows_give_the_same_vocabulary_in_any_process() -> None:
    told = []
    for threads in ("1", "4", "4"):
        surroundings = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads, "OMP_NUM_THREADS": "1"}
        ran = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=surroundings, capture_output=True, text=True, check=True
        )
        told.append(ran.stdout.splitlines())
    assert len(told[0]) == 5
    assert told[0] == told[1] == told[2]


def test_a_sentencepiece_model_is_one_for_its_library() -> None:
    column = column_of("sentencepiece")
    processor: Any = SentencePieceProcessor(model_proto=column.codec.model)  # type: ignore[attr-defined]
    assert rows_of(done(column, ENGLISH)) == processor.encode(ENGLISH)
    assert (processor.pad_id(), processor.unk_id(), processor.bos_id(), processor.eos_id()) == (
        PAD,
        UNKNOWN,
        BEGIN,
        END,
    )


def test_a_damaged_state_is_told_of() -> None:
    for tokenizer, key, wrong in (("bpe", "json", {"model": {}}), ("sentencepiece", "model", "AAAA")):
        column = Text(tokenizer=tokenizer, length=5)  # type: ignore[arg-type]
        with pytest.raises(RunError, match="cannot be read back"):
            column.load_state({**column_of(tokenizer).state(), "tokenizer": {key: wrong}})


def test_pairs_are_merged_by_count() -> None:
    column = fitted(["ab ab ab abc abc"] * 3, tokenizer="bpe")
    assert isinstance(column.codec, BytePairs)
    assert column.tokens_of(rows_of(done(column, ["ab xab"]))[0]) == ["ab", " ", "x", "ab"]


# --- length


@pytest.mark.parametrize("role", ["input", "output"])
def test_a_long_text_is_cut_and_told_of(role) -> None:
    column = fitted(["a b c", "d"], role, tokenizer="word", length=2)
    result = done(column, ["a b c", "a b", "a", "d c b a"])
    end = role == "output"
    assert [len(row) for row in rows_of(result)] == [2, 2, 1 + end, 2]
    assert [row[-1] == END for row in rows_of(result)] == [False, False, end, False]
    assert [(f.index, f.kind, f.reason) for f in result.findings] == [
        (row, "suspect", f"{count + end} tokens, of which the first 2 are kept")
        for row, count in ((0, 3), (1, 2), (3, 4))
        if count + end > 2
    ]


def test_the_length_is_the_longest_of_training_rows_up_to_512() -> None:
    assert fitted(["a b c", "a"], tokenizer="word").settings()["length"] == 3
    assert fitted(["a b c", "a"], "output", tokenizer="word").settings()["length"] == 4
    assert fitted(["x" * 2000], tokenizer="byte").settings()["length"] == 512
    assert fitted(["x" * 2000], tokenizer="byte", length=1999).spec().shape == (1999,)


def test_portions_hold_all_texts_and_not_too_many() -> None:
    texts = ["x" * (PORTION // 3 + 1)] * 7 + ["", "y"] + ["z" * 3 * PORTION, "e"]
    parts = list(portions(texts))
    assert [text for part in parts for text in part] == texts
    assert all(sum(map(len, part[:-1])) < PORTION for part in parts)
    assert list(portions([])) == []


# --- what is chosen


def test_the_tokenizer_is_chosen_from_the_data_and_written_back() -> None:
    long = ENGLISH * 800
    assert sum(map(len, long)) > 100_000
    for cells, role, want in (
        (ENGLISH, "input", "word"),
        (ENGLISH, "output", "character"),
        (long, "input", "bpe"),
        (long, "output", "bpe"),
        (CHINESE, "input", "character"),
        (CHINESE * 3000, "output", "character"),
        (["ภาษาไทยไม่มีช่องว่าง"], "input", "character"),
        (["한국어는 띄어쓰기를 한다"], "input", "word"),
    ):
        assert choose(cells, role) == want, (cells[0], role)
    column = fitted(ENGLISH)
    assert column.settings() == {**Text(tokenizer="word").settings(), "segment": "none", "length": 10}


def test_very_much_text_is_drawn_from_the_same_way_each_time(monkeypatch) -> None:
    monkeypatch.setattr("zhixing.columns.tokenizers.ENOUGH", 1000)
    texts = [f"{i:010}" for i in range(1000)]
    drawn = enough(texts)
    assert 50 < len(drawn) < 200
    assert drawn == enough(texts)
    assert set(drawn) < set(texts)
    assert enough(["x" * 5000]) == ["x" * 5000]  # never none


def test_claims() -> None:
    def score(cells: list[Any]) -> float:
        claim = Text.claims(pa.chunked_array([pa.array(cells)]), "x")
        return claim.score if claim else 0.0

    prose = [f"the {a} cat sat on the {b} mat" for a in "abcdefgh" for b in "klmnopq"]
    assert score(prose) == score(CHINESE) == 0.55
    rival = Category.claims(pa.chunked_array([prose[:15]]), "x")
    assert rival is not None
    assert rival.score < score(prose[:15])
    assert score(["cat", "dog", "cow"]) == 0  # words
    assert score(["the cat sat", "the dog ran"] * 50) == 0  # classes
    assert score([f"{i} {i + 1} {i + 2} {i + 3}" for i in range(50)]) == 0  # numbers
    assert score([["the", "cat", "sat"]] * 5) == 0
    assert score([None, ""]) == 0
    assert score([1, 2, 3]) == 0


# --- words


@pytest.mark.parametrize(
    ("text", "segment", "words"),
    [
        ("Don't panic, 北京大学!", "character", ["Don't", "panic", ",", "北", "京", "大", "学", "!"]),
        ("Don't panic, 北京大学!", "none", ["Don't", "panic", ",", "北京大学", "!"]),
        ("我来到北京清华大学", "rjieba", ["我", "来到", "北京", "清华大学"]),
        ("iPhone手机 很好", "rjieba", ["iPhone", "手机", "很", "好"]),
        ("नमस्ते दुनिया", "none", ["नमस्ते", "दुनिया"]),  # vowel signs belong to their word
        ("e\u0301te\u0301 l’e\u0301te\u0301", "character", ["e\u0301te\u0301", "l’e\u0301te\u0301"]),
        ("  ", "none", []),
        ("", "rjieba", []),
        ("a_b 1,5 x@y.z", "none", ["a_b", "1", ",", "5", "x", "@", "y", ".", "z"]),
    ],
)
def test_words_are_cut(text, segment, words) -> None:
    assert cut_words(text, segment) == words


@FEW
@given(text=TEXTS, segment=st.sampled_from(["none", "character", "rjieba"]))
def test_cutting_loses_nothing_but_white_space(text, segment) -> None:
    assert "".join(cut_words(text, segment)) == "".join(text.split())


def test_words_are_joined_as_usual() -> None:
    for text in ("Hello, world! (Really?)", "他来到了网易，真好。", "see 北京 now"):
        assert join_words(cut_words(text, "character")) == text


def test_segmentation_by_script() -> None:
    assert [segmentation(cells) for cells in (ENGLISH, CHINESE, ["これは日本語の文です"], ["..."])] == [
        "none",
        "rjieba",
        "character",
        "none",
    ]
    column = fitted(CHINESE, tokenizer="word")
    assert column.segment == "rjieba"
    assert column.tokens_of(rows_of(done(column, ["北京清华大学"]))[0]) == ["北京", "清华大学"]


def test_capital_letters_and_forms() -> None:
    column = fitted(["ＡＢＣ Éa", "abc e\u0301a"], tokenizer="word", normalise="nfkc", lowercase=True)
    assert column.codec.state()["entries"] == ["abc", "éa"]


# --- lists of words


@pytest.mark.parametrize("role", ["input", "output"])
def test_lists_of_words_keep_one_token_a_word(role) -> None:
    cells = [["New York", "is", "", "far"], ["far"], None, [], ["is", None, "new", "北京大学"]]
    kind = pa.list_(pa.string())
    column = fitted(pa.array(cells, kind), role)
    assert (column.settings()["tokenizer"], column.settings()["segment"]) == ("word", "none")
    result = done(column, pa.array(cells, kind))
    end = role == "output"
    assert [len(row) for row in rows_of(result)] == [4 + end, 1 + end, 0, 0 + end, 4 + end]
    assert result.present.tolist() == [True, True, False, end, True]
    restored = column.restore(padded(rows_of(result)))
    assert restored == [["New York", "is", "", "far"], ["far"], [], [], ["is", "[unknown]", "new", "北京大学"]]
    assert [(f.index, f.reason) for f in result.findings] == ([(3, "empty text")] if end else [])


def test_lists_of_bytes_behind_masked_and_fixed_lists() -> None:
    column = fitted(pa.array([["a", "b"], ["c"]]))
    broken = done(column, pa.array([[b"a", b"\xff"], [b"c"], None], pa.list_(pa.binary())))
    assert [(f.index, f.kind) for f in broken.findings] == [(0, "broken")]
    assert rows_of(broken) == [[], rows_of(done(column, [["c"]]))[0], []]
    words = pa.array(["a", "b", "c", "a"])
    hidden = pa.ListArray.from_arrays(pa.array([0, 1, 3, 4]), words, mask=pa.array([False, True, False]))
    assert [len(row) for row in rows_of(done(column, hidden))] == [1, 0, 1]
    fixed = pa.array([["a", "b"], None, ["c", "a"]], pa.list_(pa.string(), 2))
    assert [len(row) for row in rows_of(done(column, fixed))] == [2, 0, 2]


def test_lists_of_words_need_the_tokenizer_word() -> None:
    with pytest.raises(DataError, match="lists of words"):
        fitted(pa.array([["a", "b"]]), tokenizer="bpe")
    with pytest.raises(DataError, match="lists of words"):
        done(column_of("byte"), pa.array([["a"]]))
    with pytest.raises(DataError, match="hold no text"):
        fitted(pa.array([{"a": 1}]))


# --- small parts


def test_numbers_are_text_when_asked() -> None:
    assert back(fitted(pa.array([10, 25, None]), tokenizer="character"), ["25"]) == ["25"]


@FEW
@given(st.dictionaries(st.text(max_size=3), st.integers(1, 5), max_size=8), st.integers(0, 9), st.integers(1, 4))
def test_commonest(counts, most, at_least) -> None:
    chosen = commonest(counts, most, at_least)
    left = sorted((w for w in counts if counts[w] >= at_least and w not in chosen), key=lambda w: (-counts[w], w))
    assert len(chosen) == min(most, sum(count >= at_least for count in counts.values()))
    assert all((-counts[a], a) < (-counts[b], b) for a, b in zip(chosen, [*chosen[1:], *left[:1]], strict=False))


def test_ids_of_words_and_of_characters_agree() -> None:
    entries = ["b", "a", "京", "😀", "\0"]
    text = "ab京x😀\0\n"
    want = [entries.index(c) + 4 if c in entries else UNKNOWN for c in text]
    assert ids_of(pa.array(list(text)), entries, first=4, unknown=UNKNOWN).tolist() == want
    assert Characters(entries).encode([text, ""])[0].tolist() == want
