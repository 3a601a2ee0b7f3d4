"""Low-rank adaptation: a frozen linear layer, and beside it a product of two thin matrices that learns.

Shape legend: I inputs, O outputs of a layer, R rank.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["LoRALinear", "adapt", "merge"]


class LoRALinear(nn.Linear):
    """W x + alpha / rank * B A x (Hu et al. 2021, arXiv:2106.09685), where A [R, I] and B [O, R] alone learn.

    B starts at zero, so that at first the layer is the one that it was made of, whose ``weight`` and ``bias`` it goes
    on with: the same tensors under the same names, without gradients. A is drawn as torch draws a linear layer.

    Args:
        dropout: share of the inputs of A and B that are dropped while training; W sees all.

    Shape: [..., I] to [..., O].

    >>> base = nn.Linear(6, 4)
    >>> layer, x = LoRALinear(base, rank=2, alpha=4.0), torch.randn(3, 6)
    >>> bool(torch.equal(layer(x), base(x))), [name for name, p in layer.named_parameters() if p.requires_grad]
    (True, ['lora_a', 'lora_b'])
    """

    def __init__(self, base: nn.Linear, *, rank: int, alpha: float, dropout: float = 0.0) -> None:
        # Without room of its own for weights: those of the base take their place.
        super().__init__(base.in_features, base.out_features, bias=False, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.scale, self.dropout = alpha / rank, dropout
        drawn = torch.empty(rank, base.in_features, dtype=base.weight.dtype)  # on the CPU: on all devices the same
        nn.init.kaiming_uniform_(drawn, a=5**0.5)
        self.lora_a = nn.Parameter(drawn.to(base.weight.device))
        self.lora_b = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        for parameter in base.parameters():
            parameter.requires_grad_(False)
        self.train(base.training)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={len(self.lora_a)}, scale={self.scale:g}"

    def forward(self, input: Tensor) -> Tensor:  # torch's name
        thin = F.linear(F.dropout(input, self.dropout, self.training) if self.dropout else input, self.lora_a)
        return F.linear(input, self.weight, self.bias) + self.scale * F.linear(thin, self.lora_b)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """A plain layer that gives the same: W + alpha / rank * B A. This one, and the base's weight, stay as they are.

        >>> layer = LoRALinear(nn.Linear(6, 4), rank=2, alpha=4.0)
        >>> _, x = nn.init.normal_(layer.lora_b), torch.randn(3, 6)
        >>> bool(torch.allclose(layer(x), layer.merged()(x), atol=1e-5))
        True
        """
        plain = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        plain.weight = nn.Parameter(self.weight + self.scale * (self.lora_b @ self.lora_a))
        plain.bias = self.bias
        return plain.train(self.training)


def adapt(module: nn.Module, names: Sequence[str], *, rank: int, alpha: float, dropout: float = 0.0) -> None:
    """Put a :class:`LoRALinear` in the place of each of these layers, named by their paths in ``module``."""
    for name in names:
        base = module.get_submodule(name)
        assert type(base) is nn.Linear, name
        replace(module, name, LoRALinear(base, rank=rank, alpha=alpha, dropout=dropout))


def merge(module: nn.Module) -> int:
    """Put the plain, merged layer in the place of each :class:`LoRALinear`; gives how many there were."""
    found = [(name, one) for name, one in module.named_modules() if isinstance(one, LoRALinear)]
    for name, layer in found:
        replace(module, name, layer.merged())
    return len(found)


def replace(module: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    module.get_submodule(parent).register_module(own, new)
