"""One file an output type; a literal table of them, by the type of the column that they predict."""

from __future__ import annotations

from .category import CategoryHead
from .head import Head
from .number import NumberHead
from .tags import TagsHead

__all__ = ["HEADS", "CategoryHead", "Head", "NumberHead", "TagsHead"]

HEADS: dict[str, type[Head]] = {"category": CategoryHead, "number": NumberHead, "tags": TagsHead}
