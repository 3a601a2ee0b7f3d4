"""The table: rows and named columns, from any source, before anything is interpreted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from ..errors import DataError, did_you_mean

__all__ = ["Problem", "Table", "resolve"]

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def resolve(base: Path | None, cell: str) -> Path:
    """The file that a cell names: beside the table's file (``base``) where the path is relative.

    Absolute paths and ``..`` are allowed, since the table is the user's own. The file is not opened here.

    Raises:
        DataError: an empty name, one that no file can have, or a URL: nothing is ever fetched.

    >>> resolve(Path("photos"), "cat/1.jpg").as_posix()
    'photos/cat/1.jpg'
    """
    if not cell:
        raise DataError("the name of a file is empty")
    if URL.match(cell):
        raise DataError(f"{cell!r} is a URL, and nothing is fetched", mend="Download the file and give its path.")
    if "\0" in cell:
        raise DataError(f"{cell!r} is no path: it holds a zero byte")
    return base / cell if base is not None else Path(cell)


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one cell or row.

    ``row`` is the row's number in the table (0 is the first), ``place`` says where a person finds it (a file and
    line, an image's path), ``reason`` is the rule and the value that breaks it. A ``fatal`` row cannot be used; a
    row that is not fatal is kept as it is, and told of.
    """

    row: int
    column: str
    place: str
    reason: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{self.place}: row {self.row}, column {self.column!r}: {self.reason}"


@dataclass
class Table:
    """Rows and named columns.

    Args:
        data: the cells. Text formats give strings (or binary where a cell is not UTF-8), so that one bad value does
            not change the type of its column. Arrays of a fixed shape (pictures from idx or npz) are Arrow's
            fixed-shape tensors.
        name: a short name for the run folder, like ``mnist``.
        base: the folder that relative paths in cells start from.
        split_column: the column that says ``train``, ``validation`` or ``test``, when the source has such a thing.
        place: where a person finds a row.
        problems: rows that could not be read as rows at all, one by one.
        target: the column that a known data set is there to predict.

    A fatal problem of a table is a row that is *not in it*: its ``row`` is the number of rows that were read before it
    (the number it would have had, were it the only one lost), its ``place`` the true line or file. A problem that is
    not fatal tells of a row that is in the table under that number. So the numbers in ``problems`` never ask for a row
    to be taken out, and ``where`` gives the true place of each row that is there.
    """

    data: pa.Table
    name: str = "table"
    base: Path | None = None
    split_column: str | None = None
    place: Callable[[int], str] | None = None
    problems: list[Problem] = field(default_factory=list)
    target: str | None = None

    @property
    def rows(self) -> int:
        return int(self.data.num_rows)

    @property
    def columns(self) -> list[str]:
        """Names of the columns that hold data, in order; the split column is not one of them."""
        return [name for name in self.data.column_names if name != self.split_column]

    def __getitem__(self, column: str) -> pa.ChunkedArray:
        if column not in self.data.column_names:
            raise DataError(f"no column is called {column!r}", place=self.name, mend=did_you_mean(column, self.columns))
        return self.data[column]

    def locate(self, cell: str) -> Path:
        """The file that a cell of this table names."""
        return resolve(self.base, cell)

    def where(self, row: int) -> str:
        """Where a person finds this row."""
        return self.place(row) if self.place else f"{self.name}, row {row}"

    def take(self, rows: Iterable[int]) -> Table:
        """The same table with only these rows, in this order."""
        chosen = list(rows)
        place = self.place
        return Table(
            data=self.data.take(pa.array(chosen, pa.int64())),
            name=self.name,
            base=self.base,
            split_column=self.split_column,
            target=self.target,
            place=(lambda row: place(chosen[row])) if place else None,
        )
