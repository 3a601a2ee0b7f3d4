"""``category``: one of several classes."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from ..errors import DataError
from .column import Claim, Column, Finding, Locate, Spec, Tensorized, is_text, natural_order, sample, shorten

__all__ = ["Category", "words"]


def words(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Cells as text: whole floats without their ``.0``, blank and missing cells as null."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks() if values.num_chunks != 1 else values.chunk(0)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_floating(values.type):
        whole = pc.equal(values, pc.floor(values))
        as_int = pc.cast(pc.cast(pc.if_else(whole, values, 0.0), pa.int64(), safe=False), pa.string())
        text = pc.if_else(whole, as_int, pc.cast(values, pa.string()))
        text = pc.if_else(pc.is_nan(values), None, text)
    else:
        text = pc.cast(values, pa.string())
    trimmed = pc.utf8_trim_whitespace(text)
    return pc.if_else(pc.equal(trimmed, ""), None, trimmed)


def whole_numbers(cells: list[Any]) -> set[int] | None:
    """The different cells as whole numbers; None where one is not."""
    try:
        return {int(cell) for cell in set(cells)}
    except ValueError:
        return None


class Category(Column):
    """One of several classes, told apart by their text.

    As an input, a class that training rows do not have becomes *unknown* and an empty cell *missing*, each with an
    index of its own after the classes. As an output, such a cell gives no target.
    """

    type = "category"
    kind = "ids"

    def __init__(
        self,
        *,
        at_least: Annotated[
            int, Field(ge=1, description="classes with fewer training rows count as unknown (inputs only)")
        ] = 1,
        most: Annotated[int, Field(ge=2, description="more classes than this are taken for a mistake")] = 100_000,
    ) -> None:
        self.at_least, self.most = at_least, most
        self.classes: list[str] = []
        self.counts: list[int] = []

    @classmethod
    def claims(cls, values: pa.ChunkedArray, name: str) -> Claim | None:
        kind = values.type
        if pa.types.is_boolean(kind) or pa.types.is_dictionary(kind):
            return Claim(0.9, f"stored as {kind}")
        if not (is_text(kind) or pa.types.is_integer(kind)):
            return None
        cells = sample(values, 5000)
        distinct = len(set(cells))
        if not cells:
            return None
        numbers = whole_numbers(cells)
        if numbers is not None:
            if distinct <= 20 and distinct <= 0.5 * len(cells) and all(-1 <= number <= 100 for number in numbers):
                return Claim(0.65, f"{distinct} different small whole numbers in {len(cells)} sampled cells")
            return None
        short = max(len(cell) for cell in cells) <= 64
        if short and (distinct <= 20 or distinct <= 0.2 * len(cells)):
            return Claim(0.5, f"{distinct} different values in {len(cells)} sampled cells")
        return None

    def fit(self, values: pa.ChunkedArray, locate: Locate) -> None:
        counted = words(values).value_counts()
        count = {item["values"]: item["counts"] for item in counted.to_pylist() if item["values"] is not None}
        floor = self.at_least if self.role == "input" else 1
        self.classes = natural_order([word for word, rows in count.items() if rows >= floor])
        self.counts = [count[word] for word in self.classes]
        if not self.classes:
            raise DataError("no training row holds a class", place=f"a {self.role} of type category")
        if len(self.classes) > self.most:
            raise DataError(
                f"{len(self.classes)} classes, more than {self.most}, like {shorten(self.classes[0])}",
                place=f"a {self.role} of type category",
                mend="Leave the column out, give it another type, or raise its setting 'most'.",
            )

    @property
    def unknown(self) -> int:
        return len(self.classes)

    @property
    def missing(self) -> int:
        return len(self.classes) + 1

    def tensorize(self, values: pa.Array, locate: Locate) -> Tensorized:
        text = words(values)
        found = pc.index_in(text, value_set=pa.array(self.classes, pa.string()))
        codes = pc.fill_null(found, self.unknown).to_numpy(zero_copy_only=False).astype(np.int64)
        empty = text.is_null().to_numpy(zero_copy_only=False)
        codes[empty] = self.missing
        present: NDArray[np.bool_] = ~empty if self.role == "input" else codes < self.unknown
        findings = []
        if self.at_least == 1 or self.role == "output":
            unseen = np.flatnonzero(codes == self.unknown)
            findings = [
                Finding(int(i), f"the class {shorten(text[int(i)].as_py())} is in no training row", "unseen")
                for i in unseen
            ]
        if self.role == "output":
            codes[~present] = 0
        return Tensorized(codes, present, findings)

    def spec(self) -> Spec:
        return Spec("ids", vocabulary=len(self.classes) + 2)

    def restore(self, values: Tensor) -> list[Any]:
        names: list[str | None] = [*self.classes, "unknown", None]
        return [names[int(code)] for code in values]

    def settings(self) -> dict[str, Any]:
        return {"at_least": self.at_least, "most": self.most}

    def state(self) -> dict[str, Any]:
        return {"classes": self.classes, "counts": self.counts}

    def load_state(self, state: dict[str, Any]) -> None:
        self.classes, self.counts = list(state["classes"]), [int(count) for count in state["counts"]]

    def summary(self) -> dict[str, Any]:
        return {"classes": len(self.classes), "rarest": min(self.counts), "commonest": max(self.counts)}
