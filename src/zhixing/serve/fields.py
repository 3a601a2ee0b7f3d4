"""What a run's columns look like in requests: checked rows, JSON schemas, facts for a form.

All of it follows from :meth:`zhixing.columns.Column.wire`, so that a new type of column is served by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from ..columns import Column
from ..errors import did_you_mean

__all__ = ["Fields", "RowError", "describe", "parse_json"]


class RowError(Exception):
    """One row of a request cannot be used; the others can."""

    def __init__(self, message: str, column: str | None = None) -> None:
        super().__init__(message)
        self.message, self.column = message, column

    def told(self) -> dict[str, Any]:
        return {"message": self.message, "column": self.column}


def parse_json(content: bytes | bytearray | str) -> Any:
    """JSON as RFC 8259 has it, without NaN and without bottomless nesting. Raises ValueError."""
    return from_json(bytes(content) if isinstance(content, bytearray) else content, allow_inf_nan=False)


class Fields:
    """The input columns of a run as they stand in requests.

    ``most`` bounds what one cell may hold: characters of a text, numbers or words of a list.
    """

    def __init__(self, columns: Mapping[str, Column], most: int) -> None:
        self.columns, self.most = dict(columns), most
        self.wires = {name: column.wire() for name, column in columns.items()}
        self.readers: dict[str, TypeAdapter[Any]] = {
            name: TypeAdapter(wire.cell, config={"strict": True, "hide_input_in_errors": True})
            for name, wire in self.wires.items()
        }

    def read(self, row: Any) -> dict[str, Any]:
        """The cells of one row, as columns take them.

        Raises:
            RowError: a column is missing or not known, or a cell is not what the schema says.
        """
        if not isinstance(row, dict):
            raise RowError("a row is a mapping of column names to cells")
        for name in row:
            if name not in self.readers:
                raise RowError(
                    f"the model reads no column {name[:100]!r}. {did_you_mean(name[:100], self.readers)}", name
                )
        for name in self.readers:
            if name not in row:
                raise RowError(f"the column {name!r} is missing; a cell may be null where the schema says so", name)
        return {name: self.cell(name, row[name]) for name in self.readers}

    def cell(self, name: str, cell: Any) -> Any:
        if size(cell) > self.most and not isinstance(cell, bytes | dict):
            raise RowError(f"the cell holds {size(cell):,} characters or values, more than {self.most:,}", name)
        try:
            return self.readers[name].validate_python(cell)
        except ValidationError as error:
            raise RowError(told(error), name) from None

    def read_form(self, parts: Mapping[str, bytes | str]) -> dict[str, Any]:
        """A row from the parts of a form: files as they are, texts as cells or as the JSON of cells."""
        return {name: self.of_form(name, part) if name in self.readers else part for name, part in parts.items()}

    def of_form(self, name: str, part: bytes | str) -> Any:
        if isinstance(part, bytes):  # a text column may be given its text as a file
            try:
                return part if self.takes(name, part) else part.decode()
            except UnicodeDecodeError:
                return part
        for candidate in (lambda: part, lambda: parse_json(part) if part.strip() else None):
            try:
                found = candidate()
            except (ValueError, RecursionError):
                continue
            if self.takes(name, found):
                return found
        return part

    def takes(self, name: str, cell: Any) -> bool:
        try:
            self.readers[name].validate_python(cell)
        except ValidationError:
            return False
        return True

    def schema(self) -> dict[str, Any]:
        """The JSON schema of a row, with an example of each column and of the whole."""
        return {
            "type": "object",
            "properties": {name: self.schema_of(name) for name in self.readers},
            "required": list(self.readers),
            "additionalProperties": False,
            "examples": [self.example()],
        }

    def schema_of(self, name: str) -> dict[str, Any]:
        return self.readers[name].json_schema() | {"examples": [self.wires[name].example]}

    def example(self) -> dict[str, Any]:
        return {name: wire.example for name, wire in self.wires.items()}

    def describe(self) -> list[dict[str, Any]]:
        """Each column's name, type, schema, example and facts."""
        return [
            {"name": name, "type": self.columns[name].type, "schema": self.schema_of(name), "example": wire.example}
            | wire.facts
            for name, wire in self.wires.items()
        ]


def describe(columns: Mapping[str, Column]) -> list[dict[str, Any]]:
    """Name, type and facts of what a model gives."""
    return [{"name": name, "type": column.type} | column.wire().facts for name, column in columns.items()]


def size(cell: Any) -> int:
    """Characters of a text; numbers, and characters of words, of a list of any depth."""
    if isinstance(cell, str | bytes):
        return len(cell)
    return sum(map(size, cell)) if isinstance(cell, list) else 1


def told(error: ValidationError) -> str:
    """The first fault, or what all kinds that a cell may have say of it."""
    seen: list[str] = []
    for one in error.errors(include_url=False, include_input=False):
        place = ".".join(str(part) for part in one["loc"] if isinstance(part, int))
        message = f"at {place}: {one['msg']}" if place else one["msg"]
        message = message.removeprefix("Value error, ")
        if message not in seen:
            seen.append(message)
    return "; or ".join(seen[:4])[:400]
