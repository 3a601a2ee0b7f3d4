"""Steps whose gradients are not finite are undone, without asking the device about it in each step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .optimizers import state_tensors

__all__ = ["Guard", "name_culprit"]


class Guard:
    """Leaves model, optimizers and averages bit-equal to never having taken a step that is not finite.

    Fused optimizers take the flag themselves (torch's own mechanism for loss scaling). All else that a step changes
    (running statistics of normalisation, averages of weights, the state of other optimizers) is copied before the
    step and selected from after it, on the device.
    """

    def __init__(self, model: nn.Module, optimizers: Sequence[Optimizer], averages: Sequence[Tensor]) -> None:
        self.model, self.optimizers = model, optimizers
        device = next(model.parameters()).device
        self.found = torch.zeros((), device=device)
        self.one = torch.ones((), device=device)
        # The stems' statistics are constants; every other buffer may be changed by a forward pass.
        self.kept = [buffer for name, buffer in model.named_buffers() if not name.startswith("stems.")]
        self.kept += averages
        for optimizer in optimizers:
            if getattr(optimizer, "_step_supports_amp_scaling", False):
                optimizer.found_inf, optimizer.grad_scale = self.found, None  # type: ignore[attr-defined]
            else:
                self.kept += [p.detach() for group in optimizer.param_groups for p in group["params"]]
                self.kept += list(state_tensors([optimizer]).values())
        self.copies = [torch.empty_like(tensor) for tensor in self.kept]

    def before(self) -> None:
        """Remember what the step may spoil."""
        self.found.zero_()
        for copy, tensor in zip(self.copies, self.kept, strict=True):
            copy.copy_(tensor)

    def check(self, loss: Tensor, gradients: list[Tensor], inverse_scale: Tensor | None = None) -> None:
        """Raise the flag when the loss or any gradient is not finite; divide gradients by the loss scale on the way.

        A loss can be infinite where its gradients are finite (the square of a large error, a term without weights).
        """
        check = torch._amp_foreach_non_finite_check_and_unscale_
        if inverse_scale is None:
            check([loss, *gradients], self.found, self.one)
        else:
            check(gradients, self.found, inverse_scale)
            check([loss], self.found, self.one)

    def after(self) -> None:
        """Undo the step if the flag is up."""
        if self.kept:
            bad = self.found.bool()
            for copy, tensor in zip(self.copies, self.kept, strict=True):
                torch.where(bad, copy, tensor, out=tensor)

    def undo(self) -> None:
        """Put back what :meth:`before` remembered."""
        for copy, tensor in zip(self.copies, self.kept, strict=True):
            tensor.copy_(copy)


def name_culprit(model: nn.Module, losses: Iterable[Tensor]) -> str:
    """The first module whose output is not finite, or else the first whose gradient is not, by its path.

    ``losses`` computes, one after the other as they are asked for, the scalars of the parts of the batch that went
    wrong; all hooks are gone afterwards.
    """
    forward: list[str] = []
    backward: list[str] = []

    def spoiled(value: object) -> bool:
        if isinstance(value, Tensor):
            return value.is_floating_point() and not bool(torch.isfinite(value).all())
        if isinstance(value, tuple | list):
            return any(spoiled(item) for item in value)
        return False

    handles = []
    for name, module in model.named_modules():
        if any(True for _ in module.children()) or not name:
            continue
        handles.append(
            module.register_forward_hook(lambda m, i, o, name=name: forward.append(name) if spoiled(o) else None)
        )
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            note = partial(lambda name, gradient: backward.append(name) if spoiled(gradient) else None, name)
            handles.append(parameter.register_hook(note))  # type: ignore[no-untyped-call]
    try:
        broken = [name for name, p in model.named_parameters() if spoiled(p.detach())]
        if broken:
            return f"the weight {broken[0]} itself is not finite"
        for loss in losses:
            if forward:
                return f"the first output that is not finite is that of the layer {forward[0]}"
            if spoiled(loss):
                return "every layer's output is finite, the loss is not (a target out of range?)"
            loss.backward()  # type: ignore[no-untyped-call]
            if backward:
                return f"the loss is finite; the first gradient that is not is that of {backward[0]}"
        return "the same batch gave finite values when it was looked at again"
    finally:
        for handle in handles:
            handle.remove()
        model.zero_grad(set_to_none=True)
