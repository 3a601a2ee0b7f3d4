"""``zhixing export``: which rows are compared, and what is told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..calibration import Calibration
from ..columns import Column
from ..console import Console
from ..errors import DataError
from ..explain.rows import Rows, given_rows, split_rows
from ..model import Model
from ..recipe import Recipe
from .export import ROWS, TOLERANCE, export
from .huggingface import export_huggingface

__all__ = ["export_command", "rows_for"]


def rows_for(
    recipe: Recipe,
    columns: Mapping[str, Column],
    model: Model,
    data: Any = None,
    *,
    most: int = ROWS,
    own: Any = None,
    console: Console,
) -> Rows:
    """Real rows to compare on: of ``data``, or held-out ones of the run's own; ``own`` has those in memory.

    Raises:
        DataError: there are none.
    """
    if data is not None:
        return given_rows(recipe, columns, model, data, console).take(most)
    error: DataError | None = None
    for part in ("test", "validation", "train"):
        try:
            return split_rows(recipe, columns, model, part, console, own).take(most)
        except DataError as found:  # a split may be empty
            error = error or found
    assert error is not None
    raise DataError(error.what, place=error.place, mend="Give rows to compare on: --data FILE.")


def export_command(
    recipe: Recipe,
    columns: Mapping[str, Column],
    model: Model,
    *,
    form: str,
    out: Path,
    tolerance: float = TOLERANCE,
    data: Any = None,
    own: Any = None,
    most: int = ROWS,
    calibrations: Mapping[str, Calibration] | None = None,
    console: Console,
) -> dict[str, Any]:
    """Export a loaded run and say what came of it. ``own`` are the run's own data where they are only in memory."""
    with console:
        rows = rows_for(recipe, columns, model, data, own=own, most=most, console=console)
        if form == "huggingface":
            told = export_huggingface(
                recipe, columns, model, rows, out, tolerance=tolerance, calibrations=calibrations, console=console
            )
        else:
            told = export(
                columns, model, rows, out, form=form, tolerance=tolerance, calibrations=calibrations, console=console
            )
        apart = ", ".join(f"{name} {value:.1e}" for name, value in told["differences"].items())
        console.say(f"{told['bytes'] / 1e6:,.2f} MB in {told['out']}; largest differences: {apart}")
    return told
