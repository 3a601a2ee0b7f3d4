"""First values of weights."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor, nn

__all__ = ["Scheme", "initialise"]

Scheme = Literal["default", "he", "xavier", "orthogonal", "normal"]

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def initialise(module: nn.Module, scheme: Scheme, *, generator: Generator | None = None) -> None:
    """Draw the weights of every convolution and linear layer in ``module`` anew, and set their biases to zero.

    ============== =======================================================================================
    scheme         weights
    ============== =======================================================================================
    ``default``    left as the architecture drew them when it was built
    ``he``         normal, variance 2 / fan in, for ReLU and its kin (He et al. 2015, arXiv:1502.01852)
    ``xavier``     uniform, variance 2 / (fan in + fan out), for tanh (Glorot and Bengio 2010)
    ``orthogonal`` orthonormal rows or columns (Saxe et al. 2014, arXiv:1312.6120)
    ``normal``     normal with standard deviation 0.02
    ============== =======================================================================================

    Normalisation, embedding and recurrent layers stay as they are. With a ``generator`` the numbers are drawn on its
    device and copied, so that one seed gives one set of weights on every device; without, from torch's own stream.

    >>> layer = nn.Linear(4, 3)
    >>> initialise(layer, "orthogonal", generator=torch.Generator().manual_seed(0))
    >>> bool(torch.allclose(layer.weight @ layer.weight.T, torch.eye(3), atol=1e-6))
    True
    """
    if scheme == "default":
        return
    for layer in module.modules():
        if isinstance(layer, LAYERS):
            draw(layer.weight, scheme, generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


@torch.no_grad()
def draw(weight: Tensor, scheme: Scheme, generator: Generator | None) -> None:
    if weight.is_meta:
        return
    # Half-precision weights are drawn in single precision: QR has no half-precision kernel.
    dtype = weight.dtype if weight.dtype in (torch.float32, torch.float64) else torch.float32
    drawn = torch.empty(weight.shape, dtype=dtype, device=generator.device if generator else weight.device)
    if scheme == "he":
        nn.init.kaiming_normal_(drawn, nonlinearity="relu", generator=generator)
    elif scheme == "xavier":
        nn.init.xavier_uniform_(drawn, generator=generator)
    elif scheme == "orthogonal":
        nn.init.orthogonal_(drawn, generator=generator)
    else:
        assert scheme == "normal", scheme
        nn.init.normal_(drawn, std=0.02, generator=generator)
    weight.copy_(drawn)
