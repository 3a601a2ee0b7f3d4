"""Low-rank factors: a thick linear layer as two thin ones.

Shape legend: N rows, I inputs, O outputs of a layer, R rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ..data.batches import Batch
from ..errors import UsageError
from ..layers.lora import replace
from ..model import Model

__all__ = ["factorise", "low_rank", "rank_for", "take_factors"]


def rank_for(features: int, units: int, keep: float) -> int:
    """The rank at which two factors hold the share ``keep`` of a layer's weights; at least 1.

    >>> rank_for(128, 512, 0.5)
    51
    """
    return max(1, int(keep * features * units / (features + units)))


def factorise(layer: nn.Linear, moments: Tensor, rank: int) -> nn.Sequential:
    """The two layers whose product, of all of this rank, gives outputs nearest to those of ``layer``.

    Not the weights are to come near but what they make of the inputs that there are: with the inputs' second moments
    S = X'X / N and S = LL', the best factors are those of the singular value decomposition of WL (as in Wang et al.,
    "SVD-LLM", 2024, arXiv:2403.07378). ``moments`` [I, I]; the identity gives the plain decomposition of W.

    >>> layer = nn.Linear(6, 4)
    >>> pair, x = factorise(layer, torch.eye(6), 4), torch.randn(3, 6)
    >>> bool(torch.allclose(pair(x), layer(x), atol=1e-5))
    True
    """
    weight, moments = layer.weight.detach().double(), moments.double()
    size = float(moments.diagonal().mean())
    floor = torch.eye(len(moments), dtype=torch.float64) * (1e-6 * size or 1.0)  # inputs that never vary
    root = torch.linalg.cholesky(moments + floor)
    left, sizes, right = torch.linalg.svd(weight @ root, full_matrices=False)
    share = sizes[:rank].sqrt()
    first = nn.Linear(layer.in_features, rank, bias=False)
    second = nn.Linear(rank, layer.out_features, bias=layer.bias is not None)
    with torch.no_grad():
        back = torch.linalg.solve_triangular(root.T, right[:rank].T, upper=True).T  # right times the inverse of root
        first.weight.copy_(share[:, None] * back)
        second.weight.copy_(left[:, :rank] * share)
        if layer.bias is not None:
            second.bias.copy_(layer.bias)
    return nn.Sequential(first, second)


def low_rank(model: Model, rows: Iterable[Batch], keep: float) -> list[str]:
    """Put factors in the place of those linear layers, but the heads', that become smaller by it; gives their names.

    Raises:
        UsageError: there is no such layer.
    """
    chosen = {
        name: layer
        for name, layer in model.named_modules()
        if type(layer) is nn.Linear and not name.startswith("heads.") and pays(layer, keep)
    }
    if not chosen:
        raise UsageError("no linear layer would become smaller as two factors")
    for name, moments in moments_of(model, chosen, rows).items():
        layer = chosen[name]
        replace(model, name, factorise(layer, moments, rank_for(layer.in_features, layer.out_features, keep)))
    return list(chosen)


def pays(layer: nn.Linear, keep: float) -> bool:
    rank = rank_for(layer.in_features, layer.out_features, keep)
    return rank < min(layer.weight.shape) and rank * sum(layer.weight.shape) < layer.weight.numel()


def moments_of(model: Model, layers: Mapping[str, nn.Linear], rows: Iterable[Batch]) -> dict[str, Tensor]:
    """The second moments of each layer's inputs over some rows."""
    sums = {name: torch.zeros(layer.in_features, layer.in_features).double() for name, layer in layers.items()}

    def watch(name: str) -> object:
        def hook(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            x_NI = given[0].detach().flatten(0, -2).double()
            sums[name] += x_NI.T @ x_NI / len(x_NI)

        return layers[name].register_forward_pre_hook(hook)

    handles = [watch(name) for name in layers]
    with torch.inference_mode():
        for batch in rows:
            model(batch)
    for handle in handles:
        handle.remove()  # type: ignore[attr-defined]
    return sums


def take_factors(model: Model, tensors: Mapping[str, Tensor]) -> None:
    """Give a model those factors, still empty, that tensors of such a one have."""
    for name, layer in list(model.named_modules()):
        first, second = tensors.get(f"{name}.0.weight"), tensors.get(f"{name}.1.weight")
        if type(layer) is nn.Linear and first is not None and second is not None:
            pair = [nn.Linear(first.shape[1], first.shape[0], bias=False)]
            pair.append(nn.Linear(second.shape[1], second.shape[0], bias=layer.bias is not None))
            replace(model, name, nn.Sequential(*pair))
