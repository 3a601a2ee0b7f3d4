"""Texts that are empty, cut off, garbled, or in another language than the others."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...columns.text import Text
from ..case import SHOWN, Case
from ..finding import Finding, Mend, escaped, some_rows

__all__ = ["cut_texts", "empty_texts", "garbled_texts", "language_of", "strange_language"]

Rows = NDArray[np.int64]
ROWS = 5000
GARBLED = re.compile("\ufffd|Ã[\x80-\xbf©¨¤¶¼]|â€[\x99œ\x9d™“”]|Â[\xa0-\xbf]")
# The commonest little words of a few languages: enough to tell apart texts of some length.
LITTLE_WORDS = {
    "Czech": "a v na je se že to si jsem ale jako jsou byl nebo tak když",
    "Dutch": "de het een en van ik niet dat op te zijn voor met aan er maar",
    "English": "the of and to in is that for it was with as on be this you are have not",
    "French": "le la les de des et un une est que dans pour qui sur pas vous il avec ce",
    "German": "der die das und ist nicht ein eine zu den mit von auf sich ich es dem auch",
    "Italian": "il di che è e la un una per non sono con del della le gli nel anche",
    "Polish": "i w na z się nie to jest że do jak po ale co tak od dla",
    "Portuguese": "o de que e do da em um uma para não com os no se na por mais",
    "Spanish": "el la de que y en un una los del se las por con no para es su al",
    "Swedish": "och att det är en som på för av med till inte den har jag ett",
}
WORDS = {language: frozenset(words.split()) for language, words in LITTLE_WORDS.items()}


def text_inputs(case: Case) -> Iterator[tuple[str, Text, Rows, list[str]]]:
    """Text columns with some usable rows and their cells; lists of words are joined."""
    for name, column in case.columns.items():
        if not isinstance(column, Text):
            continue
        rows = case.some(case.usable, ROWS)
        cells = case.table[name].take(pa.array(rows)).to_pylist()
        texts = [" ".join(map(str, cell)) if isinstance(cell, list) else str(cell or "") for cell in cells]
        yield name, column, rows, texts


def empty_texts(case: Case) -> Iterator[Finding]:
    """Texts without a letter or digit."""
    for name, _, rows, texts in text_inputs(case):
        empty = [i for i, text in enumerate(texts) if not any(letter.isalnum() for letter in text)]
        yield from some_rows(
            "empty_texts", (f"texts in {name!r}", "are empty"), len(empty), len(rows), (0.05, 0.01),
            sure=0.97,
            rows=[case.row(int(rows[i]), f"{texts[i]!r}") for i in empty[:SHOWN]],
            advice="Leave these rows out, or find where their texts were lost.",
        )  # fmt: skip


def cut_texts(case: Case) -> Iterator[Finding]:
    """Texts cut at one length when they were stored, and texts that the recipe's length cuts."""
    for name, column, rows, texts in text_inputs(case):
        sizes = np.array([len(text) for text in texts])
        limit = int(sizes.max(initial=0))
        at = np.flatnonzero(sizes == limit)
        broken = [i for i in at if texts[i][-1:].isalnum()]  # a sentence would end with a stop
        near = int(((sizes >= 0.9 * limit) & (sizes < limit)).sum())
        share = len(at) / len(rows)
        if limit >= 20 and share > 0.05 and len(broken) > 0.5 * len(at) and len(at) > 3 * (near + 1):
            yield Finding(
                "cut_texts", "fault" if share > 0.2 else "warning",
                f"{len(at):,} of {len(rows):,} texts in {name!r} ({share:.1%}) have exactly {limit} characters, "
                "the most that any has, and most of them end within a sentence: they were cut when they were stored",
                sure=0.93,
                evidence={"rows": len(at), "share": share, "characters": limit},
                rows=[case.row(int(rows[i]), f"ends with {texts[i][-30:]!r}") for i in at[:SHOWN]],
                advice="Get the whole texts; a database field or an export has a limit.",
            )  # fmt: skip
        yield from cut_by_recipe(case, name, column, len(texts))


