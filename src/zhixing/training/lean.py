"""Adam and AdamW through torch's fused kernel, without the bookkeeping around it.

``torch.optim.Adam(fused=True).step()`` groups tensors by device, checks for graph capture, enters a profiler range and
wraps hooks anew in each step, which for a small model takes longer than the arithmetic (benchmarks/lean_adam.py). This
calls the same kernel with lists that are made once. Results are torch's, bit for bit.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

__all__ = ["LeanAdam"]


class LeanAdam(Adam):
    """:class:`torch.optim.Adam` with ``fused=True``, or AdamW with ``decoupled_weight_decay=True`` as well.

    All parameters must be of one type on one device. ``found_inf`` is the flag under which a step leaves no trace, as
    torch's loss scaling sets it.
    """

    found_inf: Tensor | None = None
    lists: list[tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step; parameters without a gradient stay as they are."""
        assert closure is None
        if not hasattr(self, "lists"):
            self.lists = [self.make_state(group["params"]) for group in self.param_groups]
        taken = None if self.found_inf is None else 1 - self.found_inf
        for group, whole in zip(self.param_groups, self.lists, strict=True):
            gradients = [gradient for parameter in whole[0] if (gradient := parameter.grad) is not None]
            if len(gradients) < len(whole[0]):
                kept = [place for place, parameter in enumerate(whole[0]) if parameter.grad is not None]
                parameters, means, squares, steps = ([tensors[place] for place in kept] for tensors in whole)
            else:
                parameters, means, squares, steps = whole
            if not parameters:
                continue
            # A list of tensors, since a lone one would be read by the host.
            torch._foreach_add_(steps, 1 if taken is None else [taken] * len(steps))
            kernel = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
            kernel(
                parameters,
                gradients,
                means,
                squares,
                [],
                steps,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
                grad_scale=None,
                found_inf=self.found_inf,
            )

    step.hooked = True  # type: ignore[attr-defined]  # torch then leaves its per-step wrapper off
    # Without the wrappers that load torch's compiler to keep it away from these.
    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)

    def make_state(self, parameters: list[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """Parameters, means, means of squares, and step counts, in the form that torch's own Adam keeps."""
        for parameter in parameters:
            self.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            }
        columns = [
            [self.state[parameter][key] for parameter in parameters] for key in ("exp_avg", "exp_avg_sq", "step")
        ]
        return parameters, columns[0], columns[1], columns[2]
