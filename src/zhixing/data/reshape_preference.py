"""Two columns of texts, of which one is preferred, as one column of pairs."""

from __future__ import annotations

from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from ..columns.column import whole
from ..errors import DataError
from .ordered import Reshape
from .table import Table

__all__ = ["Preference"]


class Preference(Reshape):
    """A text that is preferred and one that is not, in two columns, to one column of pairs ``{chosen, rejected}``.

    All other columns, and the split, stay as they are.

    Example:
        >>> rows = Table(pa.table({"prompt": ["Hi"], "chosen": ["Hello!"], "rejected": ["What?"]}))
        >>> Preference().apply(rows).data.to_pylist()
        [{'prompt': 'Hi', 'answer': {'chosen': 'Hello!', 'rejected': 'What?'}}]
    """

    def __init__(
        self,
        *,
        chosen: Annotated[str, Field(description="the column of texts that are preferred")] = "chosen",
        rejected: Annotated[str, Field(description="the column of texts that are not")] = "rejected",
        to: Annotated[str, Field(description="what the column of pairs is called")] = "answer",
    ) -> None:
        self.chosen, self.rejected, self.to = chosen, rejected, to

    def apply(self, table: Table) -> Table:
        used = (self.chosen, self.rejected)
        if self.to in table.data.column_names and self.to not in used:
            raise DataError(
                f"a column is called {self.to!r} already",
                place=table.name,
                mend="Call the pairs otherwise: data.reshape.to.",
            )
        parts = [whole(table[name]) for name in used]
        try:
            parts = [pc.cast(part, pa.string()) for part in parts]
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            kinds = " and ".join(str(part.type) for part in parts)
            raise DataError(
                f"cells stored as {kinds} are no texts", place=f"{table.name}, {' and '.join(used)}"
            ) from None
        kept = {name: table.data[name] for name in table.data.column_names if name not in used}
        pairs = pa.StructArray.from_arrays(parts, names=["chosen", "rejected"])
        return Table(
            pa.table({**kept, self.to: pairs}),
            name=table.name,
            base=table.base,
            split_column=table.split_column,
            place=table.place,
            problems=table.problems,
            target=self.to,
        )

    def ask(self, table: Table) -> Table:
        return table
