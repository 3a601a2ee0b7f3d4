"""Parquet, Arrow and the folders that hold them, those that the ``datasets`` library saves among them."""

from __future__ import annotations

import json
import os
import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet

from ..errors import DataError
from .source_cells import SPLIT, mark_split, split_of, tidy
from .source_text import stem
from .table import Problem, Table

__all__ = ["join", "read_arrow", "read_arrow_folder", "read_parquet", "read_saved", "split_in_name", "with_class_names"]

# what pyarrow raises over damaged files; names that are not UTF-8 are found late
DAMAGE = (pa.ArrowException, OSError, UnicodeDecodeError, KeyError, MemoryError, OverflowError)
WORDS = re.compile(r"[^A-Za-z0-9]+")


def read_parquet(path: Path) -> Table:
    """A table from one Parquet file."""
    try:
        # the reader of single files: hive partitions in the path are not read as columns
        data = pyarrow.parquet.ParquetFile(path).read()
    except DAMAGE as error:
        raise DataError(f"the file is not Parquet, or is damaged: {error}", place=path) from error
    return finish(data, path)


def read_arrow(path: Path) -> Table:
    """A table from one Arrow file: IPC file, IPC stream or Feather, told apart by looking."""
    try:
        with pa.memory_map(str(path)) as source:
            head = source.read(6)
            source.seek(0)
            if head == b"ARROW1":
                data = pa.ipc.open_file(source).read_all()
            elif head[:4] == b"FEA1":
                data = pyarrow.feather.read_table(path)
            else:
                data = pa.ipc.open_stream(source).read_all()
    except DAMAGE as error:
        raise DataError(f"the file is not Arrow, or is damaged: {error}", place=path) from error
    return finish(data, path)


def finish(data: pa.Table, path: Path) -> Table:
    if not data.num_columns:
        raise DataError("there is no column", place=path)
    try:
        data.validate(full=True)  # these formats have no check of their own; a wild offset would be followed
        data.schema.to_string()
        assert data.column_names
    except DAMAGE as error:
        raise DataError(f"the file is damaged: {error}", place=path) from error
    data, split = mark_split(tidy(with_class_names(data), place=path))
    return Table(
        data,
        name=stem(path),
        base=path.parent,
        split_column=split,
        place=lambda row: f"{path}, row {row}",
    )


def with_class_names(data: pa.Table, features: Any = None) -> pa.Table:
    """The table with the numbers of classes turned to their names, where its metadata tell them.

    ``features`` is the description that the ``datasets`` library writes; by default the one in the schema.
    """
    if features is None:
        try:
            features = json.loads((data.schema.metadata or {})[b"huggingface"])["info"]["features"]
        except (KeyError, TypeError, ValueError):
            return data
    for index, column in enumerate(data.column_names):
        feature = features.get(column) if isinstance(features, dict) else None
        names = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
        if not isinstance(names, list) or not pa.types.is_integer(data[column].type):
            continue
        words = pa.array([str(name) for name in names], pa.string())
        # -1 is how that library writes "no class"
        numbers = [None if number is None or number < 0 else number for number in data[column].to_pylist()]
        if any(number is not None and number >= len(words) for number in numbers):
            raise DataError(f"column {column!r} holds a class number above {len(words) - 1}, the last that has a name")
        data = data.set_column(index, column, words.take(pa.array(numbers, pa.int64())))
    return data


def split_in_name(name: str) -> str | None:
    """The split that a file's name starts with: ``train-00000-of-00002.parquet``, ``test.csv``.

    >>> split_in_name("train-00000-of-00002.parquet"), split_in_name("trained.csv")
    ('train', None)
    """
    return split_of(WORDS.split(name)[0])


