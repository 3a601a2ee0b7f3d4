"""Describe: what data, a recipe or a run hold, and what training them takes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from rich.console import Console as RichConsole
from rich.table import Table as RichTable
from rich.text import Text

from ..columns import Column, infer
from ..columns.column import Ragged
from ..console import Console
from ..data.prepare import encode_all
from ..data.source import open_source
from ..data.split import split
from ..data.table import Table
from ..errors import DataError, RecipeError, UsageError
from ..pretrained import equip
from ..recipe import Recipe, reshaped
from ..run import RunFolder, make_columns
from ..training.surroundings import torch_device
from .complete import complete
from .estimate.dry import Dry
from .sources import stratify_by, tell_broken
from .train import describe_source

__all__ = ["describe", "show"]

PROBE = 64  # rows that are encoded to learn sizes


def describe(
    subject: str | None,
    raw: Mapping[str, Any],
    *,
    encoder: str | None = None,
    device: str = "auto",
    console: Console,
) -> dict[str, Any]:
    """Facts of a run folder or of a source, as JSON; without a subject, of the source that the recipe names.

    Nothing is trained and nothing is written.
    """
    if subject is not None and (Path(subject) / "recipe.yaml").is_file():
        return run_facts(RunFolder(subject), device)
    subject = subject if subject is not None else str(raw["data"]["source"])
    table = reshaped(open_source(subject), raw)
    tell_broken(table.problems, console)
    try:
        done = complete(raw, table, encoder, source=describe_source(subject, table))
    except RecipeError:
        raise
    except (UsageError, DataError) as error:  # without a target there is still much to say
        return table_facts(table) | {"note": str(error)}
    recipe = Recipe(done.raw)
    columns = make_columns(recipe)
    equip(recipe, columns)
    parts = split(table, recipe.data.split, recipe.seed, target=stratify_by(recipe))
    facts, summaries = probe(recipe, table, columns, parts["train"], torch_device(device))
    return {
        "data": {
            "source": recipe.data.source,
            "rows": table.rows,
            "splits": {name: len(rows) for name, rows in parts.items()},
            "rows_lost_in_reading": sum(problem.fatal for problem in table.problems),
        },
        "columns": {
            name: {"type": column.type, "role": column.role, "reason": done.reasons[name], **summaries[name]}
            for name, column in columns.items()
        }
        | {name: {"role": "unused", "reason": done.reasons.get(name, "as asked")} for name in recipe.data.unused},
        **facts,
    }


def run_facts(run: RunFolder, device: str) -> dict[str, Any]:
    recipe = run.recipe()
    columns = run.columns(recipe)
    passed = [name for name, settings in recipe.inputs.items() if settings.encoder.name == "custom"]
    figures = run.read_json("evaluation.json")
    about = run.read_json("data.json") or {}
    return {
        "run": str(run.path),
        "finished": run.finished,
        "data": {key: about.get(key) for key in ("source", "rows", "splits")},
        "columns": {
            name: {"type": column.type, "role": column.role, **column.summary()} for name, column in columns.items()
        },
        **({} if passed else model_facts(recipe, columns, torch_device(device))),
        "note": f"the encoder of {', '.join(passed)} was passed in from Python" if passed else None,
        "metrics": {name: one["metrics"] for name, one in figures["outputs"].items()} if figures else None,
    }


def table_facts(table: Table) -> dict[str, Any]:
    found = {name: infer(table[name], name) for name in table.columns}
    columns = {
        name: {"type": one[0], "reason": one[1]}
        if one
        else {"type": None, "reason": f"no type fits {table[name].type}"}
        for name, one in found.items()
    }
    return {"data": {"source": table.name, "rows": table.rows}, "columns": columns}


def probe(
    recipe: Recipe, table: Table, columns: Mapping[str, Column], train: Any, device: torch.device
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Fit on training rows and encode a few of them: enough to know every size. Gives facts of the model and of each
    column.

    What a column learns from the stored tensors of all training rows would be wrong of a few, so it is not told.
    """
    for name, column in columns.items():
        if not column.known:
            column.fit(table[name].take(pa.array(train)), table.locate)
    few = table.take(train[:PROBE].tolist())
    encoded, _ = encode_all(few, columns)
    summaries = {}
    for name, column in columns.items():
        before = column.summary()
        batch = encoded[name].batch
        stored = batch if isinstance(batch, Ragged) else batch.values
        if not column.known:
            column.calibrate(stored, encoded[name].present.nonzero()[0])
        after = column.summary()
        summaries[name] = {key: value for key, value in after.items() if before.get(key) == value}
    stored_bytes = sum(one.batch.values.nbytes for one in encoded.values()) * table.rows // max(1, few.rows)
    return {"stored_bytes": stored_bytes, **model_facts(recipe, columns, device)}, summaries


def model_facts(recipe: Recipe, columns: Mapping[str, Column], device: torch.device) -> dict[str, Any]:
    """Parameters, operations and memory of the recipe's model, of which no weight is allocated."""
    rows = recipe.training.micro_batch or recipe.training.batch_size
    dry = Dry(recipe, columns, device).step(rows)
    parts = {
        **{f"encoders.{place}": f"encoder of {name}" for place, name in enumerate(recipe.inputs)},
        "fusion": "fusion",
        **{f"heads.{place}": f"head of {name}" for place, name in enumerate(recipe.outputs)},
    }
    counts = dict.fromkeys(parts.values(), 0)
    for layer in dry.layers:
        part = next(told for start, told in parts.items() if f"{layer.name}.".startswith(f"{start}."))
        counts[part] += layer.parameters
    return {
        "parameters": dry.parameters,
        "parameters_by_part": {name: count for name, count in counts.items() if count},
        "forward_flops_per_row": dry.forward_flops // rows,
        "training_memory_bytes": {
            "weights": dry.weights,
            "gradients": dry.gradients,
            "optimizer": dry.optimizer,
            f"activations of {rows} rows (estimate)": dry.activations,
        },
        "precision": f"{dry.precision.name}: {dry.precision.reason}",
        "cores": os.cpu_count(),
    }


def show(facts: Mapping[str, Any]) -> None:
    """The facts as a table for a person."""
    console = RichConsole(highlight=False)
    columns = facts.get("columns", {})
    page = RichTable("column", "role", "type", "facts", box=None)
    for name, one in columns.items():
        rest = {key: value for key, value in one.items() if key not in ("role", "type")}
        told = "; ".join(f"{key}: {value}" for key, value in rest.items() if value is not None)
        page.add_row(*(Text(cell) for cell in (name, one.get("role") or "", one.get("type") or "", told)))
    console.print(page)
    for key, value in facts.items():
        if key != "columns" and value is not None:
            for line in lines_of(key, value):
                console.print(line, markup=False)


def lines_of(key: str, value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [f"{key}:", *(f"  {line}" for name, item in value.items() for line in lines_of(str(name), item))]
    if key.endswith("bytes") or "activations" in key or key in ("weights", "gradients", "optimizer"):
        return [f"{key}: {value / 2**20:,.1f} MiB"] if isinstance(value, int | float) else [f"{key}: {value}"]
    return [f"{key}: {value:,}" if isinstance(value, int) else f"{key}: {value}"]
