"""JSON: one object a line, or a list of objects; their keys are the columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..errors import DataError
from .source_cells import check_names, from_values, mark_split, tidy
from .source_text import not_utf8, read_utf8, stem
from .table import Problem, Table

__all__ = ["read_json", "read_json_lines"]


def read_json_lines(path: Path, encoding: str | None = None) -> Table:
    """A table from a file with one JSON object a line, plain or gzip.

    Columns stand in the order in which their keys first appear; a key that a line lacks is missing there. Values keep
    their types where a column has one (numbers, texts, truth values, lists, objects), else all become strings. A line
    that is no object is left out and told of in ``problems``. A text with half a surrogate pair, which nothing can
    store, becomes missing and is told of.

    Raises:
        DataError: a file in another encoding, or one in which no line is an object.
    """
    content = read_utf8(path, encoding)
    objects: list[dict[str, Any]] = []
    places: list[int] = []
    problems: list[Problem] = []
    undecoded = 0
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            objects.append(parse(line))
            places.append(number)
        except ValueError as error:
            undecoded += isinstance(error, UnicodeDecodeError)
            problems.append(Problem(len(places), "", f"{path}, line {number}", str(error)))
    if undecoded > len(places):
        raise not_utf8(path, content)
    return assemble(objects, places, problems, path, unit="line")


def read_json(path: Path, encoding: str | None = None) -> Table:
    """A table from a file that holds a list of objects; a file with one object a line is read as such."""
    content = read_utf8(path, encoding).strip()
    if not content.startswith(b"["):
        return read_json_lines(path, encoding)
    try:
        found = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise not_utf8(path, content) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"the file is not JSON: {error}", place=path) from error
    objects: list[dict[str, Any]] = []
    places: list[int] = []
    problems: list[Problem] = []
    for number, item in enumerate(found, 1):
        if isinstance(item, dict):
            objects.append(item)
            places.append(number)
        else:
            problems.append(Problem(len(places), "", f"{path}, item {number}", not_an_object(item)))
    return assemble(objects, places, problems, path, unit="item")


def parse(line: bytes) -> dict[str, Any]:
    """One line's object; ValueError says what else it is."""
    text = line.decode("utf-8")
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"the line is not JSON: {error.msg} at character {error.pos + 1}") from error
    except RecursionError as error:
        raise ValueError("the line is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError(not_an_object(found))
    return found


def not_an_object(found: object) -> str:
    names = {list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return f'an object is needed, like {{"name": 1}}, not {names.get(type(found), "a number")}'


def assemble(
    objects: list[dict[str, Any]], places: list[int], problems: list[Problem], path: Path, *, unit: str
) -> Table:
    if not objects:
        if problems:
            raise DataError(problems[0].reason, place=problems[0].place, mend="No row of the file could be read.")
        raise DataError("the file holds no row", place=path)
    names = list(dict.fromkeys(key for found in objects for key in found))
    if not names:
        raise DataError("no object has a key, so there is no column", place=path)
    check_names(names, place=path)
    columns = []
    for name in names:
        values = [found.get(name) for found in objects]
        for row in halves(values):
            reason = "the text holds half a surrogate pair, which is no character"
            problems.append(Problem(row, name, f"{path}, {unit} {places[row]}", reason, fatal=False))
            values[row] = None
        columns.append(from_values(values, place=f"{path}, column {name!r}"))
    data, split = mark_split(tidy(pa.table(columns, names=names), place=path))
    return Table(
        data,
        name=stem(path),
        base=path.parent,
        split_column=split,
        place=lambda row: f"{path}, {unit} {places[row]}",
        problems=sorted(problems, key=lambda problem: problem.row),
    )


def halves(values: list[Any]) -> list[int]:
    """Rows whose value cannot be written as UTF-8."""
    bad = []
    for row, value in enumerate(values):
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) if nested(value) else ""
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                bad.append(row)
    return bad


def nested(value: object) -> bool:
    return isinstance(value, list | dict)
