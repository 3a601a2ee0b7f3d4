"""A model as one function of plain tensors: from what is stored of each row to what a person is told.

Shape legend: B rows, T steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..calibration import Calibration
from ..columns import Column
from ..data.batches import Batch, ColumnBatch
from ..model import Model
from ..models.encoding import Encoding
from .answers import Answer, Output, answer_of, largest

__all__ = ["Graph", "Part", "Port"]


class Port(NamedTuple):
    """One input of a graph: its name, the column that it is of, its type, and its shape: ``batch``, the name of an axis
    of steps, or a size. ``most``: how many steps a row can have, where the column says it."""

    name: str
    column: str
    dtype: torch.dtype
    shape: tuple[int | str, ...]
    most: int | None = None


class Part(nn.Module):
    """Base of what is written as one graph: tensors of ``inputs`` in, tensors of ``outputs`` out, each in order."""

    inputs: list[Port]
    outputs: dict[str, Output]

    def example(self, batch: Batch) -> tuple[Tensor, ...]:
        """What forward takes, of a batch."""
        raise AssertionError(f"{type(self).__name__} has no example")

    def feeds(self, batch: Batch) -> Iterator[tuple[Tensor, ...]]:
        """What it takes, one call after another, when it is used on a batch."""
        yield self.example(batch)

    def differences(self, wanted: Sequence[Tensor], got: Sequence[Tensor]) -> dict[str, float]:
        """How far another runtime's outputs are from these at most, by name."""
        return {
            name: largest(one.double() - other.double())
            for name, one, other in zip(self.outputs, wanted, got, strict=True)
        }


class Reading(Part):
    """Base of the parts that read the input columns: their stored values (pixels of 0 … 255 as uint8, standardised
    numbers, codes of classes, ids of tokens, samples of sound as int16), and behind those of unequal length a mask
    [B, T], True where a step is real."""

    def __init__(self, columns: Mapping[str, Column], model: Model) -> None:
        super().__init__()
        self.model = model.eval()
        self.masked = {name: columns[name].blank(1)[1] is not None for name in model.inputs}
        self.inputs = [port for name in model.inputs for port in ports(name, columns[name])]
        self.outputs = {}

    def example(self, batch: Batch) -> tuple[Tensor, ...]:
        tensors = []
        for name, masked in self.masked.items():
            values, mask = batch.columns[name]
            tensors.append(values)
            if masked:
                tensors.append(torch.ones(values.shape[:2], dtype=torch.bool) if mask is None else mask)
        return tuple(tensors)

    def encode(self, tensors: Sequence[Tensor]) -> Encoding:
        rest = iter(tensors)
        given = {}
        for name, masked in self.masked.items():
            values = next(rest)
            given[name] = ColumnBatch(values, next(rest) if masked else None)
        return self.model.encode(Batch(given, tensors[0]))


class Graph(Reading):
    """Columns' statistics, encoders, fusion, heads, temperature and units in one module.

    ``outputs`` says what it gives, by name: probabilities, or numbers in their own units. ``names`` are the model's
    outputs that are asked for; None: all.

    Raises:
        UsageError: an output is not said in one pass, as a text is not that is written token by token.
    """

    def __init__(
        self,
        columns: Mapping[str, Column],
        model: Model,
        calibrations: Mapping[str, Calibration] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(columns, model)
        self.names = list(model.outputs if names is None else names)
        known = calibrations or {}
        self.answers = nn.ModuleList(
            answer_of(name, model.head(name), columns[name], known.get(name)) for name in self.names
        )
        for name, answer in zip(self.names, self.answers, strict=True):
            assert isinstance(answer, Answer)
            for one in answer.outputs:
                called = f"{name}_{one.suffix}" if one.suffix else name
                self.outputs[called] = one._replace(facts={"column": name, **one.facts})
        self.eval()

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """A tensor for each of ``outputs``, in their order."""
        encoding = self.encode(tensors)
        out: list[Tensor] = []
        for name, answer in zip(self.names, self.answers, strict=True):
            out += answer(self.model.head(name)(encoding))
        return tuple(out)

    def differences(self, wanted: Sequence[Tensor], got: Sequence[Tensor]) -> dict[str, float]:
        found: list[float] = []
        for answer in self.answers:
            assert isinstance(answer, Answer)
            own = slice(len(found), len(found) + len(answer.outputs))
            found += answer.differences(wanted[own], got[own])
        return dict(zip(self.outputs, found, strict=True))


def ports(name: str, column: Column) -> list[Port]:
    values, mask = column.blank(1)
    if mask is None:
        return [Port(name, name, values.dtype, ("batch", *values.shape[1:]))]
    steps = f"{name}_steps"
    return [
        Port(name, name, values.dtype, ("batch", steps, *values.shape[2:]), values.shape[1]),
        Port(f"{name}_mask", name, mask.dtype, ("batch", steps), values.shape[1]),
    ]