def join(parts: Sequence[tuple[str | None, Table]], *, name: str, base: Path | None) -> Table:
    """One table of many that lie in a folder, in their order, with a split column where all parts have a split.

    A column that some parts lack is missing there; numbers of different width meet in the wider one.

    Raises:
        DataError: columns of one name whose types cannot meet.
    """
    assert parts
    tables = [part.data for _, part in parts]
    column: str | None = None
    if all(part.split_column for _, part in parts):
        column = parts[0][1].split_column
    elif all(split for split, _ in parts):
        # a column of that name that means something else keeps it
        column = SPLIT if not any(SPLIT in table.column_names for table in tables) else f"{SPLIT} of the source"
        tables = [part.data.append_column(column, pa.repeat(split, part.rows)) for split, part in parts]
    try:
        data = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(f"the files have columns that do not fit together: {error}", place=base or name) from error
    starts = [0, *accumulate(part.rows for _, part in parts)]
    problems = [
        Problem(problem.row + start, problem.column, problem.place, problem.reason, problem.fatal)
        for start, (_, part) in zip(starts, parts, strict=False)
        for problem in part.problems
    ]

    def place(row: int) -> str:
        index = bisect_right(starts, row) - 1
        return parts[index][1].where(row - starts[index])

    if column == SPLIT:
        order = [label for label in data.column_names if label != SPLIT]
        data = data.select([*order, SPLIT])
    return Table(data, name=name, base=base, split_column=column, place=place, problems=problems)


def read_arrow_folder(folder: Path) -> Table | None:
    """The Parquet or Arrow files of a folder and those below it, sorted by path; None where there are none.

    The split of each file is the one that its name starts with, or the folder that it lies in. Paths in cells start
    from the folder that all files lie in.
    """
    files: dict[str, list[Path]] = {".parquet": [], ".arrow": []}
    for root, below, names in os.walk(folder):
        below[:] = [name for name in below if not hidden(name)]
        for name in names:
            if name.endswith((".parquet", ".arrow")) and not hidden(name):
                files[name[name.rindex(".") :]].append(Path(root, name))
    chosen, read = (files[".parquet"], read_parquet) if files[".parquet"] else (files[".arrow"], read_arrow)
    if not chosen:
        return None
    parts = [(split_in_name(file.name) or split_of(file.parent.name), read(file)) for file in sorted(chosen)]
    folders = {file.parent for file in chosen}
    return join(parts, name=folder.resolve().name, base=folders.pop() if len(folders) == 1 else folder)


def hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def read_saved(folder: Path) -> Table:
    """A folder written by ``save_to_disk`` of the ``datasets`` library, without that library.

    Raises:
        DataError: a description that is damaged, or that names files outside the folder.
    """
    if not (folder / "dataset_dict.json").is_file():
        return read_saved_part(folder)
    splits = load_json(folder / "dataset_dict.json").get("splits")
    if not isinstance(splits, list) or not splits:
        raise DataError("the description names no split", place=folder / "dataset_dict.json")
    parts = []
    for split in splits:
        known = split_of(str(split))
        parts.append((known, read_saved_part(inside(folder, split))))
    if None in [known for known, _ in parts] and len(parts) > 1:
        words = ", ".join(repr(split) for split in splits if split_of(str(split)) is None)
        raise DataError(
            f"{words}: not the name of a split (train, validation, test)",
            place=folder,
            mend="Give the folder of one split as the source.",
        )
    return join(parts, name=folder.resolve().name, base=folder)


def read_saved_part(folder: Path) -> Table:
    described = load_json(folder / "state.json").get("_data_files")
    info = load_json(folder / "dataset_info.json") if (folder / "dataset_info.json").is_file() else {}
    if not isinstance(described, list) or not described:
        raise DataError("the description names no file", place=folder / "state.json")
    parts: list[tuple[str | None, Table]] = []
    for entry in described:
        file = inside(folder, entry.get("filename") if isinstance(entry, dict) else entry)
        part = read_arrow(file)
        part.data = tidy(with_class_names(part.data, info.get("features")), place=file)
        parts.append((None, part))
    return join(parts, name=folder.resolve().name, base=folder)


def load_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"the description cannot be read: {error}", place=path) from error
    if not isinstance(found, dict):
        raise DataError("the description is not an object", place=path)
    return found


def inside(folder: Path, name: object) -> Path:
    """A file or folder that a description names; it must lie right within the folder."""
    if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name:
        raise DataError(f"the description names {name!r}, which is not a file of this folder", place=folder)
    return folder / name
