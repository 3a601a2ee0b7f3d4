"""The loss by torch's compiler, to the same bits in every process of a run.

``torch.compile`` compiles anew for each shape that it meets, and what it makes of one hangs on those that came before:
of texts, whose batches differ in length, a run that was killed and went on came to other bits. Here it compiles for
batches that follow from the recipe and the data alone, before it sees others; any other batch runs through what was
compiled for these where it fits, and plain where it does not. Which of the two is told by the batch itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.batches import Batch, Batches, Order
from ..model import Model

__all__ = ["Compiled", "typical_steps"]

LOOKED_AT = 64  # batches of texts, of which the longest is compiled for


class Compiled:
    """The loss of a batch, as :meth:`zhixing.model.Model.loss` gives it.

    Args:
        model: in training.
        typical: batches to compile for, always the same ones. Where rows are ``ragged``, one is enough: sizes are
            then taken for unknown numbers.
        ragged: whether batches differ in more than their number of rows.
    """

    def __init__(self, model: Model, typical: Callable[[], Iterable[Batch]], *, ragged: bool) -> None:
        self.model, self.typical, self.ragged = model, typical, ragged
        # What was compiled for unknown sizes may be found again for others than it was made for: not kept on disk.
        options: dict[str, str | int | bool | Callable[..., object]] = {
            "deterministic": True, "fx_graph_cache": not ragged,
        }  # fmt: skip
        self.loss = torch.compile(model.loss, dynamic=ragged, options=options)
        self.learning: list[bool] = []
        if model.pretext is not None:  # numbers are drawn by the step's own, which must not become part of the code
            uncompiled: Any = torch.compiler.disable
            head = model.pretext[1]
            head.ask = uncompiled(head.ask)  # type: ignore[method-assign]
            model.question = uncompiled(model.question, recursive=False)  # type: ignore[method-assign]

    def __call__(self, batch: Batch) -> Tensor:
        learning = [parameter.requires_grad for parameter in self.model.parameters()]  # layers may be opened
        if learning != self.learning:
            self.compile()
            self.learning = learning
        with torch.compiler.set_stance("eager_on_recompile"):
            return self.loss(batch)

    def anew(self) -> None:
        """Compile again at the next batch: the typical ones have changed."""
        self.learning = []

    def compile(self) -> None:
        """Go through the typical batches, forward and backward, and put back what that changes."""
        import torch.fx.experimental._config as sizes  # here, since it loads much of the compiler

        torch.compiler.reset()  # a process that goes on from here has compiled nothing before
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        # Two unknown sizes that happen to be equal in the batch at hand are not to be taken for the same.
        with sizes.patch(use_duck_shape=False), torch.random.fork_rng():  # type: ignore[attr-defined]
            for batch in self.typical():
                loss = self.loss(batch)
                with torch.autocast(batch.rows.device.type, enabled=False):
                    loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        for parameter in self.model.parameters():
            parameter.grad = None


def typical_steps(order: Order, batches: Batches) -> list[int]:
    """Steps of the first epoch with a batch of each number of rows; of texts, one with long ones."""
    if batches.ragged:
        return [max(range(min(order.steps_per_epoch, LOOKED_AT)), key=lambda step: batches.cells(order.at(step)))]
    return [int(step) for step in np.unique(np.diff(order.edges), return_index=True)[1]]
