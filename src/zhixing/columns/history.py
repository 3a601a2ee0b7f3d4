"""``history``: what happened before, one item after another, the newest last."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from ..errors import DataError
from .column import Claim, Column, Finding, Locate, Spec, Tensorized, Wire, is_list, is_text, natural_order, shorten
from .ragged import Lengths, flags, items_of, keep_rows, last, owners, unpadded
from .vocabulary import UNKNOWN, ids_of
from .wire import LISTED, Word

__all__ = ["History"]

FIRST = UNKNOWN + 1


class History(Column):
    """Items in the order in which they came, the newest last: purchases, pages, films.

    Cells are lists of words or whole numbers, or text with a separator between the items. Of a longer history the
    newest ``length`` items are kept. The ids are 0 padding, 1 unknown, then the items of training rows. A history
    without items is not present; as an output, one with an item that no training row has gives no target.

    >>> from pathlib import Path
    >>> column = History(length=2)
    >>> column.fit(pa.chunked_array([["tea|milk", "milk|bread|tea"]]), Path)
    >>> column.items, column.tensorize(pa.array(["bread|milk|tea"]), Path).values.tolist()
    (['bread', 'milk', 'tea'], [3, 4])
    """

    type = "history"
    kind = "tokens"

    def __init__(
        self,
        *,
        length: Annotated[int, Field(ge=1, description="most items of a row: the newest")] = 50,
        at_least: Annotated[
            int, Field(ge=1, description="items that occur less often in training rows are unknown (inputs only)")
        ] = 1,
        separator: Annotated[
            str, Field(min_length=1, description="stands between the items where cells are text")
        ] = "|",
    ) -> None:
        self.length, self.at_least, self.separator = length, at_least, separator
        self.items: list[str] = []
        self.counts: list[int] = []
        self.rows = {"all": 0, "empty": 0, "longer": 0}

    @property
    def chunk(self) -> int:
        return min(65536, max(64, 2**21 // self.length))

    @classmethod
    def claims(cls, values: pa.ChunkedArray, name: str) -> Claim | None:
        kind = values.type
        if "history" not in name.lower() or not is_list(kind):
            return None
        if is_text(kind.value_type) or pa.types.is_integer(kind.value_type):
            # Above what tags say of any list of words: the name is the better witness.
            return Claim(0.92, "lists in a column that is called a history")
        return None

    def read(self, values: pa.Array) -> tuple[pa.Array, Lengths, list[Finding]]:
        """The items of all cells behind each other, how many are whose, and what cannot be read."""
        words, lengths, findings = items_of(values, self.separator)
        filled = flags(words.is_valid())
        filled &= ~np.isin(owners(lengths), [finding.index for finding in findings])  # all or nothing of a row
        return words.filter(pa.array(filled)), np.bincount(owners(lengths)[filled], minlength=len(lengths)), findings

    def fit(self, values: pa.ChunkedArray, locate: Locate) -> None:
        read = [self.read(chunk) for chunk in values.chunks]
        words = pa.chunked_array([words for words, _, _ in read], pa.string())
        counts = {item["values"]: item["counts"] for item in words.value_counts().to_pylist()}
        floor = self.at_least if self.role == "input" else 1
        self.items = natural_order([word for word, count in counts.items() if count >= floor])
        self.counts = [counts[word] for word in self.items]
        if not self.items:
            often = f" {self.at_least} times" if counts else ""
            raise DataError(f"no training row holds an item{often}", place=f"an {self.role} of type history")
        lengths = np.concatenate([lengths for _, lengths, _ in read])
        longer, empty = int((lengths > self.length).sum()), int((lengths == 0).sum())
        self.rows = {"all": len(lengths), "empty": empty, "longer": longer}

    def tensorize(self, values: pa.Array, locate: Locate) -> Tensorized:
        words, lengths, findings = self.read(values)
        ids = ids_of(words, self.items, first=FIRST, unknown=UNKNOWN)
        present: NDArray[np.bool_] = lengths > 0
        for row in np.flatnonzero(flags(values.is_null())):
            findings.append(Finding(int(row), "no history is given, not even an empty one", "suspect"))
        if self.at_least == 1 or self.role == "output":
            unseen = self.unseen(words, ids, lengths)
            findings += unseen
            if self.role == "output":
                present[[finding.index for finding in unseen]] = False
        ids, lengths = last(*keep_rows(ids, lengths, present), self.length)
        return Tensorized(ids, present, sorted(findings, key=lambda finding: finding.index), lengths=lengths)

    @staticmethod
    def unseen(words: pa.Array, ids: NDArray[np.int32], lengths: Lengths) -> list[Finding]:
        """A finding for each row with items that no training row has."""
        places = np.flatnonzero(ids == UNKNOWN)
        rows, start, counts = np.unique(owners(lengths)[places], return_index=True, return_counts=True)
        examples = words.take(pa.array(places[start])).to_pylist()
        findings = []
        for row, word, count in zip(rows.tolist(), examples, counts.tolist(), strict=True):
            more = f" and {count - 1} more" if count > 1 else ""
            findings.append(Finding(row, f"the item {shorten(word)}{more} is in no training row", "unseen"))
        return findings

    def spec(self) -> Spec:
        return Spec("tokens", (self.length,), FIRST + len(self.items))

    def restore(self, values: Tensor) -> list[Any]:
        """Ids [N, T] to lists of items, ``unknown`` where one is."""
        names = ["padding", "unknown", *self.items]
        return [[names[token] for token in row] for row in unpadded(values)]

    def show(self, value: Tensor) -> dict[str, str]:
        return {"text": f" {self.separator.strip()} ".join(self.restore(value[None])[0])}

    def settings(self) -> dict[str, Any]:
        return {"length": self.length, "at_least": self.at_least, "separator": self.separator}

    def state(self) -> dict[str, Any]:
        return {"items": self.items, "counts": self.counts, "rows": self.rows}

    def load_state(self, state: dict[str, Any]) -> None:
        self.items, self.counts = list(state["items"]), [int(count) for count in state["counts"]]
        self.rows = {key: int(count) for key, count in state["rows"].items()}

    def wire(self) -> Wire:
        facts = {"items": self.items[:LISTED], "count": len(self.items), "length": self.length}
        return Wire(list[Word] | None, self.items[:2], facts)

    def summary(self) -> dict[str, Any]:
        return {
            "items": len(self.items),
            "rarest": min(self.counts),
            "commonest": max(self.counts),
            "empty rows": self.rows["empty"],
            f"rows longer than {self.length}": self.rows["longer"],
        }
