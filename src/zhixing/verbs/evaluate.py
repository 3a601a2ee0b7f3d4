"""Evaluate: predictions of a whole split, the figures of merit, and what a report shows of them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image as Picture
from PIL.Image import fromarray
from torch import Tensor
from torch.nn.functional import pad

from ..columns import Column
from ..columns.column import Ragged
from ..columns.image import SUFFIXES
from ..columns.text import Text
from ..columns.vocabulary import END, PAD
from ..console import Console
from ..data.batches import Batch, Batches, ColumnBatch, Order, stored_row
from ..data.packing import pack, packed_column
from ..data.prepare import Prepared, encode_all, fingerprint
from ..data.source import open_source
from ..data.split import SPLITS, split
from ..data.store import cache_folder
from ..data.table import Problem, Table
from ..errors import DataError, UsageError
from ..heads import Head
from ..heads.text import TextHead
from ..model import Model, blank_encoding
from ..models.encoding import Encoding
from ..recipe import Recipe, reshaped
from ..training.loop import Validation, out_of_memory
from ..training.precision import Precision

__all__ = [
    "EXACT",
    "Collected",
    "as_table",
    "collect",
    "evaluate",
    "examine",
    "headline",
    "rows_as_columns",
    "stratify_by",
    "validation",
]

WORST = 24
SAMPLES, PROMPT = 6, 24  # texts that a language model is shown with, and the tokens that it goes on from
EXACT = Precision("fp32", "final figures and predictions are computed in float32")


@dataclass
class Collected:
    """Predictions of many rows: by output, [N, …] in main memory.

    ``predictions`` are what the heads keep for their metrics, ``answers`` what they decode, where that was asked for.
    """

    rows: NDArray[np.int64]
    predictions: dict[str, Tensor]
    answers: dict[str, Tensor]
    targets: dict[str, Tensor]
    present: dict[str, Tensor]
    losses: dict[str, Tensor]

    def usable(self, name: str) -> tuple[Tensor, Tensor]:
        """Prediction and target of the rows that have a target."""
        kept = self.present[name]
        return self.predictions[name][kept], self.targets[name][kept]


def collect(
    model: Model,
    batches: Batches,
    rows: NDArray[np.int64],
    precision: Precision,
    *,
    with_targets: bool = True,
    with_answers: bool = False,
) -> Collected:
    """Run the model over rows in evaluation mode; dropout and running statistics stand still. Results are in order.

    With answers, texts are generated, which takes far longer than to measure how likely the true ones are.

    Where memory runs out, smaller batches are tried.
    """
    # On a CPU, activations of larger batches leave the cache and the forward pass takes twice as long.
    most = min(256 if batches.device.type == "cpu" else 1024, max(1, batches.block_rows))
    if batches.ragged:  # in larger batches, more of each would be padding
        most = min(most, 64)
    was_training = model.training
    model.eval()
    try:
        while True:
            try:
                return pass_through(model, batches, rows, precision, most, (with_targets, with_answers))
            except RuntimeError as error:
                if most == 1 or not out_of_memory(error):
                    raise
            most = (most + 1) // 2
    finally:
        model.train(was_training)


def pass_through(
    model: Model,
    batches: Batches,
    rows: NDArray[np.int64],
    precision: Precision,
    most: int,
    wanted: tuple[bool, bool],
) -> Collected:
    """Batches of rows of about the same length; what comes of them is put back in the order of ``rows``."""
    lengths = batches.lengths(rows)
    order = Order(rows, most, shuffle=False, lengths=lengths)
    parts: dict[str, dict[str, list[Tensor]]] = {kind: {} for kind in ("keep", "answer", "target", "present", "loss")}
    with torch.inference_mode():
        for batch in batches.stream(order, 0, order.steps_per_epoch if len(rows) else 0):
            with precision.cast(batches.device):
                encoding = model.encode(batch)
            for name in model.outputs:
                for kind, tensor in look(model, name, encoding, batch, precision, wanted).items():
                    parts[kind].setdefault(name, []).append(tensor.cpu())
    back = None if lengths is None else torch.from_numpy(np.argsort(np.argsort(lengths, kind="stable")))
    joined = {
        kind: {name: joined_rows(some) if back is None else joined_rows(some)[back] for name, some in by.items()}
        for kind, by in parts.items()
    }
    return Collected(rows, joined["keep"], joined["answer"], joined["target"], joined["present"], joined["loss"])


def look(
    model: Model, name: str, encoding: Encoding, batch: Batch, precision: Precision, wanted: tuple[bool, bool]
) -> dict[str, Tensor]:
    """What one output makes of a batch: of its target, where that is wanted, and of its answers."""
    (with_targets, with_answers), head, out, prediction = wanted, model.head(name), {}, None
    with precision.cast(batch.rows.device):
        if with_targets or not head.forced:
            prediction = model.predict(name, encoding, batch)
            prediction = prediction.float() if prediction.dtype in (torch.bfloat16, torch.float16) else prediction
        if with_answers:
            out["answer"] = answers_of(model, name, encoding, batch, None if head.forced else prediction)
    if with_targets:
        assert prediction is not None
        target, mask = batch.columns[name]
        here = torch.ones(len(batch), dtype=torch.bool, device=target.device) if mask is None else mask
        out["target"], out["present"] = target, here.any(1) if here.ndim > 1 else here
        out["keep"], out["loss"] = head.keep(prediction, target), head.loss(prediction, target)
    return out


def answers_of(model: Model, name: str, encoding: Encoding, batch: Batch, prediction: Tensor | None) -> Tensor:
    """What a head finds without its target; a language model goes on from it."""
    head = model.head(name)
    if not model.inputs and isinstance(head, TextHead):
        return head.answer(encoding, prompt=batch.columns[name].values)
    return head.answer(encoding, prediction)


def joined_rows(parts: list[Tensor]) -> Tensor:
    """Rows of several batches as one tensor; those of batches that are shorter along the second axis get zeros."""
    if parts[0].ndim > 1:
        longest = max(part.shape[1] for part in parts)
        rest = (0, 0) * (parts[0].ndim - 2)
        parts = [part if part.shape[1] == longest else pad(part, (*rest, 0, longest - part.shape[1])) for part in parts]
    return torch.cat(parts)


def metrics_of(model: Model, columns: Mapping[str, Column], seen: Collected) -> dict[str, dict[str, float]]:
    out = {}
    for name in model.outputs:
        prediction, target = seen.usable(name)
        out[name] = model.head(name).metrics(prediction, target, columns[name]) if len(target) else {}
    return out


def validation(model: Model, columns: Mapping[str, Column], seen: Collected) -> Validation:
    """What the loop chooses a model by: the goal of a single output, the loss where there are several."""
    metrics = metrics_of(model, columns, seen)
    each = {name: seen.losses[name][seen.present[name]].double() for name in model.outputs}
    loss = float(sum(model.importance[name] * rows.mean() for name, rows in each.items() if len(rows)))
    if len(model.outputs) == 1:
        head = model.head(model.outputs[0])
        goal = metrics[model.outputs[0]].get(head.goal, -loss)
        # The loss, at most a thousandth, tells apart models whose goal is equal.
        return Validation(loss, (goal if head.higher else -goal) - 1e-3 * loss / (1 + abs(loss)), metrics)
    return Validation(loss, -loss, metrics)


def examine(
    model: Model,
    columns: Mapping[str, Column],
    tensors: Mapping[str, ColumnBatch | Ragged],
    table: Table,
    seen: Collected,
) -> dict[str, Any]:
    """Metrics and details of each output, for ``evaluation.json``."""
    metrics = metrics_of(model, columns, seen)
    outputs = {}
    for name in model.outputs:
        head, column = model.head(name), columns[name]
        prediction, target = seen.usable(name)
        if len(target):
            metrics[name] |= answer_metrics(head, column, seen, name)
        details = head.examine(prediction, target, column) if len(target) else {}
        if model.inputs:
            details["worst"] = worst_rows(model, columns, tensors, table, seen, name)
        elif isinstance(column, Text):
            details |= {"worst": [], "samples": samples(model, columns, name, target)}
        outputs[name] = {"type": column.type, "metrics": metrics[name], **details}
    return outputs


def answer_metrics(head: Head, column: Column, seen: Collected, name: str) -> dict[str, float]:
    """Figures of the answers as a person reads them, such as how near a translation comes."""
    if type(head).answer_metrics is Head.answer_metrics or name not in seen.answers:
        return {}
    kept = seen.present[name]
    answers = head.decode(seen.answers[name][kept], column)[""]
    return head.answer_metrics(answers, column.restore(seen.targets[name][kept]))


def samples(model: Model, columns: Mapping[str, Column], name: str, target: Tensor) -> list[dict[str, str]]:
    """How a language model goes on from the beginnings of some held-out texts."""
    device = next(model.parameters()).device
    most = min(PROMPT, columns[name].spec().shape[0] // 2)
    prompt = target[: min(SAMPLES, len(target)), :most].abs().to(device)
    if not len(prompt):
        return []
    blank = blank_encoding(len(prompt), device)
    with torch.inference_mode():
        head = model.head(name)
        assert isinstance(head, TextHead)
        written = head.answer(blank, prompt=prompt)
    column = columns[name]
    texts = zip(column.restore(torch.where(prompt == END, PAD, prompt)), column.restore(written), strict=True)
    return [{"prompt": one, "text": other} for one, other in texts]


def worst_rows(
    model: Model,
    columns: Mapping[str, Column],
    tensors: Mapping[str, ColumnBatch | Ragged],
    table: Table,
    seen: Collected,
    name: str,
) -> list[dict[str, Any]]:
    """The rows with the largest loss, worst first, with what the model saw."""
    loss = torch.where(seen.present[name], seen.losses[name], -torch.inf)
    chosen = loss.argsort(descending=True, stable=True)[: min(WORST, int(seen.present[name].sum()))]
    head, column = model.head(name), columns[name]
    said = head.decode(seen.answers[name][chosen], column)
    truth = column.restore(seen.targets[name][chosen])
    out = []
    for place, index in enumerate(chosen.tolist()):
        row = int(seen.rows[index])
        out.append(
            {
                "row": row,
                "place": table.where(row),
                "truth": truth[place],
                "prediction": said[""][place],
                "probability": said["probability"][place] if "probability" in said else None,
                "loss": float(loss[index]),
                "inputs": {key: columns[key].show(stored_row(tensors[key], row)) for key in model.inputs},
            }
        )
    return out


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
    outputs = examine(model, columns, tensors, table, seen)
    return {"split": "all rows" if part == "all" else part, "rows": len(rows), "outputs": outputs}


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


# Sources as a run reads them -----------------------------------------------------------------------------------------


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


def headline(metrics: Mapping[str, Mapping[str, float]]) -> str:
    """The figures of each output in one line."""
    parts = []
    for name, figures in metrics.items():
        some = [f"{key} {value:.4f}" for key, value in list(figures.items())[:3]]
        parts.append(f"{name}: {', '.join(some)}")
    return "; ".join(parts)
