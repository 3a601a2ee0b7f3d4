"""Ranges that a person writes, in a recipe's ``tune`` or after ``--search``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..errors import RecipeError
from ..recipe import check, parse
from .paths import with_settings
from .space import Dimension

__all__ = ["given_space", "read_range"]


def given_space(ranges: Mapping[str, Any], base: Mapping[str, Any]) -> list[Dimension]:
    """Ranges that a person wrote, ``low:high``, ``log:low:high``, ``int:low:high`` or a list of choices, by setting.

    Raises:
        RecipeError: a range cannot be read, or the recipe would be wrong with one of its ends or choices.
    """
    out, problems = [], []
    for path, text in ranges.items():
        try:
            out.append(read_range(path, text))
        except ValueError as error:
            problems.append(f"tune.{path}: {error}")
    forms = [{}, *({one.path: choice} for one in out if one.structural for choice in one.choices)]
    for one in out:  # a setting may be one of an encoder that is itself among the choices
        tried = [wrong_ends(one, with_settings(base, form)) for form in forms]
        fewest: list[str] = min(tried, key=len)
        problems += fewest
    if problems:
        raise RecipeError(problems)
    return out


def wrong_ends(one: Dimension, base: Mapping[str, Any]) -> list[str]:
    """What would be wrong with a recipe that has one end of the range, or one of the choices."""
    ends = one.choices if one.kind == "choices" else (one.drawn(one.low), one.drawn(one.high))
    lines = [line for end in ends for line in check(with_settings(base, {one.path: end}))]
    return [f"tune.{one.path}: {line}" for line in dict.fromkeys(lines)]


def read_range(path: str, text: Any) -> Dimension:
    """
    >>> read_range("training.optimizer.lr", "log:1e-4:1e-1")
    Dimension(path='training.optimizer.lr', kind='float', low=0.0001, high=0.1, log=True, step=1, choices=())
    """
    value = parse(text) if isinstance(text, str) else text
    if isinstance(value, list | tuple):
        if not value:
            raise ValueError("a list of choices has at least one")
        return Dimension(path, "choices", choices=tuple(value))
    form = "write low:high, log:low:high, int:low:high, or a list of choices as in [a, b], not " + repr(text)
    words = text.split(":") if isinstance(text, str) else []
    log, whole = "log" in words[:2], "int" in words[:2]
    numbers = [number for word in words[log + whole :] if (number := as_number(word)) is not None]
    if len(numbers) != 2 or len(words) != 2 + log + whole:
        raise ValueError(form)
    low, high = numbers
    if not low < high or (log and low <= 0):
        raise ValueError(f"the range has to rise{', from more than zero' if log else ''}, not {text!r}")
    if whole and (low % 1 or high % 1):
        raise ValueError(f"a range of whole numbers has whole ends, not {text!r}")
    return Dimension(path, "int" if whole else "float", low, high, log)


def as_number(word: str) -> float | None:
    try:
        number = float(word)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
