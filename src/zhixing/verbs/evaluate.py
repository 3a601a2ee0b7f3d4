"""Evaluate a run: on a split of its own data, or on another source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..calibration import Calibration
from ..columns import Column
from ..columns.column import Ragged
from ..console import Console
from ..data.batches import Batches, ColumnBatch
from ..data.packing import pack, packed_column
from ..data.prepare import Prepared, encode_all, fingerprint
from ..data.split import SPLITS, split
from ..data.store import cache_folder
from ..errors import DataError, UsageError
from ..model import Model
from ..recipe import Recipe, reshaped
from .alignment import misfits
from .collect import EXACT, collect
from .examine import examine
from .sources import as_table, own_source, stratify_by, tell_broken

__all__ = ["evaluate"]


def evaluate(
    recipe: Recipe,
    columns: Mapping[str, Column],
    model: Model,
    source: Any = None,
    *,
    part: str | None = None,
    device: torch.device,
    console: Console,
    trained_on: str | None = None,
    calibrations: Mapping[str, Calibration] | None = None,
) -> dict[str, Any]:
    """Evaluate a trained model: on a split of the recipe's own data, or on all rows of another source.

    Gives ``{"split", "rows", "outputs"}``. Rows that cannot be used are told of on the console, and so are own data
    that are not what ``trained_on``, their fingerprint, was taken of: a split of those may hold rows of training.

    Raises:
        UsageError: there is no such split.
        DataError: the source lacks a column, or no row of it can be used.
    """
    if part not in (None, "all", *SPLITS):
        raise UsageError(f"{part!r} is not a split", mend=f"Known: {', '.join(SPLITS)}, all.")
    part = part or ("test" if source is None else "all")
    table = as_table(recipe, own_source(recipe) if source is None else source)
    if any(name not in table.columns for name in columns):
        table = reshaped(table, recipe.plain())
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise DataError(
            f"the column{'s' if len(missing) > 1 else ''} {', '.join(map(repr, missing))} cannot be found",
            place=table.name,
            mend=f"It has: {', '.join(table.columns)}.",
        )
    encoded, problems = encode_all(table, columns, cache=cache_folder())
    bad = np.zeros(table.rows, bool)
    bad[[problem.row for problem in problems if problem.fatal]] = True
    tell_broken([*table.problems, *problems], console)
    bad |= ~np.logical_or.reduce([encoded[name].present for name in model.outputs])
    if part == "all":
        rows = np.flatnonzero(~bad).astype(np.int64)
    else:
        parts = split(table, recipe.data.split, recipe.seed, target=stratify_by(recipe))
        usable = {name: some[~bad[some]] for name, some in parts.items()}
        if source is None and trained_on not in (None, fingerprint(encoded, usable)):
            console.warn("the data have changed since training: rows of this split may have been learned from")
        rows = usable[part]
    apart = misfits({name: one.batch for name, one in encoded.items()}, table, columns, model)
    tell_broken(apart, console)
    rows = rows[~np.isin(rows, [problem.row for problem in apart])]
    if not len(rows):
        raise DataError(f"no row of this split ({part}) can be evaluated", place=table.name)
    tensors = {name: one.batch for name, one in encoded.items()}
    for name in model.outputs:
        if not isinstance(stored := tensors[name], Ragged):  # of those, a row without steps has no target
            tensors[name] = ColumnBatch(stored.values, torch.from_numpy(encoded[name].present))
    if packed_column(columns) is not None:  # a language model
        blocks = pack(Prepared(tensors, {"all": rows}, table.rows), columns, seed=recipe.seed)
        tensors, rows = blocks.columns, blocks.split["all"]
    seen = collect(model, Batches(tensors, device), rows, EXACT, with_answers=bool(model.inputs))
    outputs = examine(model, columns, tensors, table, seen, calibrations)
    return {"split": "all rows" if part == "all" else part, "rows": len(rows), "outputs": outputs}
