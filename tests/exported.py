"""Runs, graphs and rows for tests of exports; and the example readers, which know nothing of this package."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contract import made, ready

from zhixing.data.batches import Batch, ColumnBatch
from zhixing.export.graph import Graph

__all__ = ["EXAMPLES", "RECIPE", "SMALL", "agree", "graph_of", "pairs", "read", "table", "variants"]

EXAMPLES = Path(__file__).parent.parent / "examples"
SMALL = {"epochs": 1, "batch_size": 16, "threads": 1}


def table(path: Path) -> Path:
    """Numbers with gaps, classes, dates, words and their history; hard cells among them."""
    random, file = np.random.default_rng(0), path / "table.jsonl"
    with file.open("w", encoding="utf-8") as out:
        for row in range(60):
            cells: dict[str, Any] = {
                "age": None if row % 9 == 4 else float(random.integers(18, 80)),
                "city": ["Paris", "Rome", None, "Ulm"][row % 4],
                "day": f"20{10 + row % 15}-{1 + row % 12:02d}-{1 + row % 28:02d}",
                "note": " ".join(map(str, random.choice(["Don't", "über", "good", "!", "bad"], 1 + row % 6))),
                "basket": [str(item) for item in random.choice(["tea", "milk", "jam"], 1 + row % 4)],
                "walk": [[float(x), None if row % 7 == 3 and step == 1 else 1.0] for step, x in
                         enumerate(random.normal(size=2 + row % 5))],
            }  # fmt: skip
            cells |= {
                "label": "yes" if row % 3 else "no",
                "price": float(np.exp(row / 20)),
                "tags": ["x", "y"][: row % 3],
            }
            out.write(json.dumps(cells, ensure_ascii=False) + "\n")
    return file


RECIPE: dict[str, Any] = {
    "inputs": {
        "age": {"type": "number"}, "city": {"type": "category"}, "day": {"type": "date"},
        "note": {"type": "text", "tokenizer": "bpe", "vocabulary": 300, "encoder": {"name": "bag", "width": 8}},
        "basket": {"type": "history", "encoder": {"name": "bag", "width": 8}},
        "walk": {"type": "series", "encoder": {"name": "gru", "width": 8}},
    },
    "outputs": {
        "label": {"type": "category"}, "tags": {"type": "tags"},
        "price": {"type": "number", "scale": "quantile", "loss": "quantile"},
    },
    "training": SMALL,
}  # fmt: skip


def pairs(path: Path, *, alone: bool) -> Path:
    file = path / "pairs.jsonl"
    with file.open("w", encoding="utf-8") as out:
        for row in range(40):
            words = " ".join(["un", "dos", "tres"][(row + step) % 3] for step in range(2 + row % 3))
            out.write(json.dumps({"to": words} if alone else {"from": words.upper(), "to": words}) + "\n")
    return file


def read(reader: str, model: Path, *inputs: Path) -> list[dict[str, Any]]:
    """What an example reader prints, in a process that cannot import this package."""
    program = (
        "import sys, runpy\n"
        "class No:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'zhixing': raise ImportError('not this package')\n"
        f"sys.meta_path.insert(0, No()); sys.path.insert(0, {str(EXAMPLES)!r}); sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(EXAMPLES / reader), str(model), *map(str, inputs)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()]


def agree(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for name, value in one.items():
            if isinstance(value, float):
                assert math.isclose(value, other[name], rel_tol=1e-4, abs_tol=1e-4), (name, value, other[name])
            else:
                assert value == other[name], name


def graph_of(kind: str, encoder: str, head: str) -> tuple[Graph, Batch]:
    model, batch = made(kind, encoder, head)
    columns, _ = ready(kind, 64 if encoder == "alexnet" else 32) if kind == "image" else ready(kind)
    return Graph(columns, model), batch


def longer(batch: Batch, more: int) -> Batch:
    """The same rows with padding behind; or, with less than 0, without their last steps."""

    def changed(column: ColumnBatch) -> ColumnBatch:
        values, mask = column
        if mask is None or mask.ndim < 2:
            return column
        if more < 0:
            return ColumnBatch(values[:, :more], mask[:, :more])
        pad = [torch.zeros(len(part), more, *part.shape[2:], dtype=part.dtype) for part in (values, mask)]
        return ColumnBatch(torch.cat([values, pad[0]], 1), torch.cat([mask, pad[1]], 1))

    return Batch({name: changed(column) for name, column in batch.columns.items()}, batch.rows)


def variants(batch: Batch) -> Iterator[Batch]:
    """Other sizes and other lengths than those that the exporter saw."""
    yield from (batch, batch.part(0, 1), batch.part(1, 3), longer(batch, 4), longer(batch.part(2, 5), 1))
    yield longer(batch, -2)
