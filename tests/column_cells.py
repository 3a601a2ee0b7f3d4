"""Columns of cells of unequal length, fitted and encoded in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from zhixing.columns import Column
from zhixing.columns.column import Tensorized

AnyColumn = TypeVar("AnyColumn", bound=Column)


def fit(column: AnyColumn, cells: Any, role: str = "input") -> AnyColumn:
    """The column, fitted to these cells."""
    column.role = role  # type: ignore[assignment]
    column.fit(cells if isinstance(cells, pa.ChunkedArray) else pa.chunked_array([cells]), Path)
    return column


def done(column: Column, cells: Any) -> Tensorized:
    return column.tensorize(cells if isinstance(cells, pa.Array) else pa.array(cells), Path)


def rows_of(result: Tensorized) -> list[list[int]]:
    """The ids of each row."""
    assert result.lengths is not None
    assert result.lengths.sum() == len(result.values)
    ends = np.cumsum(result.lengths).tolist()
    return [result.values[end - n : end].tolist() for end, n in zip(ends, result.lengths.tolist(), strict=True)]
