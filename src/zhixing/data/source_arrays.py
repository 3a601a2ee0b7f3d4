"""NumPy files and what a program already holds in memory: arrays, lists, data frames, Arrow tables."""

from __future__ import annotations

import lzma
import re
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import DataError
from .source_arrow import join, with_class_names
from .source_cells import SPLIT_ORDER, check_names, from_mapping, from_numpy, from_values, mark_split, split_of, tidy
from .source_text import stem
from .table import Table

__all__ = ["from_memory", "read_npy", "read_npz"]

Array = np.ndarray[Any, Any]
# what NumPy and zipfile raise over damaged headers, sizes and data
DAMAGE = (
    OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError,
    tokenize.TokenError, SyntaxError, TypeError, KeyError, OverflowError, MemoryError,
)  # fmt: skip
# x_train, train_images; the Keras and the MedMNIST way
KEYED = (re.compile(r"(?P<name>.+)_(?P<split>[a-z]+)"), re.compile(r"(?P<split>[a-z]+)_(?P<name>.+)"))


def read_npy(path: Path) -> Table:
    """A table from one ``.npy`` file, mapped from disk: its fields, or one column ``value``."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except DAMAGE as error:
        raise DataError(f"the file cannot be read: {error}", place=path) from error
    return file_table(from_array(array, place=path), path)


def read_npz(path: Path) -> Table:
    """A table from a ``.npz`` file: its arrays are columns, or columns by split.

    Where every array is called in the manner of ``x_train`` (or ``train_images``), the parts are laid one after the
    other and a split column tells them apart. Arrays of objects are refused: to read them would run code.

    Raises:
        DataError: a damaged file, arrays of objects, arrays of different lengths, a part that lacks an array.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: member(archive, name, path) for name in archive.files}
    except DAMAGE as error:
        raise DataError(f"the file cannot be read: {error}", place=path) from error
    except AttributeError as error:  # np.load gives a bare array for a .npy under this name
        raise DataError("the file is not an archive of arrays", place=path) from error
    parts = by_split(arrays, path)
    if parts is None:
        return file_table(from_mapping(arrays, place=path), path)
    tables = [(split, file_table(from_mapping(part, place=path), path, split)) for split, part in parts.items()]
    return join(tables, name=stem(path), base=path.parent)


def member(archive: Any, name: str, path: Path) -> Array:
    """One array, after its header was held against the size that the archive gives, so that none is made in vain."""
    entry = name + ".npy" if name + ".npy" in archive.zip.namelist() else name
    with archive.zip.open(entry) as stream:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read_header(stream)
    declared = int(np.prod(shape, dtype=object)) * kind.itemsize
    if not kind.hasobject and declared > archive.zip.getinfo(entry).file_size:
        raise DataError(f"array {name!r} declares {declared} bytes, more than the archive holds of it", place=path)
    array: Array = archive[name]
    return array


def by_split(arrays: Mapping[str, Array], path: Path) -> dict[str, dict[str, Array]] | None:
    """Split -> column -> array where all names tell a split; None where they do not."""
    for pattern in KEYED:
        matches = {name: pattern.fullmatch(name) for name in arrays}
        keys = {name: split_of(match["split"]) if match else None for name, match in matches.items()}
        if None in keys.values() or len(set(keys.values())) < 2:
            continue
        parts: dict[str, dict[str, Array]] = {}
        for name, match in matches.items():
            assert match is not None
            part = parts.setdefault(keys[name] or "", {})
            if match["name"] in part:
                raise DataError(f"array {name!r} is there under two names of its split", place=path)
            part[match["name"]] = arrays[name]
        wanted = {name for part in parts.values() for name in part}
        for split, part in parts.items():
            if missing := sorted(wanted - part.keys()):
                raise DataError(f"the {split} part lacks {', '.join(map(repr, missing))}", place=path)
        return {split: parts[split] for split in SPLIT_ORDER if split in parts}
    return None


def file_table(data: pa.Table, path: Path, part: str = "") -> Table:
    data, split = mark_split(data)
    here = f"{path}, {part} row" if part else f"{path}, row"
    return Table(data, name=stem(path), base=path.parent, split_column=split, place=lambda row: f"{here} {row}")


def from_array(array: Array, *, place: object) -> pa.Table:
    """A structured array by its fields, any other as one column ``value``."""
    if array.dtype.names:
        return from_mapping({name: array[name] for name in array.dtype.names}, place=place)
    return tidy(pa.table({"value": from_numpy(array, place=place)}), place=place)


def from_memory(source: Any) -> Table:
    """A table from what a program holds: see :func:`zhixing.data.source.open_source`.

    Raises:
        DataError: an object that is no table, or a table that is none of ours (names that clash, unequal lengths).
    """
    place = "the table"
    module = type(source).__module__.partition(".")[0]
    if isinstance(source, pa.RecordBatch):
        source = pa.Table.from_batches([source])
    if isinstance(source, pa.Table):
        data = tidy(with_class_names(source), place=place)
    elif module == "pandas" and hasattr(source, "columns") and hasattr(source, "index"):
        data = from_pandas(source, place=place)
    elif isinstance(source, Mapping):
        data = from_mapping(source, place=place)
    elif isinstance(source, np.ndarray):
        data = from_array(source, place=place)
    elif hasattr(source, "__arrow_c_stream__"):
        try:
            data = tidy(pa.RecordBatchReader.from_stream(source).read_all(), place=place)
        except (pa.ArrowException, TypeError) as error:
            raise DataError(f"{type(source).__name__} gives no Arrow table: {error}") from error
    else:
        raise DataError(
            f"{type(source).__module__}.{type(source).__name__} is no source of data",
            mend="Give a path, a name, a data frame, an Arrow table, an array or a dict of lists.",
        )
    if not data.num_columns:
        raise DataError("there is no column", place=place)
    data, split = mark_split(data)
    return Table(data, split_column=split)


def from_pandas(frame: Any, *, place: object) -> pa.Table:
    """The frame's columns; an index that has a name is one of them, one that has none only numbers the rows."""
    if any(name is not None for name in frame.index.names):
        try:
            frame = frame.reset_index()
        except ValueError as error:
            raise DataError(f"the index clashes with a column: {error}", place=place) from error
    names = [str(name) for name in frame.columns]
    check_names(names, place=place)
    columns = []
    for index, name in enumerate(names):
        series = frame.iloc[:, index]
        try:
            columns.append(pa.Array.from_pandas(series))
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            columns.append(from_values(series.tolist(), place=f"{place}, column {name!r}"))
    return tidy(pa.table(columns, names=names), place=place)
