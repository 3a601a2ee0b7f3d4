"""How many bytes of tensors live at each moment of a computation, and how many operations it does."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop, sdpa_flop, shape_wrapper

from ...training.mode import DispatchMode

__all__ = ["Tally"]


class Tally(DispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages that operations make, and those that are let go, while it is entered.

    ``now`` is the bytes that live at the moment, ``peak`` the most that ever did. Views count nothing. On tensors
    without storage (``FakeTensorMode``) it tells what the real computation would take; what a kernel allocates inside
    itself and gives back before it returns is not seen. ``flops`` are the floating-point operations of products,
    convolutions, attention and recurrent layers, by torch's formulas, a multiplication and an addition counting two.

    >>> with Tally() as tally:
    ...     x = torch.zeros(20, 50)
    ...     y = (x + 1) @ x.T
    >>> tally.peak, tally.now, tally.flops
    (9600, 5600, 40000)
    """

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.now = self.peak = self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in (out,) if isinstance(out, torch.Tensor) else tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.see(leaf)
        formula = FORMULAS.get(packet := func._overloadpacket) or flop_registry.get(packet)
        if formula is not None:
            self.flops += int(formula(*args, **(kwargs or {}), out_val=out))
        return out

    def see(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage, unless it is counted already."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.sizes:
            self.sizes[key] = storage.nbytes()
            self.now += self.sizes[key]
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.drop, key).atexit = False

    def drop(self, key: int) -> None:
        self.now -= self.sizes.pop(key)

    def forget(self) -> int:
        """Take what lives now for the peak, and begin to look for a new one; gives the old peak."""
        peak, self.peak = self.peak, self.now
        return peak


# Operations that torch's own formulas leave out ----------------------------------------------------------------------


def recurrent(x: Any, w_input: Any, w_state: Any, *others: Any, out_shape: Any = None, **named: Any) -> int:
    """A layer of LSTM in one kernel: steps [T, B, F], weights [4 D, F] and [4 D, D]."""
    return int(2 * prod(x[:2]) * (prod(w_input) + prod(w_state)))


def recurrent_backward(*shapes: Any, out_shape: Any = None, **named: Any) -> int:
    return 2 * recurrent(*shapes)


def attention(query: Any, key: Any, value: Any, *others: Any, out_shape: Any = None, **named: Any) -> int:
    return int(sdpa_flop(query, key, value))


def attention_backward(
    gradient: Any, query: Any, key: Any, value: Any, *others: Any, out_shape: Any = None, **named: Any
) -> int:
    return int(sdpa_backward_flop(gradient, query, key, value))


def by_shapes(formula: Callable[..., int]) -> Any:
    """The formula of shapes as one of tensors."""
    return shape_wrapper(formula)  # type: ignore[no-untyped-call]


ATEN = torch.ops.aten
FORMULAS: dict[Any, Any] = {
    ATEN.mkldnn_rnn_layer: by_shapes(recurrent),
    ATEN.mkldnn_rnn_layer_backward: by_shapes(recurrent_backward),
    ATEN._scaled_dot_product_flash_attention_for_cpu: by_shapes(attention),
    ATEN._scaled_dot_product_flash_attention_for_cpu_backward: by_shapes(attention_backward),
}
