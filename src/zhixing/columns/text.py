"""``text``: prose, read as a row of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from ..errors import DataError
from .column import (
    Claim,
    Column,
    Finding,
    Locate,
    Spec,
    Tensorized,
    Wire,
    is_bytes,
    is_list,
    is_text,
    sample,
    text_of,
    whole,
)
from .ragged import append, first, flags, keep_rows, list_lengths, owners, prepend
from .segment import HAN, KANA, is_of, segmentation
from .template import fitting
from .text_forms import FORMS, Form, holds_pairs
from .tokenizers import ALL, Plan, Tokenizer, Words, choose, enough, load
from .vocabulary import BEGIN, END, PAD, SPECIAL, UNKNOWN, commonest

__all__ = ["Text"]

MOST = 512  # tokens of a row, where nothing else is asked for
BLOCK = 256  # the same, where texts are packed
PORTION = 2**20  # characters that a tokenizer is given at a time
SHOWN = 300  # characters
WHOLE = 1 << 30  # tokens: room for all


class Cells(NamedTuple):
    """Cells read: a text each, or the words of all texts behind each other with ``lengths`` [N] of them.

    ``null`` [N] is True where a cell is missing or cannot be read.
    """

    strings: pa.Array
    lengths: NDArray[np.int64] | None
    null: NDArray[np.bool_]
    findings: list[Finding]


class Text(Column):
    """Prose as a row of tokens. A list of strings in a cell is a text that is already cut into words.

    The tokenizer learns from training rows alone, drawn at random where they hold more than 33 million characters.
    Left open, it is ``character`` where most letters are of a script without spaces (Chinese, Japanese, Thai);
    ``bpe`` where training rows hold 100,000 characters, from which pairs of bytes can be counted; and where there is
    less text, ``word`` for an input and ``character`` for an output. Lists of words are always ``word``: one token
    each, so that labels can stand beside them.

    ==============  ===================================================  =================
    tokenizer       tokens                                               comes back
    ==============  ===================================================  =================
    word            words and punctuation marks                          spaced as usual
    character       Unicode characters                                   exactly, if known
    byte            bytes of UTF-8                                       exactly
    bpe             common strings of bytes                              exactly
    wordpiece       words, rare ones in pieces                           spaced as usual
    sentencepiece   common strings of characters, rare ones in bytes     exactly, but U+2581
    published       those of published weights, which come with them     as these have it
    ==============  ===================================================  =================

    The ids are 0 padding, 1 unknown, 2 begin, 3 end, then the vocabulary. The texts of an output end with an end token,
    so that a model can learn where to stop: an empty text is that token alone. A longer text than ``length`` is kept
    cut, and told of; then it has no end.

    With a ``template``, a cell of an input is what a user says, or a conversation: a list of ``{role, content}`` that
    ends with the user. Its tokens are those that a chat goes on from, up to where the answer begins. A cell of an
    output may be a pair ``{chosen, rejected}``: the tokens of the other text then stand behind those of the preferred
    one, negative.

    >>> from pathlib import Path
    >>> column = Text(tokenizer="word")
    >>> column.fit(pa.chunked_array([["the cat sat", "the dog"]]), Path)
    >>> column.tensorize(pa.array(["the cow sat"]), Path).values.tolist()
    [4, 1, 7]
    """

    type = "text"
    kind = "tokens"

    def __init__(
        self,
        *,
        tokenizer: Annotated[
            Literal["word", "character", "byte", "bpe", "wordpiece", "sentencepiece", "published"] | None,
            Field(description="what a token is; left open, chosen by the script and the amount of training text"),
        ] = None,
        vocabulary: Annotated[
            int, Field(ge=8, description="most different tokens; little text gives fewer, and byte has 260 always")
        ] = 8000,
        normalise: Annotated[
            Literal["nfkc", "nfc", "none"],
            Field(description="Unicode form: nfc changes nothing that is seen; nfkc also makes wide letters narrow"),
        ] = "nfc",
        lowercase: Annotated[bool, Field(description="whether capital letters become small")] = False,
        segment: Annotated[
            Literal["auto", "rjieba", "character", "none"],
            Field(description="how words are found in Chinese and Japanese (word only); auto: by the training rows"),
        ] = "auto",
        at_least: Annotated[
            int, Field(ge=1, description="rarer words in training rows are unknown (word and character)")
        ] = 1,
        length: Annotated[
            int | None,
            Field(ge=1, description="most tokens of a row; left open, the longest training row's, up to 512"),
        ] = None,
        packed: Annotated[
            bool,
            Field(description="language models: texts stand behind each other in rows of `length` tokens, none is cut"),
        ] = False,
        template: Annotated[
            Literal["auto", "chatml", "plain"] | None,
            Field(
                description="read as what a user says, spelled as in a chat; open: no, auto: as the tokenizer has it"
            ),
        ] = None,
    ) -> None:
        self.template: str | None = template
        self.tokenizer: str | None = tokenizer
        self.segment: str = segment
        self.length, self.packed = length, packed
        self.vocabulary, self.at_least = vocabulary, at_least
        self.normalise, self.lowercase = normalise, lowercase
        self.fitted: Tokenizer | None = None
        self.lists = False  # whether training cells are lists of words
        self.pairs = False  # whether training cells are a text that is preferred and one that is not
        self.measured: dict[str, float] = {}

    @property
    def chunk(self) -> int:
        return min(8192, max(64, 2**21 // (self.length or MOST)))

    @classmethod
    def claims(cls, values: pa.ChunkedArray, name: str) -> Claim | None:
        if holds_pairs(values.type):
            return Claim(0.95, "pairs of a text that is preferred and one that is not")
        if not is_text(values.type):
            return None
        cells = sample(values)
        if not cells or len(set(cells)) < 0.5 * len(cells):
            return None
        text = "".join(cells)
        letters = sum(map(str.isalpha, text))
        if letters < 0.5 * sum(not character.isspace() for character in text):
            return None  # numbers, codes
        words = sum(len(cell.split()) for cell in cells) / len(cells)
        chinese = len(is_of(HAN + KANA).findall(text)) / len(cells)
        if words >= 3:
            return Claim(0.55, f"{words:.1f} words on average in {len(cells)} sampled cells")
        if chinese >= 8:
            return Claim(0.55, f"{chinese:.1f} Chinese or Japanese characters on average in {len(cells)} sampled cells")
        return None

    @property
    def codec(self) -> Tokenizer:
        """The fitted tokenizer."""
        assert self.fitted is not None, "fit comes first"
        return self.fitted

    @property
    def vocabulary_size(self) -> int:
        """How many ids there are, the four special ones among them."""
        return self.codec.size

    def read(self, values: pa.Array) -> Cells:
        values = whole(values)
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        if not is_list(values.type):
            strings, findings = strings_of(values)
            return Cells(self.normal(strings), None, flags(strings.is_null()), findings)
        lengths, null = list_lengths(values), flags(values.is_null())
        strings, broken = strings_of(values.flatten())
        rows = owners(lengths)
        findings = [Finding(int(rows[finding.index]), finding.reason) for finding in broken]
        null[[finding.index for finding in findings]] = True
        return Cells(self.normal(strings), lengths, null, findings)

    def normal(self, strings: pa.Array) -> pa.Array:
        if self.normalise != "none":
            strings = pc.utf8_normalize(strings, form=self.normalise.upper())
        return pc.utf8_lower(strings) if self.lowercase else strings

    def form(self, kind: pa.DataType) -> Form | None:
        """What cells are that are more than one string.

        Raises:
            DataError: cells that the template is not for.
        """
        if holds_pairs(kind) and self.role == "output":
            return FORMS["pair"]
        if self.template is None:
            return None
        if not FORMS["conversation"].holds(kind):
            raise DataError(
                f"cells stored as {kind} are no conversation",
                place="a column of type text",
                mend="Give texts, or lists of {role, content}; or leave out the template.",
            )
        return FORMS["conversation"]

    @property
    def spelling(self) -> str:
        """The template that is meant."""
        return self.template if self.template not in (None, "auto") else fitting(self.codec)

    def fit_form(self, form: Form, values: pa.ChunkedArray) -> None:
        texts = form.all_texts(values)
        if not any(texts):
            raise DataError("no training row holds a text", place=f"an {self.role} of type text")
        self.fitted = self.learn(texts)
        self.pairs = form is FORMS["pair"]
        self.template = self.spelling if self.template == "auto" else self.template
        sizes = [len(ids) for ids, _ in form.rows(self.codec, self.spelling, values.to_pylist(), WHOLE) if ids]
        longest = max(sizes, default=1)
        self.measured = {"longest": longest, "median": float(np.median(sizes or [0])), "unknown": 0.0}
        self.length = self.length or min(longest, self.codec.most or MOST, MOST)

    def fit(self, values: pa.ChunkedArray, locate: Locate) -> None:
        if (form := self.form(values.type)) is not None:
            self.fit_form(form, values)
            return
        parts = [self.read(chunk) for chunk in values.chunks]
        self.lists = is_list(values.type)
        strings = pa.chunked_array([part.strings for part in parts], pa.string()).drop_null()
        if not pc.max(pc.binary_length(strings)).as_py():  # null or 0
            raise DataError("no training row holds a text", place=f"an {self.role} of type text")
        self.fitted = self.learn_words(strings) if self.lists else self.learn(strings.to_pylist())
        encoded = [self.encode(part) for part in parts]
        lengths = np.concatenate([lengths[present] for _, lengths, present in encoded])
        ids = np.concatenate([ids for ids, _, _ in encoded])
        self.measured = {
            "longest": int(lengths.max(initial=0)),
            "median": float(np.median(lengths)) if len(lengths) else 0.0,
            "unknown": float((ids == UNKNOWN).mean()) if len(ids) else 0.0,
        }
        if self.length is None and self.packed:
            self.length = BLOCK
        elif self.length is None:
            longest = int(self.measured["longest"]) + sum(self.frame)
            self.length = min(max(longest, 1 + sum(self.frame)), self.codec.most or MOST, MOST)

    def learn(self, texts: list[str]) -> Tokenizer:
        """A tokenizer from training texts; what was left open is settled."""
        if self.tokenizer == "published" and self.fitted is not None:  # put here before
            return self.fitted
        texts = list(enough(texts))
        self.tokenizer = self.tokenizer or choose(texts, self.role)
        if self.segment == "auto":
            self.segment = segmentation(texts) if self.tokenizer == "word" else "none"
        return ALL[self.tokenizer].train(texts, Plan(self.vocabulary, self.at_least, self.segment))

    def learn_words(self, words: pa.ChunkedArray) -> Tokenizer:
        """A vocabulary from training rows that are words already."""
        self.check_words()
        self.tokenizer = "word"
        self.segment = "none" if self.segment == "auto" else self.segment
        counts = {item["values"]: item["counts"] for item in words.value_counts().to_pylist()}
        return Words(commonest(counts, self.vocabulary - len(SPECIAL), self.at_least), self.segment)

    def check_words(self) -> None:
        if self.tokenizer not in (None, "word"):
            raise DataError(
                f"lists of words are one token a word, which the tokenizer {self.tokenizer} does not keep",
                place=f"an {self.role} of type text",
                mend="Set its tokenizer to word, or give the text uncut.",
            )

    def encode(self, cells: Cells) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.bool_]]:
        """Ids [S], lengths [N] and which cells are present [N]; nothing is cut."""
        if cells.lengths is None:
            ids, lengths = self.encode_texts(cells.strings)
        else:
            self.check_words()
            assert isinstance(self.fitted, Words)
            ids, lengths = self.fitted.look_up(cells.strings), cells.lengths
        ids, lengths = keep_rows(ids, lengths, ~cells.null)
        if self.role == "output":
            return *append(ids, lengths, ~cells.null, END), ~cells.null
        return ids, lengths, lengths > 0

    def encode_texts(self, strings: pa.Array) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        done = [self.codec.encode(part) for part in portions(pc.fill_null(strings, "").to_pylist())]
        if not done:
            return np.zeros(0, np.int32), np.zeros(0, np.int64)
        return np.concatenate([ids for ids, _ in done]), np.concatenate([lengths for _, lengths in done])

    def tensorize(self, values: pa.Array, locate: Locate) -> Tensorized:
        assert self.length is not None, "fit comes first"
        if (form := self.form(values.type)) is not None:
            return form.tensorize(self.codec, self.spelling, whole(values).to_pylist(), self.length)
        cells = self.read(values)
        ids, lengths, present = self.encode(cells)
        findings = [*cells.findings]
        for row in np.flatnonzero(present & self.blank_cells(cells)):
            reason = (
                "blank text: white space alone" if cells.lengths is None and str(cells.strings[row]) else "empty text"
            )
            findings.append(Finding(int(row), reason, "suspect"))
        room = max(0, self.length - sum(self.frame))
        for row in np.flatnonzero(lengths > room) if not self.packed else ():
            reason = f"{lengths[row]} tokens, of which the first {room} are kept"
            findings.append(Finding(int(row), reason, "suspect"))
        if not self.packed:
            ids, lengths = first(ids, lengths, room)
        begins, ends = self.frame
        ids, lengths = prepend(ids, lengths, present & begins, BEGIN)
        ids, lengths = append(ids, lengths, present & ends, END)
        return Tensorized(ids, present, sorted(findings, key=lambda finding: finding.index), lengths=lengths)

    @property
    def frame(self) -> tuple[bool, bool]:
        """Whether begin and end stand around each text, as published weights may want of what they read."""
        return self.codec.frame if self.role == "input" else (False, False)

    @staticmethod
    def blank_cells(cells: Cells) -> NDArray[np.bool_]:
        """Which cells [N] hold nothing that is seen."""
        if cells.lengths is not None:
            return np.asarray(cells.lengths == 0)
        blank = pc.equal(pc.utf8_trim_whitespace(cells.strings), "")
        return flags(pc.fill_null(blank, False))

    def spec(self) -> Spec:
        assert self.length is not None, "fit comes first"
        return Spec("tokens", (self.length,), self.codec.size)

    def blank(self, rows: int) -> tuple[Tensor, Tensor | None]:
        values, mask = super().blank(rows)
        if self.pairs:
            values = torch.cat([values, -values], dim=1)
        return values, torch.ones_like(values, dtype=torch.bool) if self.pairs else mask

    def restore(self, values: Tensor) -> list[Any]:
        """Ids [N, T] to text, up to the end token; to lists of words, where training cells are such."""
        rows = []
        for row in (values.clamp(min=0) if self.pairs else values).tolist():  # of a pair, the preferred text
            ids = row[: row.index(END)] if END in row and self.template is None else row
            rows.append([token for token in ids if token not in (PAD, BEGIN)])
        return [self.tokens_of(row) if self.lists else self.codec.decode(row) for row in rows]

    def tokens_of(self, ids: Sequence[int]) -> list[str]:
        """What each id stands for, for a person."""
        return [SPECIAL[token] if token < len(SPECIAL) else self.codec.piece(token) for token in map(int, ids)]

    def token_bytes(self) -> list[int] | None:
        """How many bytes of UTF-8 each id stands for, where that is known; the end of a text counts as a line break."""
        counts = self.codec.bytes_of_pieces()
        return None if counts is None else [int(token == END) or count for token, count in enumerate(counts)]

    def absent(self) -> list[int]:
        """The ids that no text is ever to hold, where published weights say so."""
        return self.codec.absent()

    def lead(self) -> tuple[int, ...]:
        """The ids that stand before each text that is written, where published weights want some."""
        return self.codec.lead

    def show(self, value: Tensor) -> dict[str, str]:
        cell = self.restore(value[None])[0]
        text = " ".join(cell) if isinstance(cell, list) else cell
        return {"text": text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"}

    def settings(self) -> dict[str, Any]:
        return {
            "tokenizer": self.tokenizer,
            "vocabulary": self.vocabulary,
            "normalise": self.normalise,
            "lowercase": self.lowercase,
            "segment": self.segment,
            "at_least": self.at_least,
            "length": self.length,
            "packed": self.packed,
            "template": self.template,
        }

    def state(self) -> dict[str, Any]:
        return {"tokenizer": self.codec.state(), "lists": self.lists, "pairs": self.pairs, "measured": self.measured}

    def load_state(self, state: dict[str, Any]) -> None:
        assert self.tokenizer is not None, "settings are resolved before a state is taken back"
        self.fitted = load(self.tokenizer, state["tokenizer"])
        self.lists, self.measured = bool(state["lists"]), dict(state["measured"])
        self.pairs = bool(state.get("pairs", False))  # which runs of older versions do not tell

    def wire(self) -> Wire:
        facts = {"length": self.length, "tokenizer": self.tokenizer}
        if self.lists:
            return Wire(list[str] | None, ["two", "words"], facts)
        return Wire(str if self.role == "output" else str | None, "A short text.", facts)

    def summary(self) -> dict[str, Any]:
        return {
            "tokenizer": self.tokenizer,
            "vocabulary": self.vocabulary_size,
            "longest": self.measured["longest"],
            "median length": self.measured["median"],
            "unknown tokens": round(self.measured["unknown"], 4),
        }


def strings_of(values: pa.Array) -> tuple[pa.Array, list[Finding]]:
    """Cells as strings, null where they are missing; and what is not UTF-8.

    Raises:
        DataError: cells that are no single value.
    """
    if is_bytes(values.type):
        return text_of(values)
    try:
        return pc.cast(values, pa.string()), []
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise DataError(f"cells stored as {values.type} hold no text", place="a column of type text") from None


def portions(texts: list[str]) -> Iterator[list[str]]:
    """The texts in runs of no more than about a million characters: a tokenizer needs a hundred bytes for each."""
    start = held = 0
    for place, text in enumerate(texts):
        held += len(text)
        if held >= PORTION or place + 1 == len(texts):
            yield texts[start : place + 1]
            start, held = place + 1, 0
