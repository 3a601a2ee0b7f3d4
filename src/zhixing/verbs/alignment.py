"""Rows that CTC cannot learn from: texts with more characters than the input has steps to say them in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..columns import Column
from ..columns.column import Ragged
from ..columns.vocabulary import END
from ..data.prepare import Prepared
from ..data.table import Problem, Table
from ..heads.decoders import CTC
from ..heads.text import TextHead
from ..model import Model
from ..models.encoding import Encoder

__all__ = ["alignable"]


def alignable(prepared: Prepared, table: Table, columns: Mapping[str, Column], model: Model) -> Prepared:
    """The same without the rows whose text is too long for its input; each is told of as a problem."""
    for name in model.outputs:
        head = model.head(name)
        if not (isinstance(head, TextHead) and isinstance(head.decoder, CTC) and len(model.inputs) == 1):
            continue
        source, target = prepared.columns[model.inputs[0]], prepared.columns[name]
        encoder = model.encoders[0]
        assert isinstance(encoder, Encoder)
        if not (isinstance(source, Ragged) and isinstance(target, Ragged)):
            continue
        steps = -(-columns[model.inputs[0]].steps_of(np.diff(source.offsets)) // encoder.shrink)
        need = steps_to_say(target)
        long = np.flatnonzero((need > steps) & (steps > 0))
        reason = "the text takes {} steps to say (a repeated character takes two), and the input has {}"
        told = [Problem(int(row), name, table.where(int(row)), reason.format(need[row], steps[row])) for row in long]
        split = {part: rows[~np.isin(rows, long)] for part, rows in prepared.split.items()}
        prepared = replace(prepared, split=split, problems=[*prepared.problems, *told])
    return prepared


def steps_to_say(texts: Ragged) -> NDArray[np.int64]:
    """The fewest steps [N] in which CTC can say each text: one a token, and one between two equal ones."""
    values = texts.values.numpy()
    lengths = np.diff(texts.offsets)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    spoken = values != END
    count = np.bincount(owner[spoken], minlength=len(lengths))
    equal = (values[1:] == values[:-1]) & (owner[1:] == owner[:-1]) & spoken[1:]
    return np.asarray(count + np.bincount(owner[1:][equal], minlength=len(lengths)))
