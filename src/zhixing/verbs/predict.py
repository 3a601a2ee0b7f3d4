"""Predict: rows in, answers out, in the same order."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import torch
from rich.console import Console as RichConsole
from rich.table import Table as RichTable

from ..columns import Column
from ..columns.image import SUFFIXES
from ..console import Console
from ..data.batches import Batches
from ..data.prepare import encode_all
from ..data.source import open_source
from ..data.table import Problem, Table
from ..errors import DataError, UsageError
from ..model import Model
from ..recipe import Recipe
from .evaluate import EXACT, collect

__all__ = ["predict", "predict_command", "predict_table"]

SHOWN = 50


def predict_table(
    recipe: Recipe,
    columns: Mapping[str, Column],
    model: Model,
    table: Table,
    *,
    device: torch.device,
    probabilities: bool = False,
) -> tuple[pa.Table, list[Problem]]:
    """Answers for every row of a table: one row each, in order; a row that cannot be read has empty answers.

    Gives the answers and what was wrong with which row.

    Raises:
        DataError: an input column is missing.
    """
    missing = [name for name in recipe.inputs if name not in table.columns]
    if missing:
        raise DataError(
            f"the model reads {', '.join(map(repr, missing))}, which this table lacks",
            place=table.name,
            mend=f"It has: {', '.join(table.columns)}.",
        )
    inputs = {name: columns[name] for name in recipe.inputs}
    encoded, problems = encode_all(table, inputs)
    good = np.ones(table.rows, bool)
    good[[problem.row for problem in problems if problem.fatal]] = False
    rows = np.flatnonzero(good).astype(np.int64)
    answers: dict[str, pa.Array] = {}
    seen = collect(
        model, Batches({name: one.batch for name, one in encoded.items()}, device), rows, EXACT, with_targets=False
    )
    back = pa.array(np.where(good, np.cumsum(good) - 1, 0), mask=~good)  # each row's place among the good ones
    for name in model.outputs:
        if not len(rows):
            answers[name] = pa.nulls(table.rows)
            continue
        for part, cells in model.head(name).decode(seen.predictions[name], columns[name]).items():
            if probabilities or not part.startswith("probability_"):
                answers[f"{name}_{part}" if part else name] = pa.array(cells).take(back)
    return pa.table(answers), [*table.problems, *problems]


def predict(
    recipe: Recipe,
    columns: Mapping[str, Column],
    model: Model,
    source: Any,
    *,
    device: torch.device,
    probabilities: bool = False,
) -> Any:
    """The Python face of :func:`predict_table`: a data frame for a data frame, else an Arrow table.

    Raises:
        DataError: a row cannot be read; it is named.
    """
    table = as_table(recipe, source)
    answers, problems = predict_table(recipe, columns, model, table, device=device, probabilities=probabilities)
    fatal = [problem for problem in problems if problem.fatal]
    if fatal:
        raise DataError(f"{len(fatal)} rows cannot be read; the first: {fatal[0]}", place=table.name)
    return answers.to_pandas() if type(source).__module__.split(".")[0] == "pandas" else answers


def as_table(recipe: Recipe, source: Any) -> Table:
    """A source, or a list of cells for a model with a single input."""
    single = next(iter(recipe.inputs)) if len(recipe.inputs) == 1 else None
    if isinstance(source, str | Path) and Path(source).suffix.lower() in SUFFIXES:
        source = [source]
    if isinstance(source, np.ndarray) and single is not None:
        return open_source({single: source})
    if not isinstance(source, list | tuple):
        return renamed(open_source(source), recipe)
    if source and all(isinstance(row, Mapping) for row in source):
        return open_source(pa.Table.from_pylist([dict(row) for row in source]))
    if single is None:
        raise UsageError(
            f"the model reads {len(recipe.inputs)} columns ({', '.join(recipe.inputs)})",
            mend="Give a table, or a mapping for each row.",
        )
    cells = [str(cell) if isinstance(cell, Path) else cell for cell in source]
    if cells and isinstance(cells[0], np.ndarray):
        return open_source({single: np.stack(cells)})
    return Table(pa.table({single: cells}), name="rows")


def renamed(table: Table, recipe: Recipe) -> Table:
    """A folder of pictures has a column `image`; the only picture that the model reads may be called otherwise."""
    pictures = [name for name, settings in recipe.inputs.items() if settings.type == "image"]
    if len(recipe.inputs) == 1 and pictures and pictures[0] not in table.columns and table.columns[:1] == ["image"]:
        names = [pictures[0] if name == "image" else name for name in table.data.column_names]
        table.data = table.data.rename_columns(names)
    return table


# The command ---------------------------------------------------------------------------------------------------------


def predict_command(
    run: Path,
    inputs: Sequence[str],
    *,
    out: Path | None,
    form: str,
    probabilities: bool,
    device: str,
    console: Console,
) -> dict[str, Any]:
    """``zhixing predict``: print or write the answers beside what was asked; gives a summary.

    Broken rows are told of and have empty answers, so that nothing shifts.
    """
    from ..api import load

    loaded = load(run, device=device)
    table = table_of(loaded.settings, inputs)
    answers, problems = predict_table(
        loaded.settings, loaded.fitted, loaded.model, table, device=loaded.device, probabilities=probabilities
    )
    fatal = [problem for problem in problems if problem.fatal]
    for problem in fatal[:10]:
        console.warn(str(problem))
    if len(fatal) > 10:
        console.warn(f"… and {len(fatal) - 10} more")
    whole = beside(table, answers)
    if out is not None:
        write(whole, out)
        console.say(f"{whole.num_rows:,} rows in {out}")
    else:
        show(whole, form)
    return {"rows": whole.num_rows, "broken": len({p.row for p in fatal}), "out": None if out is None else str(out)}


def table_of(recipe: Recipe, inputs: Sequence[str]) -> Table:
    if not inputs or list(inputs) == ["-"]:
        return from_standard_input()
    if len(inputs) == 1 and Path(inputs[0]).suffix.lower() not in SUFFIXES:
        return as_table(recipe, inputs[0])
    strange = [name for name in inputs if Path(name).suffix.lower() not in SUFFIXES]
    if strange:
        raise UsageError(f"{strange[0]!r} is not a picture file", mend="Give one table, one folder, or picture files.")
    return as_table(recipe, list(inputs))


def from_standard_input() -> Table:
    """JSON lines or CSV, told apart by the first character."""
    if sys.stdin.isatty():
        raise UsageError(
            "there is nothing to predict for", mend="Give files, a folder, a table, or rows on standard input."
        )
    content = sys.stdin.buffer.read()
    suffix = ".jsonl" if content.lstrip()[:1] in (b"{", b"[") else ".csv"
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"input{suffix}"
        path.write_bytes(content)
        table = open_source(path, name="standard input")
    table.base = Path()
    return table


def beside(table: Table, answers: pa.Table) -> pa.Table:
    """What was asked, where it can be written as text or numbers, and the answers after it."""
    kept = {}
    for name in table.columns:
        kind = table[name].type
        plain = not (isinstance(kind, pa.FixedShapeTensorType) or pa.types.is_struct(kind) or pa.types.is_binary(kind))
        if plain:
            kept[name if name not in answers.column_names else f"{name}_given"] = table[name]
    return pa.table(kept | {name: answers[name] for name in answers.column_names})


def write(whole: pa.Table, out: Path) -> None:
    suffix = out.suffix.lower()
    if suffix == ".parquet":
        pa.parquet.write_table(whole, out)
    elif suffix == ".csv":
        pa.csv.write_csv(flat(whole), out)
    elif suffix in (".jsonl", ".ndjson"):
        with out.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in whole.to_pylist())
    else:
        raise UsageError(
            f"cannot write {suffix or 'a file without a suffix'}", place=out, mend="Use .csv, .parquet or .jsonl."
        )


def flat(whole: pa.Table) -> pa.Table:
    """CSV has no lists: they become text between bars."""
    columns = {}
    for name in whole.column_names:
        values = whole[name]
        if pa.types.is_list(values.type):
            cells = [None if cell is None else "|".join(map(str, cell)) for cell in values.to_pylist()]
            values = pa.chunked_array([pa.array(cells, pa.string())])
        columns[name] = values
    return pa.table(columns)


def show(whole: pa.Table, form: str) -> None:
    if form == "jsonl":
        for row in whole.to_pylist():
            sys.stdout.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
    elif form == "csv":
        buffer = io.BytesIO()
        pa.csv.write_csv(flat(whole), buffer)
        sys.stdout.write(buffer.getvalue().decode())
    else:
        page = RichTable(*whole.column_names)
        for row in whole.slice(0, SHOWN).to_pylist():
            page.add_row(*(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row.values()))
        RichConsole().print(page)
        if whole.num_rows > SHOWN:
            print(f"… and {whole.num_rows - SHOWN:,} more rows; write them with --out answers.csv")
