"""Learning without labels: a literal table of objectives, by the type that an output of a recipe gives them.

An objective is a head like others, but one that makes its question and its truth from the input itself. Its output
column is no column of the table: ``outputs: {pretext: {type: masked_tokens}}`` is all that a recipe says of it.
``pairs`` alone has one, the other half of each pair.
"""

from __future__ import annotations

from ..columns import COLUMNS, Column
from ..heads import HEADS, Head
from .column import Pretext
from .contrastive import Views
from .head import PretextHead
from .masked_items import MaskedItems
from .masked_patches import MaskedPatches
from .masked_spectrogram import MaskedSpectrogram
from .masked_tokens import MaskedTokens
from .pairs import Pairs

__all__ = ["ALL_HEADS", "PRETEXTS", "Pretext", "PretextHead", "column_class"]

PRETEXTS: dict[str, type[PretextHead]] = {
    "masked_tokens": MaskedTokens,
    "masked_items": MaskedItems,
    "masked_patches": MaskedPatches,
    "masked_spectrogram": MaskedSpectrogram,
    "views": Views,
    "pairs": Pairs,
}

ALL_HEADS: dict[str, type[Head]] = {**HEADS, **PRETEXTS}


def column_class(kind: str) -> type[Column]:
    """The class of columns of a type; what objectives predict is a column of its own kind.

    >>> column_class("text").type, column_class("masked_tokens").type
    ('text', 'pretext')
    """
    return Pretext if kind in PRETEXTS else COLUMNS[kind]
