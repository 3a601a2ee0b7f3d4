"""Time series as their archives keep them: ``.ts`` (aeon, sktime) and ``.arff`` (Weka), and folders of both."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import DataError
from .source_arrow import join
from .source_cells import SPLIT_ORDER, check_names, mark_split, split_of, tidy
from .source_text import not_utf8, read_utf8, stem
from .table import Problem, Table

__all__ = ["nested", "read_arff", "read_series_folder", "read_ts"]

Grid = NDArray[np.float64]  # [time, dimension], NaN where missing
LARGEST_PACK = 1 << 26  # numbers in one piece of a column; Arrow counts them in 32 bits
QUOTED = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
CELL = re.compile(rf"\s*({QUOTED}|(?:[^,'\"\s][^,]*?)?)\s*(?:,|$)", re.DOTALL)
WORD = re.compile(rf"({QUOTED}|[^\s{{]+)\s*(.*)", re.DOTALL)
ESCAPE = re.compile(r"\\(.)", re.DOTALL)
ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}
NUMERIC = ("numeric", "real", "integer")


def nested(grids: Sequence[Grid | None]) -> pa.ChunkedArray:
    """Series [time, feature] as a column of lists of lists of numbers; NaN and None are missing.

    >>> nested([np.array([[1.0, np.nan]]), None]).to_pylist()
    [[[1.0, None]], None]
    """
    kind = pa.list_(pa.list_(pa.float64()))
    packs: list[list[Grid | None]] = [[]]
    size = 0
    for grid in grids:
        count = 0 if grid is None else grid.size
        if size + count > LARGEST_PACK and packs[-1]:
            packs.append([])
            size = 0
        packs[-1].append(grid)
        size += count
    return pa.chunked_array([nested_pack(pack) for pack in packs if pack], kind)


def nested_pack(grids: Sequence[Grid | None]) -> pa.Array:
    there = [grid for grid in grids if grid is not None]
    values = np.concatenate([grid.reshape(-1) for grid in there]) if there else np.zeros(0)
    widths = np.concatenate([np.full(len(grid), grid.shape[1]) for grid in there]) if there else np.zeros(0)
    lengths = np.array([0 if grid is None else len(grid) for grid in grids])
    steps = pa.ListArray.from_arrays(offsets_of(widths), pa.array(values, from_pandas=True))
    mask = pa.array([grid is None for grid in grids])
    return pa.ListArray.from_arrays(offsets_of(lengths), steps, mask=mask)


def offsets_of(lengths: NDArray[Any]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))


def numbers(text: str) -> Grid:
    """Numbers between commas, ``?`` and NaN missing; ValueError says which is none."""
    words = ["nan" if (word := cell.strip()) == "?" else word for cell in text.split(",")]
    try:
        if "_" in text:  # Python reads 1_000
            raise ValueError
        return np.array(words, np.float64)
    except ValueError:
        bad = next(word for word in words if not is_number(word))
        raise ValueError(f"not a number: {bad[:40]!r}") from None


def is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return "_" not in word


class Body:
    """Rows as they are read: the line of each, and what is wrong with the others."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[int] = []
        self.rows: list[Any] = []
        self.problems: list[Problem] = []
        self.undecoded = 0

    def read(self, lines: Iterator[tuple[int, bytes]], parse: Callable[[str, Callable[[str, str], None]], Any]) -> None:
        """``parse`` gives a row or raises ValueError; what it tells of a cell by its second argument breaks nothing."""
        for number, raw in lines:
            place = f"{self.path}, line {number}"

            def note(column: str, reason: str, place: str = place) -> None:
                self.problems.append(Problem(len(self.rows), column, place, reason, fatal=False))

            noted = len(self.problems)
            try:
                self.rows.append(parse(raw.decode("utf-8"), note))
                self.lines.append(number)
            except ValueError as error:
                del self.problems[noted:]
                bad = isinstance(error, UnicodeDecodeError)
                self.undecoded += bad
                reason = f"the line is not UTF-8: {raw[:40]!r}" if bad else str(error)
                self.problems.append(Problem(len(self.rows), "", place, reason))

    def table(self, columns: dict[str, Any], content: bytes) -> Table:
        if self.undecoded > len(self.rows):
            raise not_utf8(self.path, content)
        if not self.rows:
            first = self.problems[0] if self.problems else None
            if first:
                raise DataError(first.reason, place=first.place, mend="No row of the file could be read.")
            raise DataError("the file holds no row", place=self.path)
        data, split = mark_split(tidy(pa.table(columns), place=self.path))
        path, lines = self.path, self.lines
        return Table(
            data,
            name=stem(path),
            base=path.parent,
            split_column=split,
            place=lambda row: f"{path}, line {lines[row]}",
            problems=self.problems,
        )


