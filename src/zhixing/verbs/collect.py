"""Run a model over many rows, and measure what it says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from ..columns import Column
from ..data.batches import Batch, Batches, Order
from ..heads.text import TextHead
from ..model import Model
from ..models.encoding import Encoding
from ..training.loop import Validation, out_of_memory
from ..training.precision import Precision

__all__ = ["EXACT", "Collected", "collect", "headline", "metrics_of", "validation"]

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


def headline(metrics: Mapping[str, Mapping[str, float]]) -> str:
    """The figures of each output in one line."""
    parts = []
    for name, figures in metrics.items():
        some = [f"{key} {value:.4f}" for key, value in list(figures.items())[:3]]
        parts.append(f"{name}: {', '.join(some)}")
    return "; ".join(parts)
