"""torchao's int8: weights in 8 bits, activations brought to 8 bits as they come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ..errors import UsageError
from .eager import write_eager
from .runtime import require, silence
from .subject import Subject

__all__ = ["quantise", "write_torchao_int8"]


def write_torchao_int8(subject: Subject, folder: Path) -> dict[str, Any]:
    """Eager PyTorch with torchao's int8 linear layers. The file holds float32: layers are quantised as it is opened."""
    if not any(type(module) is nn.Linear for module in subject.model.modules()):
        raise UsageError("there is no linear layer that torchao could quantise")
    require("torchao", "torchao", "this form")
    return write_eager(subject, folder) | {"quantise": "int8"}


def quantise(model: nn.Module) -> None:
    """Replace the weights of linear layers, in place."""
    require("torchao", "torchao", "this form")
    with silence():
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

        quantize_(model, Int8DynamicActivationInt8WeightConfig())
