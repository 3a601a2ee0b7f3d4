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
from .column import (
    Claim,
    Column,
    Finding,
    Locate,
    Spec,
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

__all__ = ["Category", "words"]


def words(values: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, list[Finding]]:
    """Cells as text: whole floats without their ``.0``, blank and missing cells as null; and what is not UTF-8.

    Raises:
        DataError: cells that are no single value, like lists.
    """
    values, findings = whole(values), list[Finding]()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if is_bytes(values.type):
        text, findings = text_of(values)
    elif pa.types.is_floating(values.type):
        text = words_of_floats(values)
    else:
        try:
            text = pc.cast(values, pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise DataError(f"cells stored as {values.type} name no class", place="a column of type category") from None
    trimmed = pc.utf8_trim_whitespace(text)
    return pc.if_else(pc.equal(trimmed, ""), None, trimmed), findings


def words_of_floats(values: pa.Array) -> pa.Array:
    exact = pc.less(pc.abs(values), 2.0**53)  # beyond, and at infinity, there is no whole number to write
    whole_ones = pc.and_(exact, pc.equal(values, pc.floor(values)))
    as_int = pc.cast(pc.cast(pc.if_else(whole_ones, values, 0.0), pa.int64(), safe=False), pa.string())
    text = pc.if_else(whole_ones, as_int, pc.cast(values, pa.string()))
    return pc.if_else(pc.is_nan(values), None, text)


def whole_numbers(cells: list[Any]) -> set[int] | None:
    """The different cells as whole numbers; None where one is not."""
    try:
        numbers = {cell: int(cell) for cell in set(cells)}
    except (ValueError, OverflowError):
        return None
    return set(numbers.values()) if all(not isinstance(c, float) or c == n for c, n in numbers.items()) else None


def is_code(cells: list[Any]) -> bool:
    """Digits of one length, some with a leading zero, are a code (a ZIP code, say): as numbers they would lose it."""
    return (
        bool(cells)
        and all(isinstance(cell, str) and cell.isdigit() for cell in cells)
        and len({len(cell) for cell in cells}) == 1
        and len(cells[0]) > 1
        and any(cell[0] == "0" for cell in cells)
    )


def like_labels(numbers: set[int]) -> bool:
    """Small whole numbers that leave few gaps, as numbers of classes do and measured quantities do not."""
    low, high = min(numbers), max(numbers)
    few = len(numbers) <= 20 and low >= -1 and high <= 100
    return few and (len(numbers) <= 2 or 2 * len(numbers) > high - low + 1)


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
        # NumPy and pandas turn whole numbers to floats where some are missing.
        number = pa.types.is_integer(kind) or (pa.types.is_floating(kind) and values.null_count > 0)
        if not (is_text(kind) or number):
            return None
        cells = sample(values, 5000)
        if not cells:
            return None
        distinct = len(set(cells))
        found = f"{distinct} different {{}} in {len(cells)} sampled cells"
        if is_code(cells):
            found = found.format("codes with leading zeros")
            return Claim(0.65, found) if distinct <= max(2, 0.5 * len(cells)) else None
        numbers = whole_numbers(cells)
        if numbers is not None:
            if distinct <= 0.5 * len(cells) and like_labels(numbers):
                return Claim(0.65, found.format("small whole numbers"))
            return None
        if not is_text(kind):
            return None
        short = max(len(cell) for cell in cells) <= 64
        if short and (distinct <= 20 or distinct <= 0.2 * len(cells)):
            return Claim(0.5, found.format("values"))
        return None

    def fit(self, values: pa.ChunkedArray, locate: Locate) -> None:
        counted = words(values)[0].value_counts()
        count = {item["values"]: item["counts"] for item in counted.to_pylist() if item["values"] is not None}
        floor = self.at_least if self.role == "input" else 1
        self.classes = natural_order([word for word, rows in count.items() if rows >= floor])
        self.counts = [count[word] for word in self.classes]
        if not self.classes:
            raise DataError("no training row holds a class", place=f"an {self.role} of type category")
        if len(self.classes) > self.most:
            raise DataError(
                f"{len(self.classes)} classes, more than {self.most}, like {shorten(self.classes[0])}",
                place=f"an {self.role} of type category",
                mend="Leave the column out, give it another type, or raise its setting 'most'.",
            )

    @property
    def unknown(self) -> int:
        return len(self.classes)

    @property
    def missing(self) -> int:
        return len(self.classes) + 1

    def tensorize(self, values: pa.Array, locate: Locate) -> Tensorized:
        text, findings = words(values)
        found = pc.index_in(text, value_set=pa.array(self.classes, pa.string()))
        codes = pc.fill_null(found, self.unknown).to_numpy(zero_copy_only=False).astype(np.int64)
        empty = text.is_null().to_numpy(zero_copy_only=False)
        codes[empty] = self.missing
        present: NDArray[np.bool_] = ~empty if self.role == "input" else codes < self.unknown
        if self.at_least == 1 or self.role == "output":
            unseen = np.flatnonzero(codes == self.unknown)
            findings += [
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

    def wire(self) -> Wire:
        facts = {"classes": self.classes[:LISTED], "count": len(self.classes)}
        return Wire(Word | None, self.classes[0], facts)

    def summary(self) -> dict[str, Any]:
        return {"classes": len(self.classes), "rarest": min(self.counts), "commonest": max(self.counts)}
