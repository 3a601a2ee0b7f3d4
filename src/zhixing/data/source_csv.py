"""Delimited text: CSV and its relatives.

All cells are strings, an empty cell is missing, and the first row names the columns. Two readers give the same cells:
pyarrow's, which is fast and stops at the first fault, and Python's, which goes on after one, knows the line of each
row, and is asked where the first one stops or where a quoted cell goes over the end of a line.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from ..errors import DataError
from .source_cells import check_names, mark_split, tidy
from .source_text import not_utf8, read_utf8, stem, unpacked_suffix
from .table import Problem, Table

__all__ = ["read_csv"]

DELIMITERS = (",", ";", "\t", "|")
SAMPLE = 1 << 16  # bytes that the delimiter and the header are judged by
BLOCK = 1 << 24  # bytes that pyarrow parses at a time; no row it reads is longer
PACK = 4096  # rows that are turned to Arrow at a time
LONGEST_CELL = 2**31 - 1  # characters; what a C long holds everywhere
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
FRACTION = re.compile(r"\s*([+-].*|.*[.eE].*)")
MEDIA = re.compile(r".*\.(jpe?g|png|bmp|gif|webp|tiff?|wav|flac|mp3|ogg)", re.IGNORECASE)


def read_csv(path: Path, encoding: str | None = None) -> Table:
    """A table from a file of delimited text, plain or gzip; ``,`` ``;`` tab and ``|`` are told apart by looking.

    A row with a wrong number of cells is left out and told of in ``problems``; a cell that is not UTF-8 becomes
    missing and is told of, and its row stays.

    Raises:
        DataError: no header, names that clash, a file in another encoding, a quote that is never closed.
    """
    content = read_utf8(path, encoding)
    delimiter, header = read_head(content, path, tab=unpacked_suffix(path) in (".tsv", ".tab"))
    data, problems = read_fast(content, delimiter, header), list[Problem]()
    if data is not None:
        place = lazy_lines(path, encoding, delimiter)
    else:
        data, lines, problems = read_carefully(content, delimiter, header, path)
        place = lines.__getitem__
    data, split = mark_split(tidy(data, place=path))
    return Table(
        data,
        name=stem(path),
        base=path.parent,
        split_column=split,
        place=lambda row: f"{path}, line {place(row)}",
        problems=problems,
    )


def lazy_lines(path: Path, encoding: str | None, delimiter: str) -> Callable[[int], int]:
    """Row number -> line number, by a second reading that is made when the first place is asked for."""

    @cache
    def lines() -> list[int]:
        found = [line for line, cells, _ in records(read_utf8(path, encoding), delimiter, path) if cells]
        return found[1:]

    return lambda row: lines()[row]


def read_head(content: bytes, path: Path, *, tab: bool) -> tuple[str, list[str]]:
    """The delimiter and the names of the columns."""
    whole = len(content) <= SAMPLE
    sample = content if whole else content[: content.rfind(b"\n", 0, SAMPLE) + 1] or content
    best: tuple[float, int, str, list[list[str]]] | None = None
    for delimiter in ("\t",) if tab else DELIMITERS:
        # by a wrong delimiter quotes stand in wrong places: nothing is held against the file here
        rows = [cells for _, cells, _ in records(sample, delimiter, path, cut=True) if cells]
        if not rows:
            continue
        width = len(rows[0])
        even = sum(len(cells) == width for cells in rows) / len(rows)
        if width == 1:  # one column only where the header is not parted; then by what parts no row
            even -= 1
        if best is None or (round(even, 2), width) > best[:2]:
            best = round(even, 2), width, delimiter, rows
    if best is None:
        *_, (_, _, reason) = [(0, None, ""), *records(content, ",", path)]
        raise DataError(reason or "the file holds no row", place=path)
    _, _, delimiter, (header, *body) = best
    for line, cells, reason in records(sample, delimiter, path, cut=True):
        if cells is None:
            raise DataError(f"the names of the columns cannot be read: {reason}", place=f"{path}, line {line}")
        if cells:
            break
    if any("\udc80" <= letter <= "\udcff" for letter in "".join(header)):
        raise not_utf8(path, content)
    check_header(header, body, path)
    return delimiter, header


def check_header(header: list[str], body: list[list[str]], path: Path) -> None:
    """The first row must name columns.

    It looks like data where a name is a fraction above a column of numbers, or the name of a picture or a sound, and no
    column of numbers has a name that is not a number.
    """
    body = [cells for cells in body if len(cells) == len(header)]
    numbers = [
        bool(body) and all(NUMBER.fullmatch(cells[index]) or not cells[index] for cells in body)
        for index in range(len(header))
    ]
    signs = [
        name
        for name, number in zip(header, numbers, strict=True)
        if MEDIA.fullmatch(name) or (number and NUMBER.fullmatch(name) and FRACTION.fullmatch(name))
    ]
    named = any(number and name and not NUMBER.fullmatch(name) for name, number in zip(header, numbers, strict=True))
    mend = "Write a first line with the names of the columns."
    if signs and not named:
        raise DataError(f"the first row looks like data: {signs[0]!r} names no column", place=path, mend=mend)
    try:
        check_names(header, place=path)
    except DataError as error:
        mend = f"Give each column a name of its own{'; the first row looks like data' if all(numbers) else ''}."
        raise DataError(error.what, place=path, mend=mend) from None


def read_fast(content: bytes, delimiter: str, header: list[str]) -> pa.Table | None:
    """pyarrow's reading, or None where there is anything that it does not judge."""
    body = content.rstrip(b"\r\n")
    last = body[max(body.rfind(b"\n"), body.rfind(b"\r")) + 1 :]  # the one that may be cut short within a quote
    if content.count(b'"') % 2 or any(cells is None for _, cells, _ in records(last, delimiter, Path())):
        return None
    try:
        data = pyarrow.csv.read_csv(
            pa.BufferReader(content),
            read_options=pyarrow.csv.ReadOptions(block_size=BLOCK),
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()), null_values=[""], strings_can_be_null=True
            ),
        )
        if data.column_names != header:
            return None
    except (pa.ArrowInvalid, UnicodeDecodeError):  # the latter from a name
        return None
    if b'"' in content and any(pc.any(pc.match_substring_regex(column, "[\r\n]")).as_py() for column in data.columns):
        return None
    return data


