"""Checks of data: each a function of a :class:`~zhixing.doctor.case.Case` that yields what it finds."""

from __future__ import annotations

from ..finding import Check
from .drift import drift, label_drift
from .duplicates import exact_duplicates, near_duplicates
from .identifiers import constant, identifier
from .imbalance import imbalance
from .label_noise import label_noise
from .leak import leak
from .missing_classes import missing_classes
from .pictures import blank_pictures, odd_sizes
from .ranges import ranges
from .sounds import sounds
from .texts import cut_texts, empty_texts, garbled_texts, strange_language
from .time_leak import time_leak
from .unreadable import unreadable

__all__ = ["DATA_CHECKS"]

# In the order of causes: what comes earlier may explain what comes later.
DATA_CHECKS = (
    Check("unreadable", "rows that cannot be read", unreadable),
    Check("empty_texts", "texts without a word", empty_texts, frozenset({"exact_duplicates", "label_noise"})),
    Check("garbled_texts", "texts read in a wrong encoding", garbled_texts, frozenset({"strange_language"})),
    Check("strange_language", "texts in another language", strange_language, frozenset({"label_noise"})),
    Check("cut_texts", "texts cut off", cut_texts, frozenset({"exact_duplicates", "near_duplicates", "label_noise"})),
    Check(
        "blank_pictures", "pictures with nothing on them", blank_pictures,
        frozenset({"exact_duplicates", "near_duplicates", "label_noise"}),
    ),
    Check("odd_sizes", "tiny and mis-sized pictures", odd_sizes, frozenset({"label_noise", "near_duplicates"})),
    Check(
        "sounds", "silent and clipped sounds", sounds,
        frozenset({"exact_duplicates", "near_duplicates", "label_noise"}),
    ),
    Check(
        "ranges", "numbers out of range", ranges,
        frozenset({"drift", "normalisation", "initial_loss", "flow", "nonfinite", "overflow", "rate"}),
    ),
    Check("constant", "columns that are the same in all rows", constant, frozenset({"ignored", "dead_units"})),
    Check("identifier", "columns that number or name rows", identifier, frozenset({"drift", "ignored"})),
    Check("leak", "a value that gives the answer away", leak),
    Check("missing_classes", "classes that a split lacks", missing_classes, frozenset({"label_drift", "drift"})),
    Check("time_leak", "training rows from the future", time_leak, frozenset({"near_duplicates", "drift"})),
    Check("exact_duplicates", "rows that stand twice", exact_duplicates, frozenset({"near_duplicates"})),
    Check("near_duplicates", "rows that nearly stand twice", near_duplicates),
    Check("label_drift", "classes in other proportions", label_drift, frozenset({"drift"})),
    Check("drift", "held-out rows unlike training rows", drift),
    Check("label_noise", "labels that are likely wrong", label_noise, frozenset({"fitting"})),
    Check("imbalance", "classes of unequal size", imbalance),
)  # fmt: skip