def split_lines(content: bytes, comment: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, line) of the lines that say something."""
    for number, line in enumerate(content.split(b"\n"), 1):
        line = line.strip()
        if line and not line.startswith(comment):
            yield number, line


# --- .ts


@dataclass
class TsHead:
    """What the header of a ``.ts`` file says."""

    dimensions: int | None = None
    length: int | None = None
    classes: list[str] = field(default_factory=list)
    label: str = ""  # "class", "target" (a number) or none


def read_ts(path: Path, encoding: str | None = None) -> Table:
    """A table from a ``.ts`` file: columns ``series``, a list of steps [time][dimension], and ``label``.

    Labels are words after ``@classLabel true`` and numbers after ``@targetlabel true``; without either there is no
    such column. ``?`` and ``NaN`` are missing. A row whose dimensions differ in length, or in number from the header,
    is left out and told of; a class that the header does not list, and another length than ``@seriesLength``, are told
    of.

    Raises:
        DataError: a file without ``@data``, one with time stamps, in another encoding, or without a usable row.
    """
    content = read_utf8(path, encoding)
    lines = split_lines(content, (b"#"))
    head = read_ts_head(lines, path)

    def parse(line: str, note: Callable[[str, str], None]) -> tuple[Grid, str | float | None]:
        parts = line.split(":")
        label = parts.pop().strip() if head.label else ""
        head.dimensions = head.dimensions or len(parts)
        if len(parts) != head.dimensions:
            raise ValueError(f"{head.dimensions} dimensions expected, {len(parts)} found")
        grid = dimensions_to_grid([numbers(part) if part.strip() else np.zeros(0) for part in parts])
        if head.length is not None and len(grid) != head.length:
            note("series", f"{head.length} steps stand in the header, {len(grid)} in the row")
        if head.label == "target":
            (number,) = numbers(label)
            return grid, number
        if label == "?":
            return grid, None
        if head.classes and label not in head.classes:
            note("label", f"the header lists no class {label!r}")
        return grid, label or None

    body = Body(path)
    body.read(lines, parse)
    columns: dict[str, Any] = {"series": nested([grid for grid, _ in body.rows])}
    if head.label:
        kind = pa.string() if head.label == "class" else pa.float64()
        columns["label"] = pa.array([label for _, label in body.rows], kind, from_pandas=True)
    return body.table(columns, content)


def dimensions_to_grid(dimensions: Sequence[Grid]) -> Grid:
    """Dimensions of one length as [time, dimension]."""
    for number, dimension in enumerate(dimensions):
        if len(dimension) != len(dimensions[0]):
            raise ValueError(f"dimension {number} has {len(dimension)} steps, dimension 0 has {len(dimensions[0])}")
    return np.stack(dimensions, axis=1)


def read_ts_head(lines: Iterator[tuple[int, bytes]], path: Path) -> TsHead:
    head = TsHead()
    for number, raw in lines:
        words = raw.decode("utf-8", "replace").split()
        key, rest = words[0].lower(), words[1:]
        said = bool(rest) and rest[0].lower() == "true"
        place = f"{path}, line {number}"
        if key == "@data":
            return head
        if not key.startswith("@"):
            break
        if key == "@timestamps" and said:
            mend = "Write the values alone, or a long table with a column of times."
            raise DataError("series with a time stamp at each value are not read", place=place, mend=mend)
        if key == "@univariate" and said:
            head.dimensions = 1
        elif key in ("@dimensions", "@dimension", "@serieslength") and rest:
            if not rest[0].isdecimal() or not int(rest[0]):
                raise DataError(f"{words[0]} must be a whole number, not {rest[0]!r}", place=place)
            if key == "@serieslength":
                head.length = int(rest[0])
            else:
                head.dimensions = int(rest[0])
        elif key == "@classlabel" and said:
            head.label, head.classes = "class", rest[1:]
        elif key == "@targetlabel" and said:
            head.label = "target"
    raise DataError("there is no @data line, so this is not a file of time series", place=path)


# --- .arff


@dataclass
class Attribute:
    """A column of an ``.arff`` file: ``numeric``, ``text``, ``nominal`` with its classes, or ``relational``."""

    name: str
    kind: str
    classes: frozenset[str] = frozenset()
    inner: list[Attribute] = field(default_factory=list)


def read_arff(path: Path, encoding: str | None = None) -> Table:
    """A table from an ``.arff`` file: its attributes are the columns, numeric ones as numbers, all others as text.

    A relational attribute of numbers alone is a series, written as the archive of multivariate series does: each line
    of the relation is a dimension and each of its attributes a step; the column holds [time][dimension]. ``?`` is
    missing. A row that does not fit its attributes is left out and told of; a class that is not listed is told of.

    Raises:
        DataError: a file without attributes or ``@data``, sparse rows, relations of other things than numbers.
    """
    content = read_utf8(path, encoding)
    lines = split_lines(content, b"%")
    attributes = read_arff_head(lines, path)

    def parse(line: str, note: Callable[[str, str], None]) -> list[Any]:
        cells = arff_cells(line)
        if len(cells) != len(attributes):
            raise ValueError(f"{len(attributes)} cells expected, {len(cells)} found")
        return [arff_value(one, cell, note) for one, cell in zip(attributes, cells, strict=True)]

    body = Body(path)
    body.read(dense(lines, path), parse)
    columns = {one.name: arff_column(one, [row[index] for row in body.rows]) for index, one in enumerate(attributes)}
    return body.table(columns, content)


def dense(lines: Iterator[tuple[int, bytes]], path: Path) -> Iterator[tuple[int, bytes]]:
    for number, line in lines:
        if line.startswith(b"{"):
            raise DataError(
                "sparse rows ({place value, ...}) are not read",
                place=f"{path}, line {number}",
                mend="Write every value of each row (Weka: SparseToNonSparse).",
            )
        yield number, line


def unquote(word: str) -> str:
    if len(word) >= 2 and word[0] == word[-1] and word[0] in "'\"":
        word = word[1:-1]
        return ESCAPE.sub(lambda match: ESCAPED.get(match[1], match[1]), word) if "\\" in word else word
    return word


def arff_cells(line: str) -> list[str | None]:
    """Cells between commas outside quotes; a bare ``?`` is None."""
    if "'" not in line and '"' not in line:
        return [None if (word := cell.strip()) == "?" else word for cell in line.split(",")]
    cells: list[str | None] = []
    at = 0
    while True:
        match = CELL.match(line, at)
        if match is None:
            raise ValueError(f"a quote is not closed, or text stands behind one: {line[at : at + 40]!r}")
        cells.append(None if match[1] == "?" else unquote(match[1]))
        at = match.end()
        if at == len(line) and not match[0].endswith(","):
            return cells


def arff_value(attribute: Attribute, cell: str | None, note: Callable[[str, str], None]) -> Any:
    if cell is None:
        return None
    try:
        if attribute.kind == "numeric":
            (number,) = numbers(cell)
            return float(number)
        if attribute.kind == "relational":
            grid = dimensions_to_grid([numbers(line) for line in cell.strip().split("\n")])
            if len(grid) != len(attribute.inner):
                raise ValueError(f"{len(attribute.inner)} steps expected, {len(grid)} found")
            return grid
    except ValueError as error:
        raise ValueError(f"attribute {attribute.name!r}: {error}") from None
    if attribute.kind == "nominal" and cell not in attribute.classes:
        note(attribute.name, f"the header lists no class {cell!r}")
    return cell


def arff_column(attribute: Attribute, values: list[Any]) -> Any:
    if attribute.kind == "relational":
        return nested(values)
    return pa.array(values, pa.float64() if attribute.kind == "numeric" else pa.string(), from_pandas=True)


def read_arff_head(lines: Iterator[tuple[int, bytes]], path: Path) -> list[Attribute]:
    attributes: list[Attribute] = []
    relation: Attribute | None = None
    for number, raw in lines:
        place = f"{path}, line {number}"
        line = raw.decode("utf-8", "replace")
        key, _, rest = line.replace("\t", " ").partition(" ")
        key = key.lower()
        if key == "@data":
            if not attributes:
                raise DataError("there is no @attribute line above @data", place=place)
            check_names([one.name for one in attributes], place=path)
            return attributes
        if key == "@attribute":
            made = read_attribute(rest, place)
            if relation is not None and made.kind != "numeric":
                raise DataError("a relation of other things than numbers is not read", place=place)
            (attributes if relation is None else relation.inner).append(made)
            relation = made if made.kind == "relational" else relation
        elif key == "@end":
            relation = None
        elif key != "@relation":
            raise DataError(f"@relation, @attribute or @data expected, {line[:40]!r} found", place=place)
    raise DataError("there is no @data line, so this is not an ARFF file", place=path)


def read_attribute(text: str, place: str) -> Attribute:
    match = WORD.fullmatch(text.strip())
    if match is None or not match[2]:
        raise DataError("an attribute needs a name and a type", place=place, mend="Write @attribute NAME numeric.")
    name, kind = unquote(match[1]), match[2].strip()
    if kind.startswith("{") and kind.endswith("}"):
        try:
            return Attribute(name, "nominal", frozenset(cell or "?" for cell in arff_cells(kind[1:-1])))
        except ValueError as error:
            raise DataError(str(error), place=place) from None
    word = kind.split()[0].lower()
    if word in NUMERIC:
        return Attribute(name, "numeric")
    if word in ("string", "date"):
        return Attribute(name, "text")
    if word == "relational":
        return Attribute(name, "relational")
    raise DataError(f"no type of attribute is called {kind[:40]!r}", place=place)


# --- folders

READERS: dict[str, Callable[[Path], Table]] = {".ts": read_ts, ".arff": read_arff}


def read_series_folder(folder: Path) -> Table | None:
    """``NAME_TRAIN.ts`` and ``NAME_TEST.ts`` (or ``.arff``) of a folder with a split column; None where there are none.

    Where both formats are there, ``.ts`` is read. Of several data sets whose names begin with that of one of them
    (``Vowels``, ``Vowels_eq``), that one is read, and ``problems`` tells of the others.

    Raises:
        DataError: several data sets of unlike names, two files for one split.
    """
    for suffix, read in READERS.items():
        found = series_files(folder, suffix)
        found = {name: files for name, files in found.items() if "train" in files and len(files) > 1}
        if not found:
            continue
        chosen = min(found, key=len)
        others = sorted(found.keys() - {chosen})
        if any(not name.startswith(chosen) for name in others):
            told = ", ".join(map(repr, sorted(found)))
            raise DataError(f"several data sets lie here: {told}", place=folder, mend="Keep each in a folder.")
        order = sorted(found[chosen], key=SPLIT_ORDER.index)
        table = join(
            [(split, read(found[chosen][split])) for split in order], name=chosen or folder.resolve().name, base=folder
        )
        for name in others:
            reason = f"the files of {name!r} are left out: {chosen!r} lies beside them"
            table.problems.append(Problem(0, "", str(next(iter(found[name].values()))), reason, fatal=False))
        return table
    return None


def series_files(folder: Path, suffix: str) -> dict[str, dict[str, Path]]:
    """Name -> split -> file."""
    found: dict[str, dict[str, Path]] = {}
    for file in sorted(folder.iterdir()):
        name, _, word = file.stem.rpartition("_")
        split = split_of(word)
        if file.suffix.lower() != suffix or split is None or not file.is_file():
            continue
        files = found.setdefault(name, {})
        if split in files:
            told = f"{files[split].name} and {file.name}"
            raise DataError(f"two files are there for one split: {told}", place=folder, mend="Keep one of them.")
        files[split] = file
    return found
