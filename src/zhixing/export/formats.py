"""The formats that write a model as graphs of tensors, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..data.batches import Batch
from .executorch import open_executorch, require_executorch, write_executorch
from .graph import Part
from .litert import open_litert, require_litert, write_litert
from .onnx import open_onnx, require_onnx, write_onnx
from .openvino import open_openvino, require_openvino, write_openvino
from .torch import open_torch, write_torch

__all__ = ["FORMATS", "Format", "Run"]

Run = Callable[[tuple[Tensor, ...]], list[Tensor]]


@dataclass(frozen=True)
class Format:
    """How a part is written and opened again; ``require`` raises MissingExtraError where a library is not installed."""

    suffix: str
    require: Callable[[], None]
    write: Callable[[Part, Path, Batch, Mapping[str, str]], None]
    open: Callable[[Path, Part], Run]


FORMATS: dict[str, Format] = {
    "executorch": Format(".pte", require_executorch, write_executorch, open_executorch),
    "litert": Format(".tflite", require_litert, write_litert, open_litert),
    "onnx": Format(".onnx", require_onnx, write_onnx, open_onnx),
    "openvino": Format(".xml", require_openvino, write_openvino, open_openvino),
    "torch": Format(".pt2", lambda: None, write_torch, open_torch),
}
