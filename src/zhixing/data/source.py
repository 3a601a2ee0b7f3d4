"""Where tables come from: one function that takes any source."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import DataError, did_you_mean
from . import catalogue
from .source_arrays import from_memory, read_npy, read_npz
from .source_arrow import read_arrow, read_parquet
from .source_csv import read_csv
from .source_folder import PICTURES, SOUNDS, read_folder
from .source_hub import read_hub
from .source_idx import is_idx, read_idx
from .source_json import read_json, read_json_lines
from .source_lines import read_text
from .source_series import read_arff, read_ts
from .source_text import split_hint, unpacked_suffix
from .table import URL, Table, resolve

__all__ = ["open_source", "resolve"]

TEXT: dict[str, Callable[[Path, str | None], Table]] = {
    ".csv": read_csv, ".tsv": read_csv, ".tab": read_csv, ".txt": read_text,
    ".json": read_json, ".jsonl": read_json_lines, ".ndjson": read_json_lines,
    ".ts": read_ts, ".arff": read_arff,
}  # fmt: skip
BINARY: dict[str, Callable[[Path], Table]] = {
    ".parquet": read_parquet, ".pq": read_parquet,
    ".arrow": read_arrow, ".feather": read_arrow, ".ipc": read_arrow,
    ".npz": read_npz, ".npy": read_npy, ".idx": read_idx,
}  # fmt: skip
ELSEWHERE = {
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z", ".rar"), ("a packed archive", "Unpack it and give the folder.")),
    **dict.fromkeys((".xls", ".xlsx", ".ods"), ("a spreadsheet", "Save the sheet as CSV.")),
    **dict.fromkeys(
        (".pkl", ".pickle", ".pt", ".pth"),
        ("a pickle, and to read one runs what it says", "Save it as npz or Parquet."),
    ),
    **dict.fromkeys(PICTURES, ("a single picture", "Give the folder that it lies in.")),
    **dict.fromkeys(SOUNDS, ("a single sound", "Give the folder that it lies in.")),
}


def open_source(source: Any, *, name: str | None = None) -> Table:
    """The table of any source.

    ==================================  =================================================================
    a ``str`` or ``Path``               a file or folder, see below
    ``"mnist"``                         a name of the catalogue, see :func:`zhixing.data.catalogue.known`
    ``"catalogue:mnist"``               the same, whatever lies in the current folder
    ``"hub:owner/name[:config]"``       a data set of the Hugging Face hub (extra ``hub``)
    pandas, polars, Arrow               a data frame or table, or whatever has ``__arrow_c_stream__``
    dict of lists or arrays             its columns
    NumPy array                         one column ``value``, or the fields of a structured array
    ==================================  =================================================================

    Files: CSV, TSV and other delimited text, JSON lines, JSON, plain text, time series as ``.ts`` or ``.arff`` (all of
    them also as ``.gz``), Parquet, Arrow, Feather, ``.npz``, ``.npy``, idx. A text in another encoding than UTF-8 is
    marked with it: ``people.csv#gb18030``. A ``.txt`` file is a table where one delimiter parts its first line and
    most others into as many cells, else prose: a column ``text``, a row a paragraph where blank lines separate
    paragraphs, else a row a line (:mod:`zhixing.data.source_lines`).
    Folders: see :func:`zhixing.data.source_folder.read_folder`.

    A word with a path separator is a path. A word without one is a file or folder of the current folder if there is
    such a thing, else a name of the catalogue. A column ``split`` that holds nothing but names of splits (``train``,
    ``val``, ``valid``, ``validation``, ``dev``, ``test``) becomes the table's split column.

    Args:
        source: the source.
        name: a name for the table in place of the one that the source suggests.

    Raises:
        DataError: a source that is not there, is not of a known kind, or is damaged beyond single rows.
        MissingExtraError: an optional library is needed.

    Example:
        >>> table = open_source({"age": [31, None], "label": ["yes", "no"]}, name="people")
        >>> table.columns, table.rows
        (['age', 'label'], 2)
    """
    if isinstance(source, str):
        table = open_word(source)
    elif isinstance(source, os.PathLike):
        table = open_path(Path(source), None)
    else:
        table = from_memory(source)
    if name is not None:
        table.name = name
    return table


def open_word(word: str) -> Table:
    kind, colon, rest = word.partition(":")
    if colon and kind == "hub":
        return read_hub(rest)
    if colon and kind == "catalogue":
        return catalogue.load(rest)
    if URL.match(word):
        raise DataError(f"{word!r} is a URL, and nothing is fetched", mend="Download it and give its path.")
    if not word or "\0" in word:
        raise DataError(f"{word!r} is no source", mend="Give a path or a name.")
    path, encoding = split_hint(word)
    bare = not any(mark in word for mark in (os.sep, os.altsep) if mark)
    if bare and not Path(path).exists():
        names = [entry[0] for entry in catalogue.known()]
        if word in names:
            return catalogue.load(word)
        raise DataError(
            f"{word!r} is no file or folder here and no name of the catalogue",
            mend=did_you_mean(word, near(word, Path(), names) or names),
        )
    return open_path(Path(path), encoding)


def near(word: str, folder: Path, names: list[str]) -> list[str]:
    """Names like the word: of the catalogue and of what lies in the folder."""
    try:
        there = os.listdir(folder)
    except OSError:
        there = []
    return difflib.get_close_matches(word, [*names, *there], n=1)


def open_path(path: Path, encoding: str | None) -> Table:
    if path.is_dir():
        return read_folder(path)
    if not path.exists():
        close = near(path.name, path.parent, [])
        mend = f"Did you mean {str(path.parent / close[0])!r}?" if close else "Check the path."
        raise DataError("no such file or folder", place=path, mend=mend)
    if is_idx(path):
        return read_idx(path)
    suffix = unpacked_suffix(path)
    if suffix in TEXT:
        return TEXT[suffix](path, encoding)
    if encoding is not None:
        raise DataError("only a text has an encoding", place=path)
    if suffix in BINARY and not path.name.lower().endswith(".gz"):
        return BINARY[suffix](path)
    what, mend = ELSEWHERE.get(suffix, (f"of no known kind: {suffix or 'it has no suffix'}", ""))
    mend = mend or f"Known: {', '.join([*TEXT, *BINARY])}, idx."
    raise DataError(f"the file is {what}", place=path, mend=mend)
