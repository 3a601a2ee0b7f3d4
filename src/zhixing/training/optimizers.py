"""Optimizers, all from torch, fused where torch has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Muon, Optimizer, RMSprop

from .lean import LeanAdam

__all__ = ["OPTIMIZERS", "parameter_groups"]

Groups = list[dict[str, Any]]
Rate = Annotated[
    float | Literal["find"], Field(description="learning rate; find: by a range test on the first batches")
]
Decay = Annotated[float, Field(ge=0, description="weight decay (of weights, not of biases and norms)")]
Betas = Annotated[tuple[float, float], Field(description="decay of the averages of the gradient and of its square")]
Epsilon = Annotated[float, Field(gt=0, description="added to the denominator")]
Momentum = Annotated[float, Field(ge=0, lt=1, description="share of the last step that is kept")]


def parameter_groups(model: nn.Module, weight_decay: float) -> Groups:
    """Trainable parameters in two groups: matrices and kernels, which decay, and biases and norms, which do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not weight_decay:
        return [{"params": parameters, "weight_decay": 0.0}]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def fused(model: nn.Module) -> bool:
    return all(p.is_floating_point() and p.device.type in ("cpu", "cuda", "mps") for p in model.parameters())


def sgd(
    model: nn.Module, *, lr: Rate = 0.1, momentum: Momentum = 0.0, nesterov: bool = False, weight_decay: Decay = 0.0
) -> list[Optimizer]:
    """Stochastic gradient descent, with momentum when asked."""
    groups = parameter_groups(model, weight_decay)
    return [SGD(groups, lr=rate(lr), momentum=momentum, nesterov=nesterov and momentum > 0, fused=fused(model))]


def gradient_descent(model: nn.Module, *, lr: Rate = 0.1, weight_decay: Decay = 0.0) -> list[Optimizer]:
    """Gradient descent on all training rows at once: one step an epoch."""
    return sgd(model, lr=lr, weight_decay=weight_decay)


def momentum(
    model: nn.Module, *, lr: Rate = 0.05, momentum: Momentum = 0.9, weight_decay: Decay = 0.0
) -> list[Optimizer]:
    """Gradient descent with momentum (Polyak, 1964)."""
    return sgd(model, lr=lr, momentum=momentum, weight_decay=weight_decay)


def nesterov(
    model: nn.Module, *, lr: Rate = 0.05, momentum: Momentum = 0.9, weight_decay: Decay = 0.0
) -> list[Optimizer]:
    """Gradient descent with Nesterov's momentum (1983)."""
    return sgd(model, lr=lr, momentum=momentum, nesterov=True, weight_decay=weight_decay)


def rmsprop(
    model: nn.Module,
    *,
    lr: Rate = 1e-3,
    alpha: Annotated[float, Field(ge=0, lt=1, description="decay of the average of squares")] = 0.99,
    momentum: Momentum = 0.0,
    eps: Epsilon = 1e-8,
    weight_decay: Decay = 0.0,
) -> list[Optimizer]:
    """Steps divided by a running mean of recent gradients' size (Tieleman and Hinton, 2012)."""
    # On a GPU its count of steps has to lie there too, for a step to be undone without asking the device.
    on_gpu = all(p.is_cuda for p in model.parameters())
    groups = parameter_groups(model, weight_decay)
    return [RMSprop(groups, lr=rate(lr), alpha=alpha, momentum=momentum, eps=eps, capturable=on_gpu)]


def adagrad(model: nn.Module, *, lr: Rate = 0.01, eps: Epsilon = 1e-10, weight_decay: Decay = 0.0) -> list[Optimizer]:
    """Steps divided by the size of all past gradients (Duchi et al., 2011)."""
    return [Adagrad(parameter_groups(model, weight_decay), lr=rate(lr), eps=eps, fused=fused(model))]


def make_adam(kind: type[Adam], model: nn.Module, *, weight_decay: float, **settings: Any) -> Optimizer:
    """Adam or AdamW: fused and lean for parameters of one type on one device, else torch's own."""
    groups = parameter_groups(model, weight_decay)
    if not fused(model) or len({(p.device, p.dtype) for p in model.parameters()}) != 1:
        return kind(groups, **settings)
    return LeanAdam(groups, **settings, fused=True, decoupled_weight_decay=kind is AdamW)


