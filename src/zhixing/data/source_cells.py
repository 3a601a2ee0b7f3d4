"""Python values and NumPy arrays to Arrow columns, and Arrow tables to the few types that the rest of Zhixing reads."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import DataError

__all__ = [
    "SPLIT",
    "SPLIT_ORDER",
    "check_names",
    "from_mapping",
    "from_numpy",
    "from_values",
    "mark_split",
    "split_of",
    "tidy",
]

SPLIT = "split"
SPLIT_ORDER = ("train", "validation", "test")
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
}
LARGEST_TENSOR = 2**31 - 1  # values a row
LARGEST_CHUNK = 1 << 30  # bytes; a plain string column counts in 32 bits


def split_of(word: str) -> str | None:
    """``train``, ``validation`` or ``test``, whatever of its usual names a source gives it; None for other words.

    >>> split_of("Valid"), split_of("cat")
    ('validation', None)
    """
    return SPLITS.get(word.lower())


def check_names(names: Sequence[str], *, place: object) -> None:
    """Each column needs a name of its own.

    Raises:
        DataError: names that are empty or occur twice, all of them told.
    """
    empty = [str(number) for number, name in enumerate(names, 1) if not name.strip()]
    twice = (
        sorted({name for name in names if name.strip() and names.count(name) > 1}) if len({*names}) < len(names) else []
    )
    faults = [f"column {', '.join(empty)} of {len(names)} has no name"] if empty else []
    faults += [f"{', '.join(map(repr, twice))} names more than one column"] if twice else []
    if faults:
        raise DataError(" and ".join(faults), place=place, mend="Give each column a name of its own.")


def from_values(values: Sequence[Any], *, place: object = None) -> pa.Array:
    """A column of Python values: typed where they are of one kind, else strings (JSON for what is not a string).

    None and NaN are missing. Whole numbers too large for 64 bits stay exact, as strings, unless fractions stand
    beside them.

    >>> from_values([1, None, 2.5]).to_pylist(), from_values([1, "a", [2]]).to_pylist()
    ([1.0, None, 2.5], ['1', 'a', '[2]'])
    """
    first: Any = next((value for value in values if value is not None), None)
    if isinstance(first, Path):
        values = [str(value) if isinstance(value, Path) else value for value in values]
    elif hasattr(first, "__array__") and np.ndim(first) > 0:
        values = [None if value is None else np.asarray(value) for value in values]
        if len({None if value is None else value.shape for value in values}) == 1:
            return from_numpy(np.stack(values), place=place)
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, UnicodeEncodeError):
        pass
    present = [value for value in values if value is not None]
    if {type(value) for value in present} == {int, float}:
        try:
            return pa.array([None if value is None else float(value) for value in values], from_pandas=True)
        except OverflowError:
            pass
    try:
        return pa.array([in_words(value) for value in values], pa.string())
    except UnicodeEncodeError as error:
        raise DataError(f"a text cannot be written in UTF-8: {error}", place=place) from error
    except TypeError as error:
        kinds = ", ".join(sorted({type(value).__name__ for value in present}))
        raise DataError(f"values of these types make no column: {kinds}", place=place) from error


def in_words(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, np.generic):
        value = value.item()
    return json.dumps(value, ensure_ascii=False)


def from_numpy(array: np.ndarray[Any, Any], *, place: object = None) -> pa.Array:
    """A column from an array [rows, ...]: one number a row, or a fixed-shape tensor a row.

    [rows, 1] is a column of numbers; truth values in tensors become 0 and 1; NaN in a column of numbers is missing.

    Raises:
        DataError: an array of no dimension, or of a type that no column can hold (complex numbers, raw bytes).
    """
    if array.ndim == 0:
        raise DataError("a single value is no column", place=place)
    if array.ndim > 1 and array.shape[1:] == (1,):
        array = array[:, 0]
    if array.dtype.kind == "O":
        return from_values(array.tolist(), place=place)
    if array.dtype.kind in "cV":
        raise DataError(f"no column holds values of type {array.dtype}", place=place)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.ndim == 1:
        return pa.array(array, from_pandas=True)
    if array.dtype.kind not in "biuf":
        return from_values(array.tolist(), place=place)
    if 0 in array.shape[1:]:
        raise DataError(f"an array of shape {list(array.shape)} has rows without values", place=place)
    if math.prod(array.shape[1:]) > LARGEST_TENSOR:
        raise DataError(f"rows of shape {list(array.shape[1:])} are too large for a column", place=place)
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    if not len(array):
        kind = pa.fixed_shape_tensor(pa.from_numpy_dtype(array.dtype), array.shape[1:])
        return pa.ExtensionArray.from_storage(kind, pa.array([], kind.storage_type))
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(array))


def from_mapping(columns: Mapping[Any, Any], *, place: object) -> pa.Table:
    """A table from ``{name: list or array}``.

    Raises:
        DataError: no column, names that clash, columns of unequal length (each length told), or values that make none.
    """
    names = [str(name) for name in columns]
    if not names:
        raise DataError("there is no column", place=place)
    check_names(names, place=place)
    made = []
    for name, values in zip(names, columns.values(), strict=True):
        here = f"{place}, column {name!r}"
        if isinstance(values, pa.Array | pa.ChunkedArray):
            made.append(values)
        elif hasattr(values, "__array__"):
            made.append(from_numpy(np.asarray(values), place=here))
        elif isinstance(values, str | bytes | Mapping) or not hasattr(values, "__iter__"):
            raise DataError(f"a column is a list or an array, not {type(values).__name__}", place=here)
        else:
            made.append(from_values(list(values), place=here))
    if len({len(column) for column in made}) > 1:
        lengths = ", ".join(f"{name!r} {len(column)}" for name, column in zip(names, made, strict=True))
        raise DataError(f"columns have different numbers of rows: {lengths}", place=place)
    return tidy(pa.table(dict(zip(names, made, strict=True))), place=place)


def tidy(table: pa.Table, *, place: object) -> pa.Table:
    """The same cells in fewer types: no dictionaries, views, 64-bit offsets or extension types but tensors.

    A column of nothing but missing cells is one of strings.
    """
    names = [str(name) for name in table.column_names]
    check_names(names, place=place)
    columns = [plain(column) for column in table.columns]
    return pa.table(columns, names=names).replace_schema_metadata(None) if names else table


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if isinstance(column.type, pa.BaseExtensionType) and not isinstance(column.type, pa.FixedShapeTensorType):
        # whether such a type is known depends on what else is imported; what it is stored as does not
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)
    wanted = plain_type(column.type)
    if wanted == column.type:
        return column
    return pa.chunked_array([part.cast(wanted) for chunk in column.chunks for part in small(chunk)], wanted)


def plain_type(given: pa.DataType) -> pa.DataType:
    kinds = pa.types
    if kinds.is_dictionary(given):
        return plain_type(given.value_type)
    if kinds.is_null(given) or kinds.is_large_string(given) or kinds.is_string_view(given):
        return pa.string()
    if kinds.is_large_binary(given) or kinds.is_binary_view(given):
        return pa.binary()
    if kinds.is_list(given) or kinds.is_large_list(given):
        return pa.list_(plain_type(given.value_type)) if not kinds.is_null(given.value_type) else given
    return given


def small(chunk: pa.Array) -> Iterator[pa.Array]:
    """The chunk in pieces whose bytes can be counted in 32 bits."""
    if chunk.nbytes <= LARGEST_CHUNK or len(chunk) < 2:
        yield chunk
    else:
        half = len(chunk) // 2
        yield from small(chunk.slice(0, half))
        yield from small(chunk.slice(half))


def mark_split(table: pa.Table) -> tuple[pa.Table, str | None]:
    """The table with its ``split`` column in the words train, validation and test, and that column's name.

    A column of that name that holds anything else, or nothing in some rows, is a column like any other.
    """
    if SPLIT not in table.column_names or not pa.types.is_string(table[SPLIT].type) or not table.num_rows:
        return table, None
    words = table[SPLIT].combine_chunks().dictionary_encode()
    words = words.combine_chunks() if isinstance(words, pa.ChunkedArray) else words
    meanings = [split_of(word) for word in words.dictionary.to_pylist()]
    if words.null_count or None in meanings:
        return table, None
    column = pa.array(meanings, pa.string()).take(words.indices)
    return table.set_column(table.column_names.index(SPLIT), SPLIT, column), SPLIT
