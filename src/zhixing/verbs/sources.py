"""Sources as a run reads them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image as Picture
from PIL.Image import fromarray

from ..columns import audio, image
from ..console import Console
from ..data.source import open_source
from ..data.table import Problem, Table
from ..errors import UsageError
from ..recipe import Recipe

__all__ = ["SUFFIXES", "as_table", "own_source", "rows_as_columns", "stratify_by", "tell_broken"]

SUFFIXES = image.SUFFIXES | audio.SUFFIXES  # of files that are a cell by themselves


def own_source(recipe: Recipe) -> str:
    """What the run was trained on, where that can be opened again."""
    if recipe.data.source.startswith("memory:"):
        raise UsageError(
            "the run was trained on data that were only in memory", mend="Give the data to evaluate it on."
        )
    return recipe.data.source


def tell_broken(problems: Sequence[Problem], console: Console) -> None:
    """Say how many rows are left out, and show the first."""
    fatal = [problem for problem in problems if problem.fatal]
    if fatal:
        count = len({problem.place for problem in fatal})
        console.warn(f"{count} row{'s' if count > 1 else ''} cannot be used and left out; the first: {fatal[0]}")


def as_table(recipe: Recipe, source: Any) -> Table:
    """A source, or a list of cells for a model with a single input."""
    asked = recipe.inputs or recipe.outputs  # a language model goes on from a text
    single = next(iter(asked)) if len(asked) == 1 else None
    if isinstance(source, str | Path) and Path(source).suffix.lower() in SUFFIXES:
        source = [source]
    if isinstance(source, np.ndarray) and source.dtype.names is None and single is not None:
        return open_source({single: source})
    source = rows_as_columns(source)
    if not isinstance(source, list | tuple):
        return renamed(open_source(source), recipe)
    if single is None:
        raise UsageError(
            f"the model reads {len(recipe.inputs)} columns ({', '.join(recipe.inputs)})",
            mend="Give a table, or a mapping for each row.",
        )
    if len({cell.shape for cell in source if isinstance(cell, np.ndarray)}) > 1:  # pictures of several sizes
        source = [fromarray(cell) if isinstance(cell, np.ndarray) else cell for cell in source]
    return open_source({single: [as_cell(cell) for cell in source]}, name="rows")


def rows_as_columns(source: Any) -> Any:
    """A list of mappings, one a row, as a mapping of columns; a row may lack some. Anything else stays as it is."""
    if not isinstance(source, list | tuple) or not source or not all(isinstance(row, Mapping) for row in source):
        return source
    names = dict.fromkeys(name for row in source for name in row)
    return {name: [as_cell(row.get(name)) for row in source] for name in names}


def as_cell(value: Any) -> Any:
    """Paths as text, and Pillow's pictures as the bytes of a file."""
    if isinstance(value, Picture):
        buffer = io.BytesIO()
        value.save(buffer, "PNG")
        return buffer.getvalue()
    return str(value) if isinstance(value, Path) else value


def renamed(table: Table, recipe: Recipe) -> Table:
    """A folder of pictures has a column `image`; the only picture that the model reads may be called otherwise."""
    pictures = [name for name, settings in recipe.inputs.items() if settings.type == "image"]
    if len(recipe.inputs) == 1 and pictures and pictures[0] not in table.columns and table.columns[:1] == ["image"]:
        names = [pictures[0] if name == "image" else name for name in table.data.column_names]
        table.data = table.data.rename_columns(names)
    return table


def stratify_by(recipe: Recipe) -> str | None:
    """The output whose classes a stratified split keeps in proportion: the first category."""
    return next((name for name, settings in recipe.outputs.items() if settings.type == "category"), None)