def adam(
    model: nn.Module, *, lr: Rate = 2e-3, betas: Betas = (0.9, 0.999), eps: Epsilon = 1e-8, weight_decay: Decay = 0.0
) -> list[Optimizer]:
    """Running means of the gradient and its square (Kingma and Ba, 2015); decay is part of the gradient."""
    return [make_adam(Adam, model, lr=rate(lr), betas=betas, eps=eps, weight_decay=weight_decay)]


def adamw(
    model: nn.Module, *, lr: Rate = 2e-3, betas: Betas = (0.9, 0.999), eps: Epsilon = 1e-8, weight_decay: Decay = 0.01
) -> list[Optimizer]:
    """Adam with weight decay apart from the gradient (Loshchilov and Hutter, 2019)."""
    return [make_adam(AdamW, model, lr=rate(lr), betas=betas, eps=eps, weight_decay=weight_decay)]


def muon(
    model: nn.Module,
    *,
    lr: Rate = 0.02,
    momentum: Momentum = 0.95,
    weight_decay: Decay = 0.01,
    adam_lr: Annotated[float, Field(gt=0, description="rate of AdamW for all that is not a hidden matrix")] = 1e-3,
) -> list[Optimizer]:
    """Orthogonalised momentum for hidden matrices (Jordan et al., 2024); AdamW for all the rest."""
    matrices = [
        module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and is_hidden(name) and module.weight.requires_grad
    ]
    chosen = {id(weight) for weight in matrices}
    groups = parameter_groups(model, weight_decay)
    for group in groups:
        group["params"] = [p for p in group["params"] if id(p) not in chosen]
    rest = [group for group in groups if group["params"]]
    out: list[Optimizer] = []
    if matrices:
        out.append(Muon(matrices, lr=rate(lr), momentum=momentum, weight_decay=weight_decay))
    if rest:
        out.append(AdamW(rest, lr=adam_lr, fused=fused(model)))
    return out


def is_hidden(name: str) -> bool:
    """Whether a layer is between others: not a head's own, but that of a decoder's blocks within a head is."""
    return not name.startswith("heads.") or ".blocks." in name


def rate(lr: float | str) -> float:
    """The number; where it is still to be found, a place-holder that the range test sets."""
    return 1e-3 if isinstance(lr, str) else lr


OPTIMIZERS: dict[str, Callable[..., list[Optimizer]]] = {
    "adagrad": adagrad,
    "adam": adam,
    "adamw": adamw,
    "gradient_descent": gradient_descent,
    "momentum": momentum,
    "muon": muon,
    "nesterov": nesterov,
    "rmsprop": rmsprop,
    "sgd": sgd,
}


def prime(optimizers: Sequence[Optimizer]) -> None:
    """Make all state now, as it is before the first step, by a step of nothing.

    Left to the first step, it would be made from that step's gradients even where the step is to be undone.
    """
    for optimizer in optimizers:
        rates = [(group["lr"], group.get("weight_decay", 0.0)) for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = group["weight_decay"] = 0.0
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for group, (lr, decay) in zip(optimizer.param_groups, rates, strict=True):
            group["lr"], group["weight_decay"] = lr, decay
        for entries in optimizer.state.values():
            for value in entries.values():
                if isinstance(value, Tensor):
                    value.zero_()


def state_tensors(optimizers: Sequence[Optimizer]) -> dict[str, Tensor]:
    """The optimizers' state by a name that does not depend on where it lies in memory."""
    out = {}
    for number, optimizer in enumerate(optimizers):
        places = {id(p): i for i, p in enumerate(p for group in optimizer.param_groups for p in group["params"])}
        for parameter, entries in optimizer.state.items():
            for key, value in entries.items():
                if isinstance(value, Tensor):
                    out[f"{number}.{places[id(parameter)]}.{key}"] = value
    return out


def load_state_tensors(optimizers: Sequence[Optimizer], tensors: dict[str, Tensor]) -> None:
    """Put back what :func:`state_tensors` gave into primed optimizers.

    Raises:
        ValueError: the state is that of other optimizers.
    """
    own = state_tensors(optimizers)  # primed: every entry is there, in its parameter's layout
    if own.keys() != tensors.keys():
        raise ValueError("its optimizer is another one")
    for name, tensor in tensors.items():
        own[name].copy_(tensor)
