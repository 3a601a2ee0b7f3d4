"""Outputs that stand along the steps of an input, and rows in which they do not fit: texts with more characters than
there are steps to say them in (CTC), labels that are more or fewer than the tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..columns import Column
from ..columns.column import Ragged
from ..columns.vocabulary import END
from ..data.batches import ColumnBatch
from ..data.prepare import Prepared, stop_if_too_many
from ..data.table import Problem, Table
from ..errors import DataError
from ..heads.decoders import CTC
from ..heads.labels import LabelsHead
from ..heads.text import TextHead
from ..model import Model

__all__ = ["alignable", "misfits"]


def alignable(prepared: Prepared, table: Table, columns: Mapping[str, Column], model: Model, on_error: str) -> Prepared:
    """The same without the rows whose output does not fit the steps of their input; each is told of as a problem.

    Raises:
        DataError: they are too many for ``on_error``, or none is left to learn from.
    """
    told = misfits(prepared.columns, table, columns, model)
    if not told:
        return prepared
    lost = [problem.row for problem in told]
    split = {part: rows[~np.isin(rows, lost)] for part, rows in prepared.split.items()}
    prepared = replace(prepared, split=split, problems=[*prepared.problems, *told])
    stop_if_too_many(table, [one for one in prepared.problems if one.fatal], prepared.broken, on_error)
    if not len(split["train"]):
        raise DataError(f"no usable row is left to learn from; the first: {told[0]}", place=table.name)
    return prepared


def misfits(
    tensors: Mapping[str, ColumnBatch | Ragged], table: Table, columns: Mapping[str, Column], model: Model
) -> list[Problem]:
    """What is wrong with each row whose output does not fit the steps of its input."""
    source = tensors[model.inputs[0]] if len(model.inputs) == 1 else None
    if not isinstance(source, Ragged):
        return []
    column, shrink = columns[model.inputs[0]], int(getattr(model.encoders[0], "shrink", 1))
    steps = -(-column.steps_of(np.diff(source.offsets)) // shrink)
    problems: list[Problem] = []
    for name in model.outputs:
        head, target, reasons = model.head(name), tensors[name], dict[int, str]()
        if isinstance(target, Ragged) and isinstance(head, TextHead) and isinstance(head.decoder, CTC):
            reasons = unsayable(target, steps)
        elif isinstance(target, Ragged) and isinstance(head, LabelsHead):
            reasons = unpaired(np.diff(target.offsets), columns[name].spec().shape[0], steps, column.spec().shape[0])
        problems += [Problem(row, name, table.where(row), reason) for row, reason in reasons.items()]
    return problems


def unsayable(texts: Ragged, steps: NDArray[np.int64]) -> dict[int, str]:
    """Rows whose text CTC cannot say in their steps [N], and why."""
    need = steps_to_say(texts)
    reason = "the text takes {} steps to say (a repeated character takes two), and the input has {}"
    long = np.flatnonzero((need > steps) & (steps > 0)).tolist()
    return {row: reason.format(need[row], steps[row]) for row in long}


def unpaired(labels: NDArray[np.int64], most_labels: int, steps: NDArray[np.int64], most_steps: int) -> dict[int, str]:
    """Rows with more or fewer labels [N] than tokens [N], and why; not where either was cut to the most there may be.

    >>> unpaired(np.array([2, 3, 0, 5]), 9, np.array([2, 2, 7, 4]), 4)
    {1: '3 labels beside 2 tokens'}
    """
    cut = ((labels > steps) & (steps == most_steps)) | ((labels < steps) & (labels == most_labels))
    wrong = np.flatnonzero((labels > 0) & (labels != steps) & ~cut).tolist()
    return {row: f"{labels[row]} labels beside {steps[row]} tokens" for row in wrong}


def steps_to_say(texts: Ragged) -> NDArray[np.int64]:
    """The fewest steps [N] in which CTC can say each text: one a token, and one between two equal ones."""
    values = texts.values.numpy()
    lengths = np.diff(texts.offsets)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    spoken = values != END
    count = np.bincount(owner[spoken], minlength=len(lengths))
    equal = (values[1:] == values[:-1]) & (owner[1:] == owner[:-1]) & spoken[1:]
    return np.asarray(count + np.bincount(owner[1:][equal], minlength=len(lengths)))
