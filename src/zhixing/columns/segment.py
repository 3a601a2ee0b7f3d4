"""Words: how text is cut into them, also where no spaces stand between them, and put together again."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache

from ..errors import MissingExtraError

__all__ = ["cut_words", "join_words", "segmentation", "share"]

HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd"
KANA = "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"
UNSPACED = HAN + KANA + "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese and Khmer too
CLOSING = frozenset(",.;:!?%)]}，。；：！？、％）】》」』”’…")
OPENING = frozenset("([{（【《「『“‘$#@")
FEW = 0.01  # of all letters: a foreign name here and there


@cache
def combining_marks() -> str:
    """All combining marks: vowel signs of Indian scripts, Arabic points. They are parts of words, and Python's
    ``\\w`` does not know it."""
    planes = (*range(0x300, 0x1F000), *range(0xE0100, 0xE01F0))
    return "".join(chr(code) for code in planes if unicodedata.category(chr(code))[0] == "M")


@cache
def pattern(apart: str) -> re.Pattern[str]:
    """Runs of the characters ``apart``; words, with apostrophes inside; any other character that is not a space."""
    letter = rf"(?:[^\W{apart}]|[{combining_marks()}])" if apart else rf"[\w{combining_marks()}]"
    run = f"[{apart}]+|" if apart else ""
    return re.compile(rf"{run}{letter}+(?:['’]{letter}+)*|\S")


@cache
def is_of(characters: str) -> re.Pattern[str]:
    return re.compile(f"[{characters}]")


@cache
def rjieba_cut() -> Callable[[str], list[str]]:
    try:
        import rjieba
    except ImportError:
        raise MissingExtraError("rjieba", "text", purpose="finding words in Chinese text") from None
    return rjieba.cut


def cut_words(text: str, segment: str) -> list[str]:
    """The words and punctuation marks of a text, in order; white space is dropped.

    ``segment`` says what a run of Chinese or Japanese characters is: ``none`` one word, ``character`` a word each,
    ``rjieba`` the words of a dictionary.

    >>> cut_words("Don't panic, 北京大学!", "character")
    ["Don't", 'panic', ',', '北', '京', '大', '学', '!']
    """
    if segment == "none":
        return pattern("").findall(text)
    runs: list[str] = pattern(HAN + KANA).findall(text)
    cut = list if segment == "character" else rjieba_cut()
    chinese = is_of(HAN + KANA)
    words: list[str] = []
    for run in runs:
        if chinese.match(run):
            words += cut(run)
        else:
            words.append(run)
    return words


def join_words(words: Sequence[str]) -> str:
    """Words as text, with spaces where they are usual.

    >>> join_words(["Hello", ",", "world", "!", "你", "好", "。"])
    'Hello, world! 你好。'
    """
    text, chinese = "", is_of(HAN + KANA)
    for word in words:
        close = word in CLOSING or text[-1:] in OPENING
        both = chinese.match(text[-1:]) or text[-1:] in "，。；：！？、"
        if text and not close and not (both and chinese.match(word)):
            text += " "
        text += word
    return text


def share(texts: Sequence[str], characters: str) -> float:
    """Which part of the letters of some of the texts are these characters, from 0 to 1."""
    step = max(1, len(texts) // 1000)
    letters = "".join(character for text in texts[::step] for character in text[:1000] if character.isalpha())
    return len(is_of(characters).findall(letters)) / max(1, len(letters))


def segmentation(texts: Sequence[str]) -> str:
    """How words are best found: Japanese by characters, Chinese by a dictionary, all else by what stands between."""
    han, kana = share(texts, HAN), share(texts, KANA)
    if han + kana < FEW:
        return "none"
    return "character" if kana > 0.05 * (han + kana) else "rjieba"
