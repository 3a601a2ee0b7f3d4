"""Embed: a vector for each row, for search and clustering. It is what the model's heads read: the pooled encoding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..columns import Column
from ..console import Console
from ..data.batches import Batch, Batches, Order
from ..data.prepare import encode_all
from ..data.table import Problem, Table
from ..errors import DataError, UsageError, did_you_mean
from ..model import Model
from ..recipe import Recipe
from .answers import beside
from .predict import LEAST_RUN, RUN_BYTES, TOLD, asked_table, rows_from, table_of

__all__ = ["embed", "embed_command", "embed_table"]

BATCH = 64
Vectors = NDArray[np.float32]  # [N, D]


def embed_table(
    recipe: Recipe,
    columns: Mapping[str, Column],
    model: Model,
    table: Table,
    *,
    device: torch.device,
    input_: str | None = None,
    normalise: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[Vectors, list[Problem]]:
    """The vectors of all rows, in order, NaN where a row cannot be read; and what was wrong with which row.

    Rows are read in runs, so that memory holds no more than one run and the vectors.

    Raises:
        DataError: an input column is missing.
        UsageError: the model has no such input, or none at all.
    """
    if not model.inputs:
        raise UsageError("a language model has no encoder that makes vectors of rows", mend="Take a run with an input.")
    if input_ is not None and input_ not in model.inputs:
        raise UsageError(f"there is no input {input_!r}", mend=did_you_mean(input_, model.inputs))
    inputs = {name: columns[name] for name in model.inputs if input_ in (None, name)}
    missing = [name for name in inputs if name not in table.columns]
    if missing:
        raise DataError(
            f"the model reads {', '.join(map(repr, missing))}, which this table lacks",
            place=table.name,
            mend=f"It has: {', '.join(table.columns)}.",
        )
    size = max(LEAST_RUN, RUN_BYTES // max(1, sum(column.blank(1)[0].nbytes for column in inputs.values())))
    parts, problems = list[Vectors](), list(table.problems)
    for start in range(0, table.rows, size):
        vectors, found = run_of(model, inputs, rows_from(table, start, size), device, input_)
        parts.append(vectors)
        problems += [replace(problem, row=start + problem.row) for problem in found]
        progress(min(table.rows, start + size))
    known = [part for part in parts if part.shape[1]]
    width = known[0].shape[1] if known else 0
    whole = np.concatenate([part if part.shape[1] else blank(len(part), width) for part in parts] or [blank(0, 0)])
    return (unit(whole) if normalise else whole), problems


def run_of(
    model: Model, inputs: Mapping[str, Column], table: Table, device: torch.device, input_: str | None
) -> tuple[Vectors, list[Problem]]:
    """Vectors [N, D] of one run of rows; [N, 0] where none can be read."""
    encoded, problems = encode_all(table, inputs)
    good = np.ones(table.rows, bool)
    good[[problem.row for problem in problems if problem.fatal]] = False
    rows = np.flatnonzero(good).astype(np.int64)
    if not len(rows):
        return blank(table.rows, 0), problems
    batches = Batches({name: one.batch for name, one in encoded.items()}, device)
    lengths = batches.lengths(rows)
    order = Order(rows, min(BATCH, max(1, batches.block_rows)), shuffle=False, lengths=lengths)
    parts = []
    with torch.inference_mode():
        for batch in batches.stream(order, 0, order.steps_per_epoch):
            parts.append(pooled(model, batch, input_).float().cpu())
    found = torch.cat(parts).numpy()
    if not found.shape[1]:
        raise UsageError(
            "the decoder of this model reads its input itself, so that there is no vector of it",
            mend="Take a run with another encoder than prompt.",
        )
    if lengths is not None:  # batches are of rows of about the same length
        rows = rows[np.argsort(lengths, kind="stable")]
    out = blank(table.rows, found.shape[1])
    out[rows] = found
    return out, problems


def pooled(model: Model, batch: Batch, input_: str | None) -> Tensor:
    """The summary [B, D] of one input, or of all of them together."""
    if input_ is None:
        return model.encode(batch).pooled
    place = model.inputs.index(input_)
    values, mask = batch.columns[input_]
    found: Tensor = model.encoders[place](*model.stems[place](values, mask)).pooled
    return found


def blank(rows: int, width: int) -> Vectors:
    return np.full((rows, width), np.nan, np.float32)


def unit(vectors: Vectors) -> Vectors:
    """Each vector at length 1; one of length 0 stays."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def embed(
    recipe: Recipe,
    columns: Mapping[str, Column],
    model: Model,
    source: Any,
    *,
    device: torch.device,
    input_: str | None = None,
    normalise: bool = False,
) -> Vectors:
    """The Python face of :func:`embed_table`.

    Raises:
        DataError: a row cannot be read; it is named.
    """
    table = asked_table(recipe, source)
    vectors, problems = embed_table(recipe, columns, model, table, device=device, input_=input_, normalise=normalise)
    fatal = [problem for problem in problems if problem.fatal]
    if fatal:
        raise DataError(f"{len(fatal)} rows cannot be read; the first: {fatal[0]}", place=table.name)
    return vectors


