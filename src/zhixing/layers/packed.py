"""Linear layers whose weights lie as the processor reads them fastest, for use without gradients.

A product with a few rows spends its time on reading weights. oneDNN reads them in blocks, and brings a plain matrix
into that form at every call; here it is done once. Of a single row in float32 a sum of the matrix's rows, weighted by
the input, is faster, where there are more outputs than inputs. The answers are the same but for the order of sums.
"""

from __future__ import annotations

import copy
from typing import TypeGuard, TypeVar

import torch
from torch import Tensor, nn

from .feedforward import FeedForward

__all__ = ["PackedFeedForward", "PackedLinear", "TransposedLinear", "packed", "packed_linear"]

ROWS = 64  # that oneDNN lays out for; measured, a layout for a single row is no faster for it and slower for more

Module = TypeVar("Module", bound=nn.Module)


def packs(weight: Tensor) -> bool:
    """Whether products with this weight gain from another layout: those of oneDNN, on a processor that it knows."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
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


class TransposedLinear(nn.Module):
    """The same with a copy of the weight as [in, out]."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.across = weight.detach().t().contiguous()
        self.bias = None if bias is None else bias.detach()

    def extra_repr(self) -> str:
        return f"in_features={len(self.across)}, out_features={self.across.shape[1]}, bias={self.bias is not None}"

    def forward(self, x: Tensor) -> Tensor:
        out = x @ self.across
        return out if self.bias is None else out + self.bias


def packed_linear(weight: Tensor, bias: Tensor | None, rows: int) -> nn.Module | None:
    """The fastest layer with this weight for batches of ``rows``; None: the plain one is."""
    if not packs(weight):
        return None
    if rows > 1 or weight.dtype != torch.float32:
        return PackedLinear(weight, bias)
    return TransposedLinear(weight, bias) if weight.shape[0] > weight.shape[1] else None


class PackedFeedForward(FeedForward):
    """A feed-forward layer whose gate and way up are one product, which reads their weights in one go."""

    def __init__(self, plain: FeedForward, rows: int) -> None:
        nn.Module.__init__(self)
        gate, up = plain.gate, plain.up
        assert gate is not None
        self.kind, self.down = plain.kind, plain.down
        weight = torch.cat([gate.weight.detach(), up.weight.detach()])
        both = packed_linear(weight, None if up.bias is None else torch.cat([gate.bias, up.bias]), rows)
        assert both is not None
        self.both = both

    def open(self, x: Tensor) -> tuple[Tensor | None, Tensor]:
        gate, hidden = self.both(x).chunk(2, dim=-1)
        return gate, hidden


def packed(module: Module, rows: int) -> Module:
    """A copy for batches of ``rows``, whose linear layers are laid out anew where that helps. All other weights are
    shared with the original, so that it is for use as long as these stay as they are."""
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    out = copy.deepcopy(module, shared).eval()
    for parent in list(out.modules()):
        for name, child in list(parent.named_children()):
            if joins(child, rows):
                setattr(parent, name, PackedFeedForward(child, rows))
    for parent in list(out.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and (faster := packed_linear(child.weight, child.bias, rows)) is not None:
                setattr(parent, name, faster)
    return out


def joins(module: nn.Module, rows: int) -> TypeGuard[FeedForward]:
    """Whether this is a feed-forward layer whose gate and way up are faster as one product."""
    if type(module) is not FeedForward or module.gate is None or not packs(module.up.weight):
        return False
    if any(type(part) is not nn.Linear for part in (module.gate, module.up)):  # one that has an adapter stays apart
        return False
    return rows > 1 or 2 * module.up.out_features > module.up.in_features