def read_carefully(
    content: bytes, delimiter: str, header: list[str], path: Path
) -> tuple[pa.Table, list[int], list[Problem]]:
    """Python's reading: the rows, the line of each, and what is wrong with the others."""
    packs: list[pa.Table] = []
    rows: list[list[str]] = []
    lines: list[int] = []
    problems: list[tuple[int, Problem]] = []

    def pack() -> None:
        before = len(lines) - len(rows)
        columns = []
        for name, cells in zip(header, zip(*rows, strict=True) if rows else [()] * len(header), strict=True):
            good, bad = clean(cells)
            columns.append(good)
            for index in bad:
                row = before + index
                reason = f"the cell is not UTF-8: {cells[index].encode('utf-8', 'surrogateescape')[:40]!r}"
                where = f"{path}, line {lines[row]}"
                problems.append((lines[row], Problem(row, name, where, reason, fatal=False)))
        packs.append(pa.table(columns, names=header))
        rows.clear()

    found = records(content, delimiter, path)
    next(cells for _, cells, _ in found if cells)  # the header
    for line, cells, reason in found:
        if cells is not None and len(cells) == len(header):
            rows.append(cells)
            lines.append(line)
            if len(rows) == PACK:
                pack()
        elif cells != []:  # [] is an empty line
            reason = reason or f"{len(header)} cells expected, {len(cells or ())} found"
            problems.append((line, Problem(len(lines), "", f"{path}, line {line}", reason)))
    pack()
    if not lines and problems:
        raise DataError(problems[0][1].reason, place=problems[0][1].place, mend="No row of the file could be read.")
    told = [problem for _, problem in sorted(problems, key=lambda pair: pair[0])]
    if len({problem.row for problem in told if not problem.fatal}) * 2 > len(lines):
        raise not_utf8(path, content)
    return pa.concat_tables(packs), lines, told


def clean(cells: tuple[str, ...]) -> tuple[pa.Array, list[int]]:
    """The cells as strings, missing where they are empty or not UTF-8, and the numbers of the latter."""
    try:
        return pa.array([cell or None for cell in cells], pa.string()), []
    except UnicodeEncodeError:
        bad = [index for index, cell in enumerate(cells) if any("\udc80" <= letter <= "\udcff" for letter in cell)]
        gone = set(bad)
        good = [None if index in gone else cell or None for index, cell in enumerate(cells)]
        return pa.array(good, pa.string()), bad


def records(
    content: bytes, delimiter: str, path: Path, *, cut: bool = False
) -> Iterator[tuple[int, list[str] | None, str]]:
    """(line it starts in, cells, reason) of each row; cells are None, and there is a reason, where it is broken.

    Bytes that are not UTF-8 come as lone surrogates. ``cut``: the content is a beginning, whose last row may be broken.
    """
    stream = io.TextIOWrapper(io.BytesIO(content), "utf-8", errors="surrogateescape", newline="")
    latest = ""

    def feed() -> Iterator[str]:
        nonlocal latest
        for latest in stream:  # noqa: UP028  (the loop's variable is read below)
            yield latest

    # the limit is one for the whole process; to put it back would cut short the reading of another thread
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))
    reader = csv.reader(feed(), delimiter=delimiter, strict=True)
    while True:
        first = reader.line_num + 1
        try:
            yield first, next(reader), ""
        except StopIteration:
            return
        except csv.Error as error:
            last, ended = reader.line_num, "unexpected end" in str(error)
            if ended and cut:
                return
            if ended and last > first:
                raise DataError(
                    f"a quoted cell starts here and is not closed in the {last - first} lines that follow",
                    place=f"{path}, line {first}",
                    mend="Close the quote, or fetch the file again if its end is missing.",
                ) from error
            if ended:
                yield first, None, "a quoted cell is not closed: the file may be cut short"
            elif last > first:
                yield first, None, f"a quote stands within a quoted cell, in a row that goes on to line {last}"
            else:  # one line, read as pyarrow reads it: what follows the closing quote belongs to the cell
                yield first, next(csv.reader([latest], delimiter=delimiter)), ""
