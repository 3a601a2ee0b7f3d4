"""Every error that Zhixing raises on purpose.

::

    ZhixingError              exit status 1
    ├── UsageError                        2   a wrong argument or flag
    │   └── RecipeError                   2   one or more wrong settings, all reported together
    ├── DataError                         3   a source, a table, a row that cannot be used
    ├── RunError                          1   a run folder that is missing, unfinished or damaged
    │   └── CheckpointError               1   a checkpoint that cannot be written or does not verify
    ├── TrainingError                     1   training cannot go on (non-finite losses, memory)
    └── MissingExtraError                 1   an optional library is not installed

A message is for a person: where it is, which rule was broken, by what value, and what to do about it.
Broken promises between parts of Zhixing itself are ``assert``, not these.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "DataError",
    "MissingExtraError",
    "RecipeError",
    "RunError",
    "TrainingError",
    "UsageError",
    "ZhixingError",
    "did_you_mean",
]

LISTED = 30  # names in a message


class ZhixingError(Exception):
    """Base of all errors meant for the user.

    ``what`` states the rule and the value that breaks it, ``place`` where it is (a file, a row, a setting),
    ``mend`` what to do.

    >>> print(DataError("3 columns expected, 4 found", place="a.csv, line 7", mend="Quote the comma."))
    a.csv, line 7: 3 columns expected, 4 found. Quote the comma.
    """

    exit_status = 1

    def __init__(self, what: str, *, place: object = None, mend: str = "") -> None:
        self.what, self.place, self.mend = what, place, mend
        message = f"{place}: {what}" if place is not None else what
        if mend:
            message += "" if message.endswith("\n") else " " if message.endswith((".", "?", "!")) else ". "
            message += mend
        super().__init__(message)


class UsageError(ZhixingError):
    """A wrong argument, flag or combination of them."""

    exit_status = 2


class RecipeError(UsageError):
    """Wrong settings. ``problems`` holds one line each, so that all can be mended in one go."""

    def __init__(self, problems: Iterable[str], *, place: object = None) -> None:
        self.problems = list(problems)
        count = len(self.problems)
        head = f"{count} problem{'s' if count > 1 else ''} in the recipe"
        super().__init__(head + "".join(f"\n  {problem}" for problem in self.problems), place=place)


class DataError(ZhixingError):
    """A source, a table or a row that cannot be used."""

    exit_status = 3


class RunError(ZhixingError):
    """A run folder that is missing, unfinished or damaged."""


class CheckpointError(RunError):
    """A checkpoint that cannot be written, or that is not what was written."""


class TrainingError(ZhixingError):
    """Training cannot go on."""


class MissingExtraError(ZhixingError):
    """An optional library is needed and not installed."""

    def __init__(self, library: str, extra: str, *, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the library {library}, which is not installed",
            mend=f'Install it with: pip install "zhixing[{extra}]"',
        )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A mend for a name that is not known: the nearest known one, or those that there are.

    >>> did_you_mean("adamm", ["adam", "sgd"])
    "Did you mean 'adam'?"
    >>> did_you_mean("cnm", ["tcn", "cnn"])
    "Did you mean 'cnn'?"
    >>> did_you_mean("lion", ["adam", "sgd"])
    'Known: adam, sgd.'
    """
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=8, cutoff=0.6)
    # Among equals that which begins alike: few mistype the first letter.
    close.sort(key=lambda name: (-difflib.SequenceMatcher(None, name, word).ratio(), name[:1] != word[:1]))
    if not close:  # written in another case
        close = [name for name in known if name.casefold() == word.casefold()][:1]
    if close:
        return f"Did you mean '{close[0]}'?"
    if not known:
        return ""
    more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
    return f"Known: {', '.join(known[:LISTED])}{more}."
