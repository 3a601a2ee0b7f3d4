"""Answers as files and on the terminal: tables with what was asked beside what was said."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from rich.console import Console as RichConsole
from rich.table import Column as RichColumn
from rich.table import Table as RichTable
from rich.text import Text

from ..data.table import Table
from ..errors import UsageError
from ..run import finite

__all__ = ["beside", "check_out", "show", "write"]

SHOWN = 50  # rows of a table for a person


def check_out(out: Path) -> None:
    """Refuse a file that could not be written, before any work is done."""
    if out.suffix.lower() not in WRITERS:
        what = out.suffix or "a file without a suffix"
        raise UsageError(f"cannot write {what}", place=out, mend=f"Use {', '.join(WRITERS)}.")
    if not out.parent.is_dir():
        raise UsageError("there is no such folder", place=out.parent)


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
    """Write a table beside its place and rename it, so that a file under this name is whole."""
    part = out.with_name(f".{out.name}.part")
    try:
        WRITERS[out.suffix.lower()](whole, part)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def write_lines(whole: pa.Table, out: Path) -> None:
    with out.open("w", encoding="utf-8") as file:
        file.writelines(json_lines(whole))


def write_csv(whole: pa.Table, out: Path | io.BytesIO) -> None:
    pa.csv.write_csv(flat(whole), out)


WRITERS: dict[str, Callable[[pa.Table, Path], None]] = {
    ".csv": write_csv,
    ".parquet": pa.parquet.write_table,
    ".jsonl": write_lines,
    ".ndjson": write_lines,
}


def json_lines(whole: pa.Table) -> Iterator[str]:
    """A line of JSON for each row, some thousand rows in memory at a time; numbers that JSON lacks become null."""
    for batch in whole.to_batches(max_chunksize=4096):
        for row in batch.to_pylist():
            yield json.dumps(finite(row), ensure_ascii=False, default=str) + "\n"


def flat(whole: pa.Table) -> pa.Table:
    """CSV has no lists: they become text between bars. Where nothing is known of a column, its cells are empty."""
    columns = {}
    for name in whole.column_names:
        values = whole[name]
        if pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
            cells = [None if cell is None else joined(cell) for cell in values.to_pylist()]
            values = pa.chunked_array([pa.array(cells, pa.string())])
        columns[name] = values
    return pa.table(columns)


def joined(items: Sequence[Any]) -> str:
    """A list as one cell; of mappings, as JSON."""
    if any(isinstance(item, Mapping) for item in items):
        return json.dumps(items, ensure_ascii=False)
    return "|".join(map(str, items))


def show(whole: pa.Table, form: str) -> None:
    if form == "jsonl":
        sys.stdout.writelines(json_lines(whole))
    elif form == "csv":
        buffer = io.BytesIO()
        write_csv(whole, buffer)
        sys.stdout.write(buffer.getvalue().decode())
    else:
        page = RichTable(*(RichColumn(Text(name)) for name in whole.column_names))
        for row in whole.slice(0, SHOWN).to_pylist():
            page.add_row(*(Text(in_short(cell)) for cell in row.values()))
        RichConsole().print(page)
        if whole.num_rows > SHOWN:
            print(f"… and {whole.num_rows - SHOWN:,} more rows; write them with --out answers.csv")


def in_short(cell: Any) -> str:
    return "" if cell is None else f"{cell:.4g}" if isinstance(cell, float) else str(cell)
