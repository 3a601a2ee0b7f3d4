"""What a study is to make better: a metric of the validation rows, or what the model costs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from ..data.batches import Batches
from ..errors import TrainingError, UsageError, did_you_mean
from ..model import Model

__all__ = ["COSTS", "Objective", "objectives_of", "oriented"]

# Metrics of which less is better; of a head's own goal, the head says it.
LESS = frozenset({
    "loss", "log_loss", "ece", "rmse", "mae", "median_ae", "mase", "pinball_loss", "perplexity", "bits_per_byte", "cer",
    "wer", "hamming_loss",
})  # fmt: skip


def parameters(model: Model, batches: Batches, rows: Any) -> float:
    """Trainable numbers."""
    return float(sum(p.numel() for p in model.parameters() if p.requires_grad))


def latency(model: Model, batches: Batches, rows: Any) -> float:
    """Milliseconds for the prediction of one row: the median of 30, after 5 that do not count."""
    batch = batches.gather(rows[:1])
    model.eval()
    spans = []
    with torch.inference_mode():
        for _ in range(35):
            start = time.perf_counter()
            model(batch)
            if batches.device.type == "cuda":
                torch.cuda.synchronize(batches.device)
            spans.append(time.perf_counter() - start)
    return 1000 * median(spans[5:])


COSTS: dict[str, Callable[[Model, Batches, Any], float]] = {"latency": latency, "parameters": parameters}


@dataclass(frozen=True)
class Objective:
    """One figure and its better side. ``output`` is the column that a metric is of; none for the loss and for costs."""

    name: str
    higher: bool
    output: str | None = None

    @property
    def label(self) -> str:
        return self.name if self.output is None else f"{self.output}.{self.name}"

    def read(self, figures: Mapping[str, Any]) -> float:
        """The figure of one rung: ``{"loss", "metrics": {output: {…}}, "costs": {…}}``.

        Raises:
            TrainingError: it is not a number, or could not be measured.
        """
        if self.output is not None:
            found = figures["metrics"].get(self.output, {}).get(self.name)
        else:
            found = figures["loss"] if self.name == "loss" else figures["costs"].get(self.name)
        if found is None or not math.isfinite(found):
            raise TrainingError(
                f"{self.label} is not a number", mend="Lower the learning rate, or take another metric."
            )
        return float(found)


def objectives_of(asked: Sequence[str], model: Model, metrics: Mapping[str, Mapping[str, float]]) -> list[Objective]:
    """The objectives that were asked for, ``accuracy``, ``label.f1:max``, ``latency``; of none, the model's own goal.

    ``metrics`` are those that the model's heads measure, by output.

    Raises:
        UsageError: there is no such figure, or it is named twice.
    """
    found = [objective_of(text, model, metrics) for text in asked] or [default(model)]
    if len({one.label for one in found}) < len(found):
        raise UsageError("an objective is named twice", place="--objective")
    return found


def default(model: Model) -> Objective:
    if len(model.outputs) > 1:
        return Objective("loss", False)
    head = model.head(model.outputs[0])
    return Objective(head.goal, head.higher, model.outputs[0])


def objective_of(text: str, model: Model, metrics: Mapping[str, Mapping[str, float]]) -> Objective:
    word, _, side = text.partition(":")
    if side not in ("", "max", "min"):
        raise UsageError(f"{side!r} is not a side", place="--objective", mend="Write NAME, NAME:max or NAME:min.")
    known = {f"{output}.{name}": (output, name) for output, figures in metrics.items() for name in figures}
    fitting = [key for key, (output, name) in known.items() if word in (key, name)]
    if word in COSTS or word == "loss":
        return Objective(word, side == "max")
    if not fitting:
        names = {name for _, name in known.values()} | set(COSTS) | {"loss"}
        raise UsageError(f"there is no figure {word!r}", place="--objective", mend=did_you_mean(word, names))
    if len(fitting) > 1:
        raise UsageError(
            f"{word!r} is measured of several outputs", place="--objective", mend=f"Name one: {', '.join(fitting)}."
        )
    output, name = known[fitting[0]]
    head = model.head(output)
    higher = head.higher if name == head.goal else name not in LESS
    return Objective(name, side == "max" if side else higher, output)


def oriented(objectives: Sequence[Objective], values: Sequence[float], loss: float) -> tuple[float, ...]:
    """Values of which more is better. The loss, at most a thousandth, tells apart trials whose first value is equal."""
    out = [value if one.higher else -value for one, value in zip(objectives, values, strict=True)]
    return (out[0] - 1e-3 * loss / (1 + abs(loss)), *out[1:])
