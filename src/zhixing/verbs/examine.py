"""What a report shows of each output: figures, details, the worst rows, texts that were written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..calibration import Calibration
from ..columns import Column
from ..columns.column import Ragged
from ..columns.text import Text
from ..columns.vocabulary import END, PAD
from ..data.batches import Batches, ColumnBatch, stored_row
from ..data.table import Table
from ..heads import Head
from ..heads.text import TextHead
from ..model import Model, blank_encoding
from .calibrate import calibrated
from .collect import Collected, metrics_of

__all__ = ["examine"]

WORST = 24
LOOKED = 24  # tokens of the text whose attention is shown, at most
SAMPLES, PROMPT = 6, 24  # texts that a language model is shown with, and the tokens that it goes on from


def examine(
    model: Model,
    columns: Mapping[str, Column],
    tensors: Mapping[str, ColumnBatch | Ragged],
    table: Table,
    raw: Collected,
    calibrations: Mapping[str, Calibration] | None = None,
) -> dict[str, Any]:
    """Metrics and details of each output, for ``evaluation.json``; of calibrated predictions, where there are such."""
    seen = calibrated(raw, calibrations or {})
    metrics = metrics_of(model, columns, seen)
    outputs = {}
    for name in model.outputs:
        head, column = model.head(name), columns[name]
        prediction, target = seen.usable(name)
        if len(target):
            metrics[name] |= answer_metrics(head, column, seen, name)
        details = head.examine(prediction, target, column) if len(target) else {}
        if calibrations and name in calibrations and len(target):
            details["calibration"] = calibrations[name].measure(head, column, *raw.usable(name))
        if model.inputs:
            details["worst"] = worst_rows(model, columns, tensors, table, seen, name)
            details |= attention_of(model, columns, tensors, seen, name)
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


def attention_of(
    model: Model,
    columns: Mapping[str, Column],
    tensors: Mapping[str, ColumnBatch | Ragged],
    seen: Collected,
    name: str,
) -> dict[str, Any]:
    """Where a decoder looked as it wrote one text: of a row of middling length that was read as tokens."""
    head, (first, *others) = model.head(name), model.inputs
    read, written = columns[first], columns[name]
    if others or not (isinstance(head, TextHead) and isinstance(read, Text) and isinstance(written, Text)):
        return {}
    answers, stored = seen.answers[name], tensors[first]
    assert isinstance(stored, Ragged)
    rows = [place for place in range(len(seen.rows)) if 1 < len(stored.row(int(seen.rows[place]))) <= LOOKED]
    if not rows:
        return {}
    chosen = min(rows[:200], key=lambda place: abs(len(stored.row(int(seen.rows[place]))) - LOOKED // 2))
    said = answers[chosen][answers[chosen] != PAD][None, :LOOKED]
    batch = Batches({first: stored}, next(model.parameters()).device).gather(seen.rows[[chosen]])
    with torch.inference_mode():
        weights = head.decoder.looks(model.encode(batch), said.to(batch.rows.device))
    given = batch.columns[first].values[0].tolist()
    if weights is None or weights.shape[2] != len(given):
        return {}
    table = [[round(x, 4) for x in row] for row in weights[0].tolist()]
    pieces = {"read": read.tokens_of(given), "written": written.tokens_of(said[0].tolist())}
    return {"attention": {**pieces, "weights": table}}


def samples(model: Model, columns: Mapping[str, Column], name: str, target: Tensor) -> list[dict[str, str]]:
    """How a language model goes on from the beginnings of some held-out texts."""
    device = next(model.parameters()).device
    most = min(PROMPT, columns[name].spec().shape[0] // 2)
    # Blocks are taken from all over the split; of one, the tokens up to the first end of a text.
    some = torch.linspace(0, len(target) - 1, min(SAMPLES, len(target))).long()
    prompt = target[some, :most].abs().to(device)
    prompt = torch.where((prompt == END).cumsum(1) > 0, PAD, prompt)
    if not len(prompt):
        return []
    blank = blank_encoding(len(prompt), device)
    with torch.inference_mode():
        head = model.head(name)
        assert isinstance(head, TextHead)
        written = head.answer(blank, prompt=prompt)
    column = columns[name]
    texts = zip(column.restore(prompt), column.restore(written), strict=True)
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