# The command ---------------------------------------------------------------------------------------------------------


def embed_command(
    recipe: Recipe,
    columns: Mapping[str, Column],
    model: Model,
    inputs: Sequence[str],
    *,
    device: torch.device,
    out: Path,
    input_: str | None,
    normalise: bool,
    console: Console,
) -> dict[str, Any]:
    """``zhixing embed``: write the vectors, in Parquet beside what was asked; gives a summary.

    Broken rows are told of and have empty vectors, so that nothing shifts.
    """
    if out.suffix.lower() not in WRITERS:
        what = out.suffix or "a file without a suffix"
        raise UsageError(f"cannot write {what}", place=out, mend=f"Use {', '.join(WRITERS)}.")
    if not out.parent.is_dir():
        raise UsageError("there is no such folder", place=out.parent)
    with TemporaryDirectory() as folder, console:
        table = table_of(recipe, inputs, Path(folder))
        vectors, problems = embed_table(
            recipe, columns, model, table, device=device, input_=input_, normalise=normalise,
            progress=lambda done: console.progress("embedding", done, table.rows),
        )  # fmt: skip
        fatal = [problem for problem in problems if problem.fatal]
        for problem in fatal[:TOLD]:
            console.warn(str(problem))
        if len(fatal) > TOLD:
            console.warn(f"… and {len(fatal) - TOLD} more")
        part = out.with_name(f".{out.name}.part")
        try:
            WRITERS[out.suffix.lower()](table, vectors, part)
            part.replace(out)
        finally:
            part.unlink(missing_ok=True)
    broken = len({problem.place for problem in fatal})
    console.say(f"{len(vectors):,} vectors of {vectors.shape[1]} numbers in {out}")
    return {"rows": len(vectors), "broken": broken, "width": vectors.shape[1], "out": str(out)}


def write_parquet(table: Table, vectors: Vectors, out: Path) -> None:
    """A column ``embedding`` of lists of float32, null where a row cannot be read, after the row's own cells."""
    lost = np.isnan(vectors).all(axis=1)
    values = pa.array(vectors.reshape(-1), pa.float32())
    cells = pa.FixedSizeListArray.from_arrays(values, max(1, vectors.shape[1]), mask=pa.array(lost)) \
        if vectors.shape[1] else pa.nulls(len(vectors), pa.list_(pa.float32(), 1))  # fmt: skip
    pa.parquet.write_table(beside(table, pa.table({"embedding": cells})), out)


def write_numpy(table: Table, vectors: Vectors, out: Path) -> None:
    """[N, D] float32, NaN where a row cannot be read."""
    with out.open("wb") as file:
        np.save(file, vectors, allow_pickle=False)


WRITERS: dict[str, Callable[[Table, Vectors, Path], None]] = {".parquet": write_parquet, ".npy": write_numpy}
