"""``tags``: any number of labels in each cell."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from pydantic import Field
from torch import Tensor

from ..errors import DataError
from .column import (
    Claim,
    Column,
    Finding,
    Locate,
    Spec,
    Stem,
    Tensorized,
    Wire,
    is_bytes,
    is_text,
    natural_order,
    sample,
    shorten,
    text_of,
    whole,
)
from .wire import LISTED, Word

__all__ = ["Tags"]


class ToFloat(Stem):
    """Flags to floats, on the device."""

    def forward(self, values: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        return values.float(), mask


class Tags(Column):
    """Several labels in a cell: a list, or text with a separator between them. An empty list means none of them;
    an empty cell is missing."""

    type = "tags"
    kind = "vector"

    def __init__(
        self,
        *,
        separator: Annotated[
            str, Field(min_length=1, description="stands between the labels where cells are text")
        ] = "|",
    ) -> None:
        self.separator = separator
        self.classes: list[str] = []
        self.counts: list[int] = []

    @classmethod
    def claims(cls, values: pa.ChunkedArray, name: str) -> Claim | None:
        kind = values.type
        if (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and is_text(kind.value_type):
            return Claim(0.9, "a list of words in each cell")
        if is_text(kind):
            cells = sample(values)
            several = sum("|" in cell for cell in cells)
            distinct = len({tag for cell in cells for tag in cell.split("|")})
            if cells and several >= 0.1 * len(cells) and distinct <= 0.5 * len(cells):
                return Claim(0.7, f"{several} of {len(cells)} sampled cells hold several words between '|'")
        return None

    def cells(self, values: pa.Array | pa.ChunkedArray) -> tuple[list[list[str] | None], list[Finding]]:
        """The labels of each cell, None where it is empty; and what is not UTF-8."""
        values, findings = whole(values), list[Finding]()
        if is_bytes(values.type):
            values, findings = text_of(values)
        out: list[list[str] | None] = []
        for cell in values.to_pylist():
            if cell is None or (isinstance(cell, str) and not cell.strip()):
                out.append(None)
                continue
            parts = cell.split(self.separator) if isinstance(cell, str) else cell if isinstance(cell, list) else [cell]
            words = [str(part).strip() for part in parts if part is not None]
            out.append([word for word in words if word])
        return out, findings

    def fit(self, values: pa.ChunkedArray, locate: Locate) -> None:
        count: dict[str, int] = {}
        for cell in self.cells(values)[0]:
            for tag in set(cell or ()):
                count[tag] = count.get(tag, 0) + 1
        if not count:
            raise DataError("no training row holds a label", place=f"an {self.role} of type tags")
        self.classes = natural_order(list(count))
        self.counts = [count[tag] for tag in self.classes]

    def tensorize(self, values: pa.Array, locate: Locate) -> Tensorized:
        index = {tag: place for place, tag in enumerate(self.classes)}
        cells, findings = self.cells(values)
        out = np.zeros((len(cells), len(self.classes)), np.uint8)
        present = np.array([cell is not None for cell in cells], bool)
        for row, cell in enumerate(cells):
            for tag in cell or ():
                if tag in index:
                    out[row, index[tag]] = 1
                else:
                    findings.append(Finding(row, f"the label {shorten(tag)} is in no training row", "unseen"))
        if self.role == "output":
            present[[finding.index for finding in findings]] = False
        return Tensorized(out, present, findings)

    def spec(self) -> Spec:
        return Spec("vector", (len(self.classes),))

    def stem(self) -> Stem:
        return ToFloat()

    def restore(self, values: Tensor) -> list[Any]:
        return [[tag for tag, flag in zip(self.classes, row, strict=True) if flag] for row in (values > 0.5).tolist()]

    def show(self, value: Tensor) -> dict[str, str]:
        return {"text": ", ".join(self.restore(value[None])[0])}

    def settings(self) -> dict[str, Any]:
        return {"separator": self.separator}

    def state(self) -> dict[str, Any]:
        return {"classes": self.classes, "counts": self.counts}

    def load_state(self, state: dict[str, Any]) -> None:
        self.classes, self.counts = list(state["classes"]), [int(count) for count in state["counts"]]

    def wire(self) -> Wire:
        facts = {"classes": self.classes[:LISTED], "count": len(self.classes)}
        return Wire(list[Word] | None, self.classes[:2], facts)

    def summary(self) -> dict[str, Any]:
        return {"labels": len(self.classes), "rarest": min(self.counts), "commonest": max(self.counts)}
