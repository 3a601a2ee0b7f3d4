"""Tables turned into others before the split: a log of events into histories, a long table into windows, two columns
of texts into pairs.

The first two part the rows by time themselves, so that nothing of what is to be predicted is seen in training.
"""

from __future__ import annotations

from .ordered import Reshape
from .reshape_history import History
from .reshape_preference import Preference
from .reshape_windows import Windows

__all__ = ["RESHAPES", "History", "Preference", "Reshape", "Windows"]

RESHAPES: dict[str, type[Reshape]] = {"history": History, "preference": Preference, "windows": Windows}