def cut_by_recipe(case: Case, name: str, column: Text, rows: int) -> Iterator[Finding]:
    cut = [one for one in case.prepared.problems if one.column == name and "are kept" in one.reason]
    share = len(cut) / max(1, len(case.usable))
    length = column.spec().shape[0]
    if share > 0.02:
        few = length < 32 and share > 0.3
        yield Finding(
            "cut_texts", "fault" if few else "note",
            f"{len(cut):,} texts in {name!r} ({share:.1%}) are longer than the {length} tokens that the model reads",
            sure=0.95,
            evidence={"rows": len(cut), "share": share, "length": length},
            mend=Mend((f"{column.role}s.{escaped(name)}.length={4 * length}",)) if few else Mend(),
            advice="A larger length reads more of them, and takes longer.",
        )  # fmt: skip


def garbled_texts(case: Case) -> Iterator[Finding]:
    """Letters that were read in the wrong encoding: ``Ã©`` for ``é``, or the replacement character."""
    for name, _, rows, texts in text_inputs(case):
        odd = [i for i, text in enumerate(texts) if len(GARBLED.findall(text)) > 0.002 * len(text)]
        yield from some_rows(
            "garbled_texts", (f"texts in {name!r}", "hold letters read in a wrong encoding"), len(odd), len(rows),
            (0.1, 0.03),
            sure=0.9,
            rows=[case.row(int(rows[i]), excerpt(texts[i])) for i in odd[:SHOWN]],
            advice="Read the file again in the encoding that it was written in.",
        )  # fmt: skip


def excerpt(text: str) -> str:
    found = GARBLED.search(text)
    assert found is not None
    return text[max(0, found.start() - 20) : found.end() + 20]


def strange_language(case: Case) -> Iterator[Finding]:
    """A few texts in another script, or with the little words of another language, than nearly all others."""
    for name, _, rows, texts in text_inputs(case):
        said = [language_of(text) for text in texts]
        counts = Counter(one for one in said if one)
        total = sum(counts.values())
        if total < 30:
            continue
        main, often = counts.most_common(1)[0]
        other = total - often
        if not other or often < 0.6 * total:  # a table of many languages
            continue
        share = other / total
        strange = [i for i, one in enumerate(said) if one and one != main]
        yield Finding(
            "strange_language",
            "fault" if share > 0.05 else "warning" if share > 0.02 and len(strange) > 2 else "note",
            f"{other:,} of {total:,} texts in {name!r} ({share:.1%}) are not {main} like the others: "
            + ", ".join(f"{one} ({count})" for one, count in counts.most_common(4)[1:]),
            sure=0.88,
            evidence={"rows": other, "share": share, "languages": dict(counts.most_common(10))},
            rows=[case.row(int(rows[i]), f"{said[i]}: {texts[i][:60]}") for i in strange[:SHOWN]],
            advice="Leave them out, or see that there are enough of each language to learn from.",
        )  # fmt: skip


def language_of(text: str) -> str:
    """The script, or of texts in Latin letters the language, as far as little words tell; empty where they do not.

    >>> language_of("the cat is on the mat and it was not happy"), language_of("это кошка на ковре"), language_of("ok")
    ('English', 'Cyrillic', '')
    """
    text = text[:2000]
    letters = [letter for letter in text if letter.isalpha()]
    if len(letters) < 8:
        return ""
    scripts = Counter(unicodedata.name(letter, "?").split()[0] for letter in letters[:400])
    script, often = scripts.most_common(1)[0]
    if script != "LATIN":
        east = {"CJK": "Chinese or Japanese", "HIRAGANA": "Chinese or Japanese", "KATAKANA": "Chinese or Japanese"}
        return east.get(script, script.capitalize()) if often > 0.4 * min(400, len(letters)) else ""
    # Words that stand by themselves: what is between the dots of an address is in no language.
    words = [word for piece in text.lower().split() if (word := piece.strip(".,;:!?()\"'«»„“”’-")).isalpha()]
    hits = {language: sum(word in known for word in words) for language, known in WORDS.items()}
    best, second = sorted(hits.values(), reverse=True)[:2]
    language = max(hits, key=lambda one: hits[one])
    if len(WORDS[language].intersection(words)) < 3 or best < 0.08 * len(words) or best < 1.5 * second:
        return ""
    return language
