"""The part of a Transformer block that works on each token alone."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FeedForward", "FeedForwardKind"]

FeedForwardKind = Literal["relu", "gelu", "gelu_tanh", "silu", "swiglu", "geglu"]


class FeedForward(nn.Module):
    """Out to ``hidden`` units and back, with a nonlinear function between.

    ============= =================================================== =================================
    kind          result                                              where
    ============= =================================================== =================================
    ``relu``      down(relu(up(x)))                                   Vaswani et al. 2017, T5
    ``gelu``      down(gelu(up(x)))                                   BERT, BART, ViT, Whisper
    ``gelu_tanh`` the same with GELU's approximation by tanh          GPT-2
    ``silu``      down(silu(up(x)))                                   Marian
    ``swiglu``    down(silu(gate(x)) * up(x))                         Shazeer 2020 (arXiv:2002.05202), Llama
    ``geglu``     down(gelu_tanh(gate(x)) * up(x))                    the same paper, T5 1.1
    ============= =================================================== =================================

    Args:
        hidden: units in the middle; None: 4 x width, and 8/3 x width (a multiple of 8) for ``swiglu`` and
            ``geglu``, whose third matrix then costs no more.

    Shape: [..., D] to the same.

    >>> sum(p.numel() for p in FeedForward(6, kind="swiglu", bias=False).parameters())  # 3 matrices of 6 x 16
    288
    """

    def __init__(
        self, width: int, *, hidden: int | None = None, kind: FeedForwardKind = "gelu", bias: bool = True
    ) -> None:
        super().__init__()
        self.kind = kind
        gated = kind in ("swiglu", "geglu")
        hidden = hidden or (-(-8 * width // 24) * 8 if gated else 4 * width)
        self.gate = nn.Linear(width, hidden, bias=bias) if gated else None
        self.up = nn.Linear(width, hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)

    def extra_repr(self) -> str:
        return f"kind={self.kind}"

    def open(self, x: Tensor) -> tuple[Tensor | None, Tensor]:
        """What comes out of ``gate``, where there is one, and of ``up``."""
        hidden = self.up(x)
        return (None if self.gate is None else self.gate(x)), hidden

    def forward(self, x: Tensor) -> Tensor:
        gate, hidden = self.open(x)
        if gate is not None:
            hidden = hidden * (F.silu(gate) if self.kind == "swiglu" else F.gelu(gate, approximate="tanh"))
        elif self.kind == "relu":
            hidden = F.relu(hidden)
        elif self.kind == "silu":
            hidden = F.silu(hidden)
        else:
            hidden = F.gelu(hidden, approximate="tanh" if self.kind == "gelu_tanh" else "none")
        out: Tensor = self.down(hidden)
        return out
