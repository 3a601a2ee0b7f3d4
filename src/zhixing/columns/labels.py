"""``labels``: a class for each word of a text."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from ..errors import DataError
from .column import Claim, Column, Finding, Locate, Spec, Tensorized, Wire, natural_order, shorten
from .ragged import first, items_of, keep_rows, owners, unpadded
from .vocabulary import PAD, ids_of
from .wire import LISTED, Word

__all__ = ["Labels"]

FIRST = PAD + 1
MOST = 512  # labels of a row, where nothing else is asked for: as many as a text has tokens


class Labels(Column):
    """One class for each token of a text whose cells are lists of words: parts of speech, named entities.

    Cells are lists of classes, or text with white space between them. The ids are 0 padding, then the classes of
    training rows from 1. A row with a class that no training row has, or with a label left out, is not present: labels
    stand beside words, so none can be dropped. A row with more labels than ``length`` is kept cut, and told of.

    >>> from pathlib import Path
    >>> column = Labels()
    >>> column.fit(pa.chunked_array([["NOUN VERB", "VERB DET NOUN"]]), Path)
    >>> column.classes, column.tensorize(pa.array(["DET NOUN"]), Path).values.tolist()
    (['DET', 'NOUN', 'VERB'], [1, 2])
    """

    type = "labels"
    kind = "tokens"

    def __init__(
        self,
        *,
        length: Annotated[
            int | None,
            Field(ge=1, description="most labels of a row; left open, the longest training row's, up to 512"),
        ] = None,
    ) -> None:
        self.length = length
        self.classes: list[str] = []
        self.counts: list[int] = []
        self.longest = 0

    @property
    def chunk(self) -> int:
        return min(65536, max(64, 2**21 // (self.length or MOST)))

    @classmethod
    def claims(cls, values: pa.ChunkedArray, name: str) -> Claim | None:
        return None  # lists of words are tags or a text as often: this has to be asked for

    def fit(self, values: pa.ChunkedArray, locate: Locate) -> None:
        read = [items_of(chunk, None) for chunk in values.chunks]
        words = pa.chunked_array([items.words for items in read], pa.string()).drop_null()
        counts = {item["values"]: item["counts"] for item in words.value_counts().to_pylist()}
        self.classes = natural_order(list(counts))
        self.counts = [counts[word] for word in self.classes]
        if not self.classes:
            raise DataError("no training row holds a label", place=f"an {self.role} of type labels")
        self.longest = max(int(items.lengths.max(initial=0)) for items in read)
        if self.length is None:
            self.length = min(self.longest, MOST)

    def tensorize(self, values: pa.Array, locate: Locate) -> Tensorized:
        assert self.length is not None, "fit comes first"
        words, lengths, findings = items_of(values, None)
        ids = ids_of(words, self.classes, first=FIRST, unknown=PAD)
        present: NDArray[np.bool_] = lengths > 0
        present[[finding.index for finding in findings]] = False
        findings += self.faults(words, np.flatnonzero(ids == PAD), owners(lengths), present)
        ids, lengths = keep_rows(ids, lengths, present)
        for row in np.flatnonzero(lengths > self.length):
            reason = f"{lengths[row]} labels, of which the first {self.length} are kept"
            findings.append(Finding(int(row), reason, "suspect"))
        ids, lengths = first(ids, lengths, self.length)
        return Tensorized(ids, present, sorted(findings, key=lambda finding: finding.index), lengths=lengths)

    @staticmethod
    def faults(
        words: pa.Array, places: NDArray[np.int64], rows: NDArray[np.int64], present: NDArray[np.bool_]
    ) -> list[Finding]:
        """The first label without an id of each row that has such; those rows are no longer present."""
        findings = []
        wrong, start = np.unique(rows[places], return_index=True)
        for row, place in zip(wrong.tolist(), places[start].tolist(), strict=True):
            word = words[place].as_py()
            if present[row] and word is None:
                findings.append(Finding(row, f"label {place - int(np.searchsorted(rows, row)) + 1} is empty"))
            elif present[row]:
                findings.append(Finding(row, f"the label {shorten(word)} is in no training row", "unseen"))
        present[wrong] = False
        return findings

    def spec(self) -> Spec:
        assert self.length is not None, "fit comes first"
        return Spec("tokens", (self.length,), FIRST + len(self.classes))

    def restore(self, values: Tensor) -> list[Any]:
        """Ids [N, T] to lists of classes."""
        return [[self.classes[token - FIRST] for token in row] for row in unpadded(values)]

    def show(self, value: Tensor) -> dict[str, str]:
        return {"text": " ".join(self.restore(value[None])[0])}

    def settings(self) -> dict[str, Any]:
        return {"length": self.length}

    def state(self) -> dict[str, Any]:
        return {"classes": self.classes, "counts": self.counts, "longest": self.longest}

    def load_state(self, state: dict[str, Any]) -> None:
        self.classes, self.counts = list(state["classes"]), [int(count) for count in state["counts"]]
        self.longest = int(state["longest"])

    def wire(self) -> Wire:
        facts = {"classes": self.classes[:LISTED], "count": len(self.classes), "length": self.length}
        return Wire(list[Word] | None, self.classes[:2], facts)

    def summary(self) -> dict[str, Any]:
        return {
            "classes": len(self.classes),
            "rarest": min(self.counts),
            "commonest": max(self.counts),
            "longest": self.longest,
        }
