"""Linear layers whose weights lie as the processor reads them fastest, for use without gradients.

A product with a few rows spends its time on reading weights. oneDNN reads them in blocks, and brings a plain matrix
into that form at every call; here it is done once. The answers are the same but for the order of sums.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

__all__ = ["PackedLinear", "packed", "packs"]

ROWS = 64  # that the layout is chosen for; measured, one for a single row is no faster for it and slower for more

Module = TypeVar("Module", bound=nn.Module)


def packs(weight: Tensor) -> bool:
    """Whether products with this weight gain from another layout: those of oneDNN, on a processor that it knows."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    known = hasattr(torch.ops.mkldnn, "_linear_pointwise") and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    if weight.dtype == torch.bfloat16:
        return known and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return known and weight.dtype == torch.float32


class PackedLinear(nn.Module):
    """``x @ weight.T + bias``, for a weight [out, in] that :func:`packs`; it keeps a copy of it.

    Shape: [..., in] to [..., out].
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.shape = tuple(weight.shape)
        with torch.no_grad():
            self.blocks = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
            self.bias = None if bias is None else bias.detach()

    def extra_repr(self) -> str:
        return f"in_features={self.shape[1]}, out_features={self.shape[0]}, bias={self.bias is not None}"

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.blocks, self.bias, "none", [], "")
        return out


def packed(module: Module) -> Module:
    """A copy whose linear layers are packed where that helps. All other weights are shared with the original, so that
    it is for use as long as these stay as they are."""
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    out = copy.deepcopy(module, shared).eval()
    for parent in list(out.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and packs(child.weight):
                setattr(parent, name, PackedLinear(child.weight, child.bias))
    return out
