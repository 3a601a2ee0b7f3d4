"""From a table to tensors: fit on training rows, encode once, say what is wrong with which row."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ..columns import Column
from ..columns.column import Ragged
from ..errors import DataError
from .batches import ColumnBatch
from .split import Split
from .store import Encoded, encode_column
from .table import Problem, Table

__all__ = ["Prepared", "encode_all", "prepare"]

TOLERATED = 0.01  # with on_error: auto, a larger share of broken rows stops
DUPLICATES_TOLD = 0.05  # where more rows than this are copies, copies are in the nature of the table
Progress = Callable[[str, int, int], None]


@dataclass
class Prepared:
    """Tensors of all rows, the usable rows of each split, and all that was found wrong.

    The tensors have one row for each row of the table, broken ones included, so that a row's number is the same
    everywhere; ``split`` holds usable rows alone, in the table's order.
    """

    columns: dict[str, ColumnBatch | Ragged]
    split: Split
    rows: int
    problems: list[Problem] = field(default_factory=list)
    fingerprint: str = ""

    @property
    def broken(self) -> int:
        """How many rows cannot be used."""
        return len({p.place if p.column == "" else p.row for p in self.problems if p.fatal})


def prepare(
    table: Table,
    columns: Mapping[str, Column],
    split: Split,
    *,
    cache: Path | None,
    on_error: str = "auto",
    progress: Progress = lambda name, done, rows: None,
) -> Prepared:
    """Fit the columns on training rows, encode all rows, and judge each row.

    Raises:
        DataError: too many broken rows for ``on_error``; the message counts them and shows the first.
    """
    train = split["train"]
    for name, column in columns.items():
        cells = table[name]
        if column.known:
            continue
        try:
            column.fit(cells if len(train) == len(cells) else cells.take(pa.array(train)), table.locate)
        except DataError as error:  # a column does not know what it is called
            place = f"{table.name}, column {name!r}" + (f", {error.place}" if error.place is not None else "")
            raise DataError(error.what, place=place, mend=error.mend) from error
    encoded, problems = encode_all(table, columns, cache=cache, progress=progress)
    bad = np.zeros(table.rows, bool)
    bad[[problem.row for problem in problems if problem.fatal]] = True
    outputs = [name for name, column in columns.items() if column.role == "output"]
    problems += without_target(table, outputs, encoded, bad)
    bad[[problem.row for problem in problems if problem.fatal]] = True
    lost = [problem for problem in table.problems if problem.fatal]
    stop_if_too_many(table, [*lost, *(p for p in problems if p.fatal)], int(bad.sum()) + len(lost), on_error)
    usable = {part: rows[~bad[rows]] for part, rows in split.items()}
    if not len(usable["train"]):
        raise DataError("no usable row is left to learn from", place=table.name)
    problems += duplicates(table, encoded, bad)
    tensors = {}
    for name, column in columns.items():
        batch = encoded[name].batch
        stored = batch if isinstance(batch, Ragged) else batch.values
        if not column.known:
            column.calibrate(stored, usable["train"], encoded[name].sums)
        tensors[name] = with_mask(encoded[name], column, bad)
    problems.sort(key=lambda problem: (problem.row, problem.column))
    return Prepared(tensors, usable, table.rows, [*table.problems, *problems], fingerprint(encoded, usable))


def fingerprint(encoded: Mapping[str, Encoded], split: Split) -> str:
    """A hash of every row's content and of which split it is in."""
    digest = hashlib.blake2b(digest_size=20)
    for name, one in encoded.items():
        digest.update(name.encode() + b"\0" + one.hashes.tobytes())
    for rows in split.values():
        digest.update(rows.tobytes() + b"\0")
    return digest.hexdigest()


def encode_all(
    table: Table,
    columns: Mapping[str, Column],
    *,
    cache: Path | None = None,
    progress: Progress = lambda name, done, rows: None,
) -> tuple[dict[str, Encoded], list[Problem]]:
    """Encode the columns that have been fitted, and say what is wrong with which cell."""
    encoded, problems = {}, []
    for name, column in columns.items():
        done = 0

        def tell(rows: int, name: str = name) -> None:
            nonlocal done
            done += rows
            progress(name, done, table.rows)

        encoded[name] = encode_column(table, name, column, cache=cache, progress=tell)
        values = table[name]
        for finding in encoded[name].findings:
            fatal = finding.kind == "broken" or (finding.kind == "unseen" and column.role == "output")
            try:
                cell = values[finding.index].as_py()
            except (ValueError, OverflowError):  # Arrow holds dates that Python does not
                cell = None
            place = column.place(cell, table.locate) or table.where(finding.index)
            problems.append(Problem(finding.index, name, place, finding.reason, fatal))
    return encoded, problems


def without_target(
    table: Table, outputs: list[str], encoded: Mapping[str, Encoded], bad: NDArray[np.bool_]
) -> list[Problem]:
    """Rows that lack every target, and are not known to be bad already."""
    if not outputs:
        return []
    present = np.logical_or.reduce([encoded[name].present for name in outputs])
    name = outputs[0] if len(outputs) == 1 else ", ".join(outputs)
    return [
        Problem(int(row), name, table.where(int(row)), "the cell is empty, so there is nothing to learn from")
        for row in np.flatnonzero(~present & ~bad)
    ]


def stop_if_too_many(table: Table, fatal: list[Problem], count: int, on_error: str) -> None:
    total = table.rows + sum(problem.fatal for problem in table.problems)
    if not count or on_error == "skip" or (on_error == "auto" and count <= TOLERATED * total):
        return
    shown = "".join(f"\n  {problem}" for problem in fatal[:10])
    more = f"\n  … and {len(fatal) - 10} more" if len(fatal) > 10 else ""
    raise DataError(
        f"{count} of {total} rows ({count / total:.2%}) cannot be used:{shown}{more}\n",
        place=table.name,
        mend="Mend them, or leave them out with --on-error skip (they are listed in the run).",
    )


def duplicates(table: Table, encoded: Mapping[str, Encoded], bad: NDArray[np.bool_]) -> list[Problem]:
    """Rows that repeat an earlier one in every column. They are kept, and told of."""
    if not encoded:
        return []
    whole = np.zeros(table.rows, np.uint64)
    for place, one in enumerate(encoded.values()):
        whole = (whole ^ one.hashes) * np.uint64(0x9E3779B97F4A7C15 + 2 * place)
    rows = np.flatnonzero(~bad)
    _, first, inverse = np.unique(whole[rows], return_index=True, return_inverse=True)
    original = rows[first[inverse]]
    copies = rows != original
    count = int(copies.sum())
    if count > DUPLICATES_TOLD * max(1, len(rows)):
        row = int(rows[copies][0])
        note = f"{count} rows repeat an earlier row in every column; this is the first"
        return [Problem(row, "", table.where(row), note, fatal=False)]
    return [
        Problem(int(row), "", table.where(int(row)), f"repeats row {int(same)} in every column", fatal=False)
        for row, same in zip(rows[copies], original[copies], strict=True)
    ]


def with_mask(one: Encoded, column: Column, bad: NDArray[np.bool_]) -> ColumnBatch | Ragged:
    """The column's tensors; a mask of the rows that have a target, where some usable row has none."""
    if isinstance(one.batch, Ragged):  # a row without steps has none
        return one.batch
    if column.role == "output" and not (one.present | bad).all():
        return ColumnBatch(one.batch.values, torch.from_numpy(one.present))
    return one.batch
