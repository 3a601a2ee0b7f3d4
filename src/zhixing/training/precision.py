"""Which number format to compute in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

__all__ = ["Precision", "choose_precision", "count_multiplications", "has_fast_bf16"]

# Below this many multiplications a batch, the casts cost more than the faster products give back
# (measured on two cores with AVX-512 bf16; see benchmarks/precision.py).
WORTHWHILE = {"cpu": 30e6, "cuda": 300e6}


@dataclass(frozen=True)
class Precision:
    """A number format for the forward pass, and why it was chosen. Weights and their sums stay in float32."""

    name: str
    reason: str

    @property
    def dtype(self) -> torch.dtype:
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.name]

    def cast(self, device: torch.device) -> contextlib.AbstractContextManager[None]:
        """The context in which the forward pass runs."""
        if self.name == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=self.dtype)


def has_fast_bf16(device: torch.device) -> bool:
    """Whether this hardware multiplies bf16 matrices faster than fp32 ones."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def choose_precision(asked: str, device: torch.device, multiplications: float) -> Precision:
    """What was asked for, or what this hardware does fast for a batch of this many multiplications.

    The choice depends on the hardware's kind and the work's size, never on a measurement, so that the same machine
    always chooses the same.
    """
    if asked != "auto":
        return Precision(asked, "asked for")
    least = WORTHWHILE.get(device.type, float("inf"))
    if multiplications < least:
        return Precision("fp32", f"{multiplications:.2g} multiplications a batch are too few for casts to pay")
    if has_fast_bf16(device):
        return Precision("bf16", "this hardware multiplies bf16 matrices faster")
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0):
        return Precision("fp16", "this GPU has fast fp16 and no fast bf16")
    return Precision("fp32", "this hardware has no faster format")


def count_multiplications(model: nn.Module, forward: Callable[[], object]) -> int:
    """Multiplications in the linear, convolution and LSTM layers of ``model`` during ``forward()``."""
    total = 0

    def count(module: nn.Module, inputs: object, output: Any) -> None:
        nonlocal total
        if isinstance(module, nn.LSTM):  # each step goes through all matrices
            steps = output[0].data.shape[:-1].numel()  # packed sequences have their steps in one row
            total += steps * sum(weight.numel() for weight in module.parameters() if weight.dim() == 2)
        else:
            assert isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
            total += output.numel() * (module.weight.numel() // module.weight.shape[0])

    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.LSTM)
    handles = [module.register_forward_hook(count) for module in model.modules() if isinstance(module, kinds)]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            forward()
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return total
