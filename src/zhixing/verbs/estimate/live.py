"""How many bytes of tensors live at each moment of a computation."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["LiveBytes"]


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages that operations make, and those that are let go, while it is entered.

    ``now`` is what lives at the moment, ``peak`` the most that ever did. Views count nothing. On tensors without
    storage (``FakeTensorMode``) it tells what the real computation would take; what a kernel allocates inside itself
    and gives back before it returns is not seen.

    >>> with LiveBytes() as live:
    ...     x = torch.zeros(1000)
    ...     y = (x + 1) * 2
    >>> live.peak, live.now
    (12000, 8000)
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sizes: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.see(leaf)
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
