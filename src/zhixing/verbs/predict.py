"""Predict: rows in, answers out, in the same order."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import torch

from ..calibration import Calibration, Sets
from ..columns import Column
from ..columns.column import Ragged
from ..console import Console
from ..data.batches import Batches
from ..data.prepare import encode_all
from ..data.source import open_source
from ..data.store import Encoded
from ..data.table import Problem, Table
from ..errors import DataError, UsageError
from ..heads import Head
from ..model import Model
from ..recipe import Recipe, reshaped
from .answers import beside, check_out, show, write
from .collect import EXACT, collect
from .sources import SUFFIXES, as_table
from .transcribe import Listener, listener_of, recordings

__all__ = ["Wanted", "predict", "predict_command", "predict_table"]

TOLD = 10  # problems that are told one by one
RUN_BYTES = 64 << 20  # encoded rows that are held at a time
LEAST_RUN = 256
SEGMENTS = pa.list_(pa.struct({"start": pa.float64(), "end": pa.float64(), "text": pa.string()}.items()))


@dataclass(frozen=True)
class Wanted:
    """What is to be told beside the answers: the probabilities of all classes; and, with a ``coverage``, sets of
    classes and intervals of numbers that hold the truth as often, from what the run learned on validation rows; and,
    with ``timestamps``, when each phrase of a recording is said."""

    probabilities: bool = False
    coverage: float | None = None
    sets: Sets = "threshold"
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    timestamps: bool = False

    def check(self) -> None:
        """Raises UsageError where the run cannot tell this."""
        if self.coverage is None:
            return
        if not 0 < self.coverage < 1:
            raise UsageError(f"coverage is a share between 0 and 1, not {self.coverage:g}", mend="Ask for 0.9, say.")
        if not self.calibrations:
            raise UsageError(
                "the run has learned nothing of how sure it may be: it had no validation rows, or no output of classes "
                "or numbers",
                mend="Train with a validation split, or leave out the coverage.",
            )


def predict_table(
    recipe: Recipe,
    columns: Mapping[str, Column],
    model: Model,
    table: Table,
    *,
    device: torch.device,
    wanted: Wanted = Wanted(),
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[pa.Table, list[Problem]]:
    """Answers for every row of a table: one row each, in order; a row that cannot be read has empty answers.

    Rows are read, encoded and answered in runs, so that memory holds no more than one run and the answers.

    Gives the answers and what was wrong with which row.

    Raises:
        DataError: an input column is missing.
        UsageError: coverage is asked for that the run cannot give.
    """
    wanted.check()
    asked = list(recipe.inputs or recipe.outputs)  # a language model goes on from a text
    missing = [name for name in asked if name not in table.columns]
    if missing:
        raise DataError(
            f"the model reads {', '.join(map(repr, missing))}, which this table lacks",
            place=table.name,
            mend=f"It has: {', '.join(table.columns)}.",
        )
    inputs = {name: columns[name] for name in asked}
    size = max(LEAST_RUN, RUN_BYTES // max(1, sum(column.blank(1)[0].nbytes for column in inputs.values())))
    parts, problems = [], list(table.problems)
    for start in range(0, max(1, table.rows), size):
        answers, found = answer(model, columns, inputs, rows_from(table, start, size), device, wanted)
        parts.append(answers)
        problems += [replace(problem, row=start + problem.row) for problem in found]
        progress(min(table.rows, start + size))
    return pa.concat_tables(parts, promote_options="permissive"), problems


def asked_table(recipe: Recipe, source: Any) -> Table:
    return asking(recipe, as_table(recipe, source))


def asking(recipe: Recipe, table: Table) -> Table:
    """The table; a log, or a long series, as what is read to predict what comes after it."""
    lacks = any(name not in table.columns for name in recipe.inputs)
    return reshaped(table, recipe.plain(), ask=True) if lacks and recipe.inputs else table


def rows_from(table: Table, start: int, size: int) -> Table:
    """A run of rows, without a copy."""
    return replace(table, data=table.data.slice(start, size), place=lambda row: table.where(start + row))


def answer(
    model: Model,
    columns: Mapping[str, Column],
    inputs: Mapping[str, Column],
    table: Table,
    device: torch.device,
    wanted: Wanted,
) -> tuple[pa.Table, list[Problem]]:
    """Answers for one run of rows."""
    encoded, problems = encode_all(table, inputs)
    if not model.inputs:
        problems += too_long(columns, encoded, table)
    listener = listener_of(columns, model, device)
    if listener is None and wanted.timestamps:
        raise UsageError("this model tells no times", mend="Leave out timestamps, or take one such as Whisper.")
    if listener is not None:
        return heard(listener, model, columns, encoded, table, problems, wanted)
    return plain(model, columns, encoded, table, problems, wanted, device), problems


def heard(
    listener: Listener,
    model: Model,
    columns: Mapping[str, Column],
    encoded: Mapping[str, Encoded],
    table: Table,
    problems: list[Problem],
    wanted: Wanted,
) -> tuple[pa.Table, list[Problem]]:
    """Answers of a model that writes what is said: recordings that are longer than it listens to, and all of them where
    times are wanted, window by window."""
    cells, name = table[listener.read].to_pylist(), listener.written
    rows = [row for row, cell in enumerate(cells) if wanted.timestamps or listener.is_long(cell, table.locate)]
    said, problems = recordings(listener, table, rows, problems)
    short = plain(model, columns, encoded, table, problems, wanted, listener.device, apart=set(said))
    if not said:
        return short, problems
    texts, segments = short[name].to_pylist(), list[Any]([None] * table.rows)
    for row, found in said.items():
        texts[row] = " ".join(segment.text for segment in found)
        segments[row] = [segment._asdict() for segment in found]
    out = short.set_column(short.column_names.index(name), name, pa.array(texts, pa.string()))
    return out.append_column(f"{name}_segments", pa.array(segments, SEGMENTS)) if wanted.timestamps else out, problems


def plain(
    model: Model,
    columns: Mapping[str, Column],
    encoded: Mapping[str, Encoded],
    table: Table,
    problems: Sequence[Problem],
    wanted: Wanted,
    device: torch.device,
    *,
    apart: Collection[int] = (),
) -> pa.Table:
    """Answers for the rows that can be read and are not answered ``apart``; those of the others are empty."""
    good = np.ones(table.rows, bool)
    good[[*(problem.row for problem in problems if problem.fatal), *apart]] = False
    rows = np.flatnonzero(good).astype(np.int64)
    if not len(rows):
        return pa.table({name: pa.nulls(table.rows) for name in model.outputs})
    batches = Batches({name: one.batch for name, one in encoded.items()}, device)
    seen = collect(model, batches, rows, EXACT, with_targets=False, with_answers=True)
    back = pa.array(np.where(good, np.cumsum(good) - 1, 0), mask=~good)  # each row's place among the good ones
    answers: dict[str, pa.Array] = {}
    for name in model.outputs:
        cells = decoded(model.head(name), columns[name], seen.answers[name], wanted, wanted.calibrations.get(name))
        answers |= {f"{name}_{part}" if part else name: found.take(back) for part, found in cells.items()}
    return pa.table(answers)


def decoded(
    head: Head, column: Column, prediction: torch.Tensor, wanted: Wanted, calibration: Calibration | None
) -> dict[str, pa.Array]:
    """The answer under ``""``, and what stands beside it."""
    if calibration is None:
        cells = head.decode(prediction, column, probabilities=wanted.probabilities)
        return {part: pa.array(found) for part, found in cells.items()}
    cells = head.decode(calibration.apply(prediction), column, probabilities=wanted.probabilities)
    out = {part: pa.array(found) for part, found in cells.items()}
    if wanted.coverage is not None:
        out |= calibration.region(head, column, prediction, wanted.coverage, wanted.sets)
    return out


def too_long(columns: Mapping[str, Column], encoded: Mapping[str, Encoded], table: Table) -> list[Problem]:
    """Beginnings that leave a language model too little room to go on from them."""
    out = []
    for name, one in encoded.items():
        length, stored = columns[name].spec().shape[0], one.batch
        assert isinstance(stored, Ragged)
        tokens = np.diff(stored.offsets) - one.present  # an output ends with END, which is not read
        for row in np.flatnonzero(tokens > length // 2).tolist():
            reason = f"a beginning of {tokens[row]} tokens, more than half of the {length} that are read"
            out.append(Problem(row, name, table.where(row), reason))
    return out


def predict(
    recipe: Recipe,
    columns: Mapping[str, Column],
    model: Model,
    source: Any,
    *,
    device: torch.device,
    wanted: Wanted = Wanted(),
) -> Any:
    """The Python face of :func:`predict_table`: a data frame for a data frame, else an Arrow table.

    Raises:
        DataError: a row cannot be read; it is named.
    """
    table = asked_table(recipe, source)
    answers, problems = predict_table(recipe, columns, model, table, device=device, wanted=wanted)
    fatal = [problem for problem in problems if problem.fatal]
    if fatal:
        raise DataError(f"{len(fatal)} rows cannot be read; the first: {fatal[0]}", place=table.name)
    if type(source).__module__.partition(".")[0] != "pandas":
        return answers
    frame = answers.to_pandas()
    frame.index = source.index
    return frame


# The command ---------------------------------------------------------------------------------------------------------


def predict_command(
    recipe: Recipe,
    columns: Mapping[str, Column],
    model: Model,
    inputs: Sequence[str],
    *,
    device: torch.device,
    out: Path | None,
    form: str,
    wanted: Wanted,
    console: Console,
) -> dict[str, Any]:
    """``zhixing predict``: print or write the answers beside what was asked; gives a summary.

    Broken rows are told of and have empty answers, so that nothing shifts.
    """
    if out is not None:
        check_out(out)
    with TemporaryDirectory() as folder, console:
        table = table_of(recipe, inputs, Path(folder))
        answers, problems = predict_table(
            recipe, columns, model, table, device=device, wanted=wanted,
            progress=lambda done: console.progress("predicting", done, table.rows),
        )  # fmt: skip
        lost = {problem.place for problem in table.problems if problem.fatal}
        fatal = [problem for problem in problems if problem.fatal]
        for problem in fatal[:TOLD]:
            console.warn(str(problem))
        if len(fatal) > TOLD:
            console.warn(f"… and {len(fatal) - TOLD} more")
        if lost:
            console.warn(f"{len(lost)} rows could not be read as rows at all, and have no answer")
        whole = beside(table, answers)
    if out is not None:
        write(whole, out)
        console.say(f"{whole.num_rows:,} rows in {out}")
    else:
        show(whole, form)
    broken = len({problem.place for problem in fatal})
    return {"rows": whole.num_rows, "broken": broken, "out": None if out is None else str(out)}


def table_of(recipe: Recipe, inputs: Sequence[str], folder: Path) -> Table:
    """What was asked for on the command line; ``folder`` is a temporary one for standard input."""
    if not inputs or list(inputs) == ["-"]:
        return asking(recipe, from_standard_input(folder))
    if len(inputs) == 1:
        return asked_table(recipe, inputs[0])
    strange = [name for name in inputs if Path(name).suffix.lower() not in SUFFIXES]
    if strange:
        raise UsageError(f"{strange[0]!r} is no picture or sound", mend="Give one table, one folder, or such files.")
    return as_table(recipe, list(inputs))


def from_standard_input(folder: Path) -> Table:
    """JSON lines or CSV, told apart by the first character. Files that cells name lie in the current folder."""
    if sys.stdin.isatty():
        raise UsageError(
            "there is nothing to predict for", mend="Give files, a folder, a table, or rows on standard input."
        )
    content = sys.stdin.buffer.read()
    first = content.lstrip()[:1]
    path = folder / ("input.json" if first == b"[" else "input.jsonl" if first == b"{" else "input.csv")
    path.write_bytes(content)

    def named(place: object) -> str:
        return str(place).replace(str(path), "standard input")

    try:
        table = open_source(path, name="standard input")
    except DataError as error:
        raise DataError(error.what, place=named(error.place), mend=error.mend) from error
    place = table.where
    problems = [replace(problem, place=named(problem.place)) for problem in table.problems]
    return replace(table, base=Path(), place=lambda row: named(place(row)), problems=problems)
