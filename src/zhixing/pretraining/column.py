"""``pretext``: what stands in the place of a target where a model learns from its input alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from ..columns import Claim, Column, Locate, Tensorized
from ..columns.column import Spec, Stored, Wire
from ..errors import UsageError

__all__ = ["Pretext"]


class Pretext(Column):
    """A column of nothing: the truth is made of the input, batch by batch. Or the other half of pairs, whose first half
    is the input: it is read just as that is, with the same vocabulary and statistics.

    Which it is follows from the cells: a table that lacks the column has a column of nulls in its place.

    Attributes:
        of: the input column.
    """

    type = "pretext"
    kind = "ids"
    of: Column

    def __init__(self) -> None:
        self.read = False  # whether there are cells

    @classmethod
    def claims(cls, values: pa.ChunkedArray, name: str) -> Claim | None:
        return None

    def beside(self, inputs: Mapping[str, Column]) -> None:
        """Meet the input.

        Raises:
            UsageError: there is not just one.
        """
        if len(inputs) != 1:
            raise UsageError(
                f"what is learned without labels is learned of one input, and there are {len(inputs)}",
                place="outputs",
                mend="Name one column: zhixing pretrain DATA --column NAME.",
            )
        (self.of,) = inputs.values()

    @property
    def chunk(self) -> int:
        return self.of.chunk

    def fit(self, values: pa.ChunkedArray, locate: Locate) -> None:
        self.read = not pa.types.is_null(values.type)

    def tensorize(self, values: pa.Array, locate: Locate) -> Tensorized:
        if self.read:
            return self.of.tensorize(values, locate)
        return Tensorized(np.zeros(len(values), np.uint8), np.ones(len(values), np.bool_))

    def calibrate(self, stored: Stored, rows: NDArray[np.int64], sums: NDArray[np.int64] | None = None) -> None:
        """The input has learned all that there is."""

    def stored_as(self) -> dict[str, Any]:
        return {**super().stored_as(), "of": self.of.stored_as()} if self.read else super().stored_as()

    def files(self, values: pa.Array, locate: Locate) -> bytes:
        return self.of.files(values, locate) if self.read else b""

    def place(self, cell: Any, locate: Locate) -> str | None:
        return self.of.place(cell, locate) if self.read else None

    def spec(self) -> Spec:
        return self.of.spec()

    def steps_of(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.of.steps_of(lengths)

    def blank(self, rows: int) -> tuple[Tensor, Tensor | None]:
        return self.of.blank(rows)

    def restore(self, values: Tensor) -> list[Any]:
        return [self.of.show(row).get("text", "") for row in values] if self.read else [None] * len(values)

    def settings(self) -> dict[str, Any]:
        return {}

    def state(self) -> dict[str, Any]:
        return {"read": self.read}

    def load_state(self, state: dict[str, Any]) -> None:
        self.read = bool(state["read"])

    def wire(self) -> Wire:
        return self.of.wire()

    def summary(self) -> dict[str, Any]:
        return {"is": "the other half of each pair" if self.read else "made of the input"}
