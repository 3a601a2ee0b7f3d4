"""One file an output type; a literal table of them, by the type of the column that they predict."""

from __future__ import annotations

from .category import CategoryHead
from .head import Head
from .labels import LabelsHead
from .number import NumberHead
from .series import SeriesHead
from .tags import TagsHead
from .text import TextHead

__all__ = ["HEADS", "CategoryHead", "Head", "LabelsHead", "NumberHead", "SeriesHead", "TagsHead", "TextHead"]

HEADS: dict[str, type[Head]] = {
    "category": CategoryHead,
    "labels": LabelsHead,
    "number": NumberHead,
    "series": SeriesHead,
    "tags": TagsHead,
    "text": TextHead,
}
