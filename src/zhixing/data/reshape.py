"""Tables turned into others before the split: a log of events into histories, a long table into windows.

Both part the rows by time themselves, so that nothing of what is to be predicted is seen in training.
"""

from __future__ import annotations

from .ordered import Reshape
from .reshape_history import History
from .reshape_windows import Windows

__all__ = ["RESHAPES", "History", "Reshape", "Windows"]

RESHAPES: dict[str, type[Reshape]] = {"history": History, "windows": Windows}
