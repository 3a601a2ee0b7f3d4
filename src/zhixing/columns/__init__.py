"""One file a column type; a literal table of their names."""

from __future__ import annotations

import pyarrow as pa

from .category import Category
from .column import Claim, Column, Finding, Locate, Tensorized, shorten
from .date import Date
from .image import Image
from .number import Number
from .tags import Tags

__all__ = ["COLUMNS", "Claim", "Column", "Finding", "Locate", "Tensorized", "infer", "shorten"]

COLUMNS: dict[str, type[Column]] = {
    "category": Category,
    "date": Date,
    "image": Image,
    "number": Number,
    "tags": Tags,
}


def infer(values: pa.ChunkedArray, name: str) -> tuple[str, str] | None:
    """The type that fits these values best, and why; None where nothing fits.

    >>> import pyarrow as pa
    >>> infer(pa.chunked_array([["1.5", "2", "x.y"] * 1 + ["7"] * 30]), "length")[0]
    'number'
    """
    claims = [(claim, kind) for kind, column in COLUMNS.items() if (claim := column.claims(values, name))]
    if not claims:
        return None
    claim, kind = max(claims, key=lambda pair: pair[0].score)
    return kind, claim.reason
