"""What the data looked like, for the report: ``data.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..columns import Column
from ..columns.category import Category
from ..columns.number import Number
from ..data.batches import stored_row
from ..data.prepare import Prepared
from ..data.table import Table

__all__ = ["data_facts", "problem_facts"]

EXAMPLES = 12
LISTED = 1000


def data_facts(
    table: Table, source: str, columns: Mapping[str, Column], prepared: Prepared, reasons: Mapping[str, str]
) -> dict[str, Any]:
    """Sizes, types with their reasons, counts, examples and problems."""
    about: dict[str, Any] = {}
    train = prepared.split["train"]
    some = train[np.linspace(0, len(train) - 1, min(EXAMPLES, len(train))).astype(int)]
    for name, column in columns.items():
        entry: dict[str, Any] = {
            "role": column.role,
            "type": column.type,
            "reason": reasons.get(name, "given"),
            "summary": column.summary(),
        }
        values = prepared.columns[name].values
        if isinstance(column, Category) and column.role == "output":
            entry["counts"] = {part: class_counts(column, values, rows) for part, rows in prepared.split.items()}
        elif isinstance(column, Number) and column.length == 1:
            whole = torch.from_numpy(column.unscale(values[torch.from_numpy(train)])[:, 0])
            counts, edges = torch.histogram(whole, bins=30)
            entry["histogram"] = {"edges": edges.tolist(), "rows": counts.long().tolist()}
        if column.role == "input":
            entry["examples"] = [
                column.show(stored_row(prepared.columns[name], int(row))) | labels(columns, prepared, int(row))
                for row in some
            ]
        about[name] = entry
    for name in table.columns:
        if name not in columns:
            about[name] = {"role": "unused", "type": str(table[name].type), "reason": reasons.get(name, "as asked")}
    return {
        "source": source,
        "rows": prepared.rows,
        "splits": {part: len(rows) for part, rows in prepared.split.items()},
        "problems": problem_facts(prepared),
        "columns": about,
    }


def problem_facts(prepared: Prepared) -> dict[str, Any]:
    """Counts of the problems and the first of them; ``problems.jsonl`` in the run has all."""
    fatal = sum(problem.fatal for problem in prepared.problems)
    listed = [vars(problem) for problem in prepared.problems[:LISTED]]
    return {"fatal": fatal, "kept": len(prepared.problems) - fatal, "listed": listed}


def class_counts(column: Category, values: torch.Tensor, rows: np.ndarray[Any, Any]) -> dict[str, int]:
    counts = torch.bincount(values[torch.from_numpy(rows)], minlength=len(column.classes))
    return dict(zip(column.classes, counts.tolist(), strict=False))


def labels(columns: Mapping[str, Column], prepared: Prepared, row: int) -> dict[str, str]:
    """The row's outputs in words."""
    shown = [
        column.show(stored_row(prepared.columns[name], row)).get("text", "")
        for name, column in columns.items()
        if column.role == "output"
    ]
    return {"label": ", ".join(shown)}
