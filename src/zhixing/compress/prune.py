"""Structured pruning: whole channels, units and heads are cut that the loss depends on least.

What is left is the model of a smaller recipe, which starts from the larger one's weights.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..columns import Column
from ..data.batches import Batch
from ..errors import UsageError
from ..fusion import Concat
from ..model import Model
from ..recipe import Recipe
from ..run import build_model
from .smaller import Cuts, Scores, dense, slim

__all__ = ["Plan", "plan", "prune", "slim_recipe"]


def worth(model: Model, rows: Iterable[Batch]) -> dict[str, Tensor]:
    """How much the loss depends on each number of each parameter: the mean over batches of (weight times slope)
    squared, which is to first order what the loss would change by without it (Molchanov et al., "Importance estimation
    for neural network pruning", 2019, arXiv:1906.10771)."""
    twin = copy.deepcopy(model).requires_grad_(True).eval()
    for module in twin.modules():
        if isinstance(module, nn.RNNBase):  # the fused kernels of some devices know no slopes in evaluation
            module.train()
            module.dropout = 0.0
    sums = {name: torch.zeros_like(parameter) for name, parameter in twin.named_parameters()}
    count = 0
    for batch in rows:
        twin.zero_grad()
        twin.loss(twin.weigh(batch)).backward()  # type: ignore[no-untyped-call]
        for name, parameter in twin.named_parameters():
            if parameter.grad is not None:
                sums[name] += (parameter.detach() * parameter.grad).square()
        count += 1
    return {name: total / max(1, count) for name, total in sums.items()}


@dataclass
class Plan:
    """What is left of a model: settings that change in its recipe, by input and of the fusion; and, by the names of its
    parameters, the places that are kept along each axis that is cut."""

    encoders: dict[str, dict[str, Any]] = field(default_factory=dict)
    fusion: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, dict[int, Tensor]] = field(default_factory=dict)

    def take(self, prefix: str, cuts: Cuts) -> None:
        self.kept |= {f"{prefix}.{name}": axes for name, axes in cuts.kept.items()}


def plan(model: Model, rows: Iterable[Batch], keep: float) -> Plan:
    """What to keep of a model, the share ``keep`` of each layer's units.

    Raises:
        UsageError: nothing of it can be cut; why not, of its first input.
    """
    values, out, reasons = worth(model, rows), Plan(), list[UsageError]()
    summaries: list[tuple[int, Tensor | None]] = []
    for place, (name, encoder) in enumerate(zip(model.inputs, model.encoders, strict=True)):
        pooled = None
        try:
            cuts = slim(encoder, under(values, f"encoders.{place}"), keep, whole=not joined_plainly(model))  # type: ignore[arg-type]
            out.encoders[name], pooled = cuts.settings, cuts.pooled
            out.take(f"encoders.{place}", cuts)
        except UsageError as error:  # it stays as it is
            reasons.append(error)
        width: Any = encoder.width
        summaries.append((width, pooled))
    read = side_by_side(summaries)
    if len(model.fusion.layers):
        cuts = Cuts({})
        whole = not heads_are_linear(model)
        widths, read = dense(model.fusion.layers, "layers", under(values, "fusion"), keep, whole, read, cuts)
        out.fusion = {"widths": widths}
        out.take("fusion", cuts)
    if read is not None:
        out.kept |= {f"heads.{place}.linear.weight": {1: read} for place in range(len(model.heads))}
    if not out.kept:
        raise reasons[0] if reasons else UsageError("there is nothing in it that could be cut")
    return out


def under(values: Mapping[str, Tensor], prefix: str) -> Scores:
    return lambda name: values[f"{prefix}.{name}"]


def heads_are_linear(model: Model) -> bool:
    """Whether all that follows the fusion are linear layers, which can be cut along with what they read."""
    return model.fusion.tokens is None and all(
        isinstance(getattr(head, "linear", None), nn.Linear) for head in model.heads
    )


def joined_plainly(model: Model) -> bool:
    """Whether what reads the encoders' summaries can be cut along with them."""
    if len(model.fusion.layers):
        return model.fusion.tokens is None and (isinstance(model.fusion, Concat) or len(model.inputs) == 1)
    return len(model.inputs) == 1 and heads_are_linear(model)


def side_by_side(summaries: Sequence[tuple[int, Tensor | None]]) -> Tensor | None:
    """The units that are left of all summaries, side by side; None where all are."""
    if all(pooled is None for _, pooled in summaries):
        return None
    parts, start = [], 0
    for width, pooled in summaries:
        parts.append(start + (torch.arange(width) if pooled is None else pooled))
        start += width
    return torch.cat(parts)


def slim_recipe(recipe: Recipe, plan: Plan) -> Recipe:
    """The recipe of what is left."""
    plain = recipe.plain()
    for name, settings in plan.encoders.items():
        plain["inputs"][name]["encoder"] |= settings
    plain["fusion"] |= plan.fusion
    return Recipe(plain)


def prune(model: Model, recipe: Recipe, columns: Mapping[str, Column], plan: Plan) -> Model:
    """The model of the smaller ``recipe``, with what is kept of the larger one's weights."""
    small = build_model(recipe, columns)
    tensors = {}
    for name, tensor in model.state_dict().items():
        for axis, places in plan.kept.get(name, {}).items():
            tensor = tensor.index_select(axis, places)
        tensors[name] = tensor
    small.load_state_dict(tensors)
    return small
