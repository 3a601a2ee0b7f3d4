"""What is compressed: a model with its recipe, its columns and some of its training rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..columns import Column
from ..data.batches import Batch
from ..export.answers import Answer, Output
from ..export.graph import Graph
from ..export.onnx import write_onnx
from ..layers.attention import Attention
from ..model import Model
from ..recipe import Recipe
from .runtime import Arrays

__all__ = ["Predictions", "Subject", "arrays_of"]


class Raw(Answer):
    """A head's prediction as it is."""

    outputs = (Output("", "prediction", ()),)

    def forward(self, prediction: Tensor) -> tuple[Tensor, ...]:
        return (prediction,)


class Predictions(Graph):
    """A model as a graph that gives what its heads do, before any temperature or unit.

    So a compressed model is decoded, measured and calibrated by the same code as the model that it was made of.
    """

    def __init__(self, columns: Mapping[str, Column], model: Model) -> None:
        super().__init__(columns, model)
        self.answers = nn.ModuleList(Raw() for _ in model.outputs)
        self.outputs = dict.fromkeys(model.outputs, Raw.outputs[0])


@dataclass
class Subject:
    """A model to be written in several forms.

    ``label`` is empty for the run's own model. ``rows`` are single training rows, by which static quantisation learns
    how large activations become. ``scratch`` is a folder of its own.
    """

    label: str
    recipe: Recipe
    columns: Mapping[str, Column]
    model: Model
    rows: list[Batch]
    scratch: Path
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        return sum(tensor.numel() for tensor in self.model.parameters())

    @cached_property
    def graph(self) -> Predictions:
        return Predictions(self.columns, self.model)

    @cached_property
    def onnx(self) -> Path:
        """The model as ONNX in float32, written once."""
        path = self.scratch / "model.onnx"
        write_onnx(self.graph, path, joined(self.rows[:2]))
        folded(path)
        return path

    @property
    def attends(self) -> bool:
        """Whether there is attention in it, whose products quantisers treat with care."""
        return any(isinstance(module, Attention) for module in self.model.modules())

    def feeds(self) -> list[Arrays]:
        """The calibration rows as arrays."""
        return [arrays_of(row, self.model.inputs) for row in self.rows]


def folded(path: Path) -> None:
    """Do beforehand what of a graph does not depend on its inputs.

    A recurrent network's weights come out of the exporter as pieces that are put in order at each start; quantisation
    finds them only where they stand as they are used.
    """
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    model = onnx.load(str(path))
    for node in model.graph.node:  # where in the source each came from
        del node.metadata_props[:]
    onnx.save(model, str(path))


def joined(rows: list[Batch]) -> Batch:
    """Batches as one, padded to the longest."""
    columns = {}
    for name in rows[0].columns:
        parts = [row.columns[name] for row in rows]
        first = parts[0]
        if first.mask is not None and first.values.ndim > 1 and first.mask.ndim > 1:
            pad = partial(padded, steps=max(part.values.shape[1] for part in parts))
            parts = [part.each(pad) for part in parts]
        columns[name] = type(first)(
            torch.cat([part.values for part in parts]),
            None if first.mask is None else torch.cat([part.mask for part in parts if part.mask is not None]),
        )
    return Batch(columns, torch.cat([row.rows for row in rows]))


def padded(x: Tensor, steps: int) -> Tensor:
    rest = (0, 0) * (x.ndim - 2)
    return nn.functional.pad(x, (*rest, 0, steps - x.shape[1]))


def arrays_of(batch: Batch, inputs: list[str]) -> Arrays:
    """The input columns of a batch on the CPU, by the names of a graph's inputs."""
    out = {}
    for name in inputs:
        values, mask = batch.columns[name]
        out[name] = values.numpy()
        if mask is not None and mask.ndim > 1:
            out[f"{name}_mask"] = mask.numpy()
    return out
