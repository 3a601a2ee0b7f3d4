"""PyTorch's own form of a graph: ``torch.export``, which needs torch alone to be read.

What is written holds weights as raw bytes and the graph as JSON. ``torch.export.load`` would unpickle what else is in
such a file, though with nothing allowed but tensors at first: open none from strangers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..data.batches import Batch
from .graph import Part
from .kernels import Scanned, swapped
from .onnx import dynamic, quiet, spread

__all__ = ["open_torch", "write_torch"]

SCANNED: dict[type[nn.Module], type[nn.Module]] = {nn.RNN: Scanned, nn.GRU: Scanned, nn.LSTM: Scanned}


def write_torch(part: Part, path: Path, rows: Batch, notes: Mapping[str, str]) -> None:
    """Write a part for any number of rows and any length of them; ``notes`` are put beside the graph."""
    module, example, free = swapped(part, SCANNED), spread(part.example(rows)), (dynamic(part.inputs),)
    with quiet(), torch.no_grad():
        try:
            program = torch.export.export(module, example, dynamic_shapes=free, strict=False)
        except (
            RuntimeError,
            ValueError,
        ):  # it takes len() of a tensor for a fixed number, which the slower way does not
            program = torch.export.export(module, example, dynamic_shapes=free, strict=True)
        program._example_inputs = None  # it would be pickled, and it is somebody's rows
        torch.export.save(program, str(path), extra_files=dict(notes))


def open_torch(path: Path, part: Part) -> Callable[[tuple[Tensor, ...]], list[Tensor]]:
    """A file as a function of the part's inputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.export.load(str(path)).module()

    def run(tensors: tuple[Tensor, ...]) -> list[Tensor]:
        return list(module(*tensors))

    return run
