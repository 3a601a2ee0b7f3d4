"""A run as it is served: rows to tensors, tensors to answers, explanations.

Rows are brought to tensors one request at a time, before they wait: what cannot be read is refused then, and never
shares a batch with others' rows.

Shape legend: B rows of a batch.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..calibration import Calibration
from ..columns import Column
from ..columns.column import Ragged
from ..columns.text import Text
from ..console import Console
from ..data.batches import Batch, Batches, ColumnBatch
from ..data.source_cells import from_mapping
from ..data.store import Encoded, tensors_of
from ..data.table import Table
from ..errors import DataError, UsageError, ZhixingError
from ..explain import METHODS, Plan, explain
from ..explain.output import as_json
from ..heads.text import TextHead
from ..model import Model
from ..recipe import Recipe
from ..run import finite
from ..verbs.chat import Chat
from ..verbs.collect import EXACT, look
from ..verbs.generate import Writer
from ..verbs.predict import too_long
from .fields import Fields, RowError, describe
from .settings import Limits

__all__ = ["Read", "Sealed", "Served"]

BESIDE = "probability_"
PROBED = ("grad_cam", "attention_rollout")  # which read a layer that not every model has
logger = logging.getLogger("zhixing.serve")


class Sealed(Table):
    """A table whose cells name no files, whatever stands in them."""

    def locate(self, cell: str) -> Path:
        raise DataError("paths and addresses are not opened", mend="Send the file itself.")


@dataclass
class Read:
    """One row that was read: its tensors by column, each of a single row, and its cells."""

    tensors: dict[str, ColumnBatch | Ragged]
    cells: dict[str, Any] = field(repr=False, default_factory=dict)

    def steps(self, name: str) -> int:
        """Steps or tokens of one column."""
        return len(self.tensors[name].values)


def talks(writer: Writer) -> bool:
    try:
        Chat(writer)
    except UsageError:
        return False
    return True


class Served:
    """A run under its name."""

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        columns: Mapping[str, Column],
        model: Model,
        calibrations: Mapping[str, Calibration],
        device: torch.device,
        limits: Limits,
    ) -> None:
        self.name, self.recipe, self.columns, self.model = name, recipe, columns, model
        self.calibrations, self.device = calibrations, device
        # A model in int8 that scales a batch as a whole would answer a row by what else is in it.
        self.alone: bool = getattr(model, "depends_on_batch", False)
        self.asked = {one: columns[one] for one in (recipe.inputs or recipe.outputs)}
        for column in self.asked.values():
            column.bound(pixels=limits.pixels, seconds=limits.seconds)
        self.fields = Fields(self.asked, limits.field)
        texts = []
        for one in model.outputs:
            if isinstance(head := model.head(one), TextHead):
                head.most = min(head.most, limits.tokens)
                texts.append(one)
        reads_text = len(self.asked) == 1 and isinstance(next(iter(self.asked.values())), Text)
        self.generates = len(texts) == 1 and reads_text
        self.first_writer = Writer(recipe, columns, model, device) if self.generates else None
        self.chats = self.first_writer is not None and talks(self.first_writer)

    def writer(self) -> Writer:
        """A writer for one text: its own counts, over weights that are laid out once."""
        assert self.first_writer is not None
        self.first_writer.ready(1)
        return copy.copy(self.first_writer)

    def describe(self) -> dict[str, Any]:
        """What ``GET /v1/models`` says of it."""
        return {
            "id": self.name,
            "object": "model",
            "created": 0,
            "owned_by": "zhixing",
            "inputs": self.fields.describe(),
            "outputs": describe({name: self.columns[name] for name in self.model.outputs}),
            "generates": self.generates,
            "chats": self.chats,
            "explains": self.methods,
        }

    @cached_property
    def methods(self) -> list[str]:
        """Names of the ways in which its answers can be explained, all outputs alike."""
        return [name for name in METHODS if name not in PROBED or self.explains(name)] if self.model.inputs else []

    def explains(self, method: str) -> bool:
        """Whether a method works on the example that the columns give of themselves."""
        (row,) = self.read([self.fields.example()])
        try:
            return isinstance(row, Read) and bool(self.explain(row, method))
        except ZhixingError:
            return False

    # From JSON to tensors, in a thread that decodes ------------------------------------------------------------------

    def read(self, rows: Sequence[Any]) -> list[Read | RowError]:
        """Each row's tensors, or what is wrong with it."""
        out: list[Read | RowError] = []
        for row in rows:
            try:
                out.append(Read({}, self.fields.read(row)))
            except RowError as error:
                out.append(error)
        good = [place for place, one in enumerate(out) if isinstance(one, Read)]
        try:
            found = self.encode([out[place].cells for place in good]) if good else []  # type: ignore[union-attr]
        except Exception:  # a column that cannot take one of them: which one shows when each stands alone
            found = [self.encode_alone(out[place].cells) for place in good]  # type: ignore[union-attr]
        for place, one in zip(good, found, strict=True):
            out[place] = one
        return out

    def encode_alone(self, cells: dict[str, Any]) -> Read | RowError:
        try:
            return self.encode([cells])[0]
        except ZhixingError as error:
            return RowError(str(error))
        except Exception:
            logger.exception("a row could not be read")
            return RowError("the row cannot be read")

    def table(self, rows: Sequence[dict[str, Any]]) -> Sealed:
        cells = {name: [row[name] for row in rows] for name in self.asked}
        return Sealed(from_mapping(cells, place="rows"), name="rows")

    def encode(self, rows: Sequence[dict[str, Any]]) -> list[Read | RowError]:
        table, faults, encoded = self.table(rows), dict[int, RowError](), dict[str, Encoded]()
        for name, column in self.asked.items():
            done = column.tensorize(table[name].combine_chunks(), table.locate)
            blank = np.zeros(len(rows), np.uint64)
            encoded[name] = Encoded(tensors_of(done.values, done.lengths), done.present, blank, done.findings)
            for finding in done.findings:
                if finding.kind == "broken" or (finding.kind == "unseen" and column.role == "output"):
                    faults.setdefault(finding.index, RowError(finding.reason, name))
        if not self.model.inputs:
            for problem in too_long(self.columns, encoded, table):
                faults.setdefault(problem.row, RowError(problem.reason, problem.column))
        return [
            faults.get(row) or Read({name: one_row(one.batch, row) for name, one in encoded.items()}, cells)
            for row, cells in enumerate(rows)
        ]

    # From tensors to answers, in the thread of the model -------------------------------------------------------------

    def batch(self, rows: Sequence[Read]) -> Batch:
        columns = {name: joined([row.tensors[name] for row in rows]) for name in self.asked}
        return Batches(columns, self.device).gather(np.arange(len(rows), dtype=np.int64))

    @torch.inference_mode()
    def answer(self, rows: Sequence[Read], *, probabilities: bool) -> list[dict[str, Any]]:
        """The answers of a batch, a mapping for each row."""
        batch = self.batch(rows)
        encoding = self.model.encode(batch)
        out: list[dict[str, Any]] = [{"answer": {}} for _ in rows]
        for name in self.model.outputs:
            found = look(self.model, name, encoding, batch, EXACT, (False, True))["answer"].cpu()
            if (calibration := self.calibrations.get(name)) is not None:
                found = calibration.apply(found)
            cells = self.model.head(name).decode(found, self.columns[name], probabilities=probabilities)
            for part, values in cells.items():
                for row, value in zip(out, values, strict=True):
                    put(row, name, part, finite(value), probabilities)
        return out

    def explain(self, row: Read, method: str) -> dict[str, Any]:
        """What ``explain`` says of one row, by output.

        Raises:
            ZhixingError: there is nothing that the method could work on.
        """
        out = {}
        for name in self.model.outputs:
            found = explain(
                self.recipe, self.columns, self.model, self.table([row.cells]), plan=Plan((method,), output=name),
                calibrations=self.calibrations, device=self.device, console=Console(quiet=True),
            )  # fmt: skip
            facts = {key: value for key, value in found.facts.items() if key not in ("classes", "source", "seed")}
            out[name] = as_json(facts)
        return out


def put(row: dict[str, Any], output: str, part: str, value: Any, probabilities: bool) -> None:
    """One decoded cell to its place in an answer: the answer, a class's probability, or what stands beside it."""
    if not part:
        row["answer"][output] = value
    elif part.startswith(BESIDE):
        if probabilities:
            row.setdefault("probabilities", {}).setdefault(output, {})[part.removeprefix(BESIDE)] = value
    elif part != BESIDE[:-1]:
        row.setdefault("details", {}).setdefault(output, {})[part] = value


def one_row(column: ColumnBatch | Ragged, row: int) -> ColumnBatch | Ragged:
    if isinstance(column, Ragged):
        values = column.row(row)
        return Ragged(values, np.array([0, len(values)], np.int64))
    return column.each(lambda x: x[row : row + 1])


def joined(parts: Sequence[ColumnBatch | Ragged]) -> ColumnBatch | Ragged:
    """Rows of several requests as one column."""
    values = torch.cat([part.values for part in parts])
    if not isinstance(parts[0], Ragged):
        return ColumnBatch(values)
    return Ragged(values, np.cumsum([0, *(len(part.values) for part in parts)]))
