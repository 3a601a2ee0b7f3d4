"""One file a column type; a literal table of their names."""

from __future__ import annotations

import pyarrow as pa

from .audio import Audio
from .category import Category
from .column import Claim, Column, Finding, Locate, Tensorized, is_text, shorten
from .date import Date
from .history import History
from .image import Image
from .labels import Labels
from .number import Number
from .series import Series
from .tags import Tags
from .text import Text

__all__ = ["COLUMNS", "Claim", "Column", "Finding", "Locate", "Tensorized", "infer", "shorten"]

COLUMNS: dict[str, type[Column]] = {
    "audio": Audio,
    "category": Category,
    "date": Date,
    "history": History,
    "image": Image,
    "labels": Labels,
    "number": Number,
    "series": Series,
    "tags": Tags,
    "text": Text,
}


IDENTIFIERS = frozenset({"id", "ids", "index", "row", "uuid", "编号", "序号", "unnamed: 0"})


def identifies(values: pa.ChunkedArray, name: str) -> bool:
    """Whether a column names rows and says nothing else: called so, and different in each row."""
    word = name.strip().lower()
    called = word in IDENTIFIERS or word.endswith(("_id", " id")) or name.endswith("Id")
    kind = values.type
    if not called or len(values) < 2 or not (is_text(kind) or pa.types.is_integer(kind)):
        return False
    return values.null_count == 0 and len(values.unique()) == len(values)


def infer(values: pa.ChunkedArray, name: str) -> tuple[str, str] | None:
    """The type that fits these values best, and why; None where nothing fits, or where they only name their rows.

    >>> import pyarrow as pa
    >>> infer(pa.chunked_array([["1.5", "2", "x.y"] * 1 + ["7"] * 30]), "length")[0]
    'number'
    """
    claims = [(claim, kind) for kind, column in COLUMNS.items() if (claim := column.claims(values, name))]
    if not claims:
        return None
    claim, kind = max(claims, key=lambda pair: pair[0].score)
    if kind in ("number", "category") and identifies(values, name):
        return None
    return kind, claim.reason
