"""Normalisation of each token by itself, by name."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["Norm", "RMSNorm", "make_norm"]

Norm = Literal["layer", "rms"]


class RMSNorm(nn.Module):
    """Divide each token by its root mean square, then scale each unit (Zhang and Sennrich 2019, arXiv:1910.07467).

    A layer norm without the mean and without the bias. Squares are summed in float32 or wider: in bfloat16 a mean over
    a thousand units would keep two digits.

    Shape: [..., D] to the same.

    >>> norm = RMSNorm(2)
    >>> norm(torch.tensor([3.0, 4.0]) * 50**0.5 / 5).pow(2).mean().item()
    1.0
    """

    def __init__(self, width: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps:g}"

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * scale * self.weight).to(x.dtype)


def make_norm(name: Norm, width: int, *, eps: float = 1e-5, bias: bool = True) -> nn.Module:
    """A fresh normalisation over the last dimension; ``bias`` is a matter of the layer norm (Ba et al. 2016) alone.

    >>> make_norm("rms", 8)
    RMSNorm(8, eps=1e-05)
    """
    return RMSNorm(width, eps=eps) if name == "rms" else nn.LayerNorm(width, eps=eps, bias=bias)
