"""Graphs of one row, for runtimes on small devices: they set memory aside for the largest input there can be, and some
take inputs of one size alone. Any number of rows goes through them one by one.

Shape legend: B rows, T steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..data.batches import Batch
from .graph import Part, Port
from .kernels import RealFourier, swapped
from .onnx import quiet

__all__ = ["filled", "one_row", "row_by_row", "sort_numbers", "sort_stable"]

Module = Callable[[Any], nn.Module]


def one_row(
    part: Part, rows: Batch, table: Mapping[type[nn.Module], Module], *, free: bool
) -> tuple[ExportedProgram, tuple[Tensor, ...]]:
    """A part as a program of one row, and the example that it was followed with; ``table`` says which modules are
    replaced. With ``free`` a row may have any number of steps up to its column's most, else it has just as many.

    Raises:
        RuntimeError, ValueError: what is in the part cannot be followed.
    """
    example = tuple(tensor[:1] for tensor in part.example(rows))
    shapes: Any = None
    if free:
        shapes = (tuple(free_axes(port) for port in part.inputs),)
    else:
        example = tuple(filled(tensor, port.most) for tensor, port in zip(example, part.inputs, strict=True))
    decompositions = torch.export.default_decompositions()
    decompositions[torch.ops.aten.sort.stable] = sort_stable  # its |= loses what it is given
    decompositions[torch.ops.aten.sort.default] = sort_numbers
    # Fused kernels of attention are not among the operators that these runtimes know.
    with quiet(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), RealFourier():
        program = torch.export.export(swapped(part, table), example, dynamic_shapes=shapes, strict=False)
        return program.run_decompositions(decompositions), example


def free_axes(port: Port) -> dict[int, Any]:
    """The axes of steps, which may have up to the most of the column."""
    steps = [axis for axis, size in enumerate(port.shape) if isinstance(size, str) and size != "batch"]
    return {axis: Dim.DYNAMIC(min=1, max=port.most) for axis in steps}


def filled(tensor: Tensor, most: int | None) -> Tensor:
    """Rows [B, T, ...] with zeros behind, up to ``most`` steps."""
    if most is None:
        return tensor
    return F.pad(tensor, [0, 0] * (tensor.ndim - 2) + [0, most - tensor.shape[1]])


def sort_stable(
    self: Tensor, *, stable: bool = False, dim: int = -1, descending: bool = False
) -> tuple[Tensor, Tensor]:
    """``torch.sort`` of truth values that keeps equal ones in their order, by counting them.

    >>> [part.tolist() for part in sort_stable(torch.tensor([True, False, True]), stable=True)]
    [[False, True, True], [1, 0, 2]]
    """
    assert self.dtype in (torch.bool, torch.uint8)
    last = self.to(torch.int64)
    last = 1 - last if descending else last
    first = 1 - last
    place = torch.where(last > 0, first.sum(dim, keepdim=True) + last.cumsum(dim), first.cumsum(dim)) - 1
    shape = [1] * self.ndim
    shape[dim] = self.shape[dim]
    number = torch.arange(self.shape[dim], device=self.device).view(shape).expand_as(last)
    order = number.scatter(dim, place, number)
    return self.gather(dim, order), order


def sort_numbers(self: Tensor, dim: int = -1, descending: bool = False) -> tuple[Tensor, Tensor]:
    """``torch.sort`` of a few numbers, such as quantiles, by counting for each how many are to stand before it.

    >>> [part.tolist() for part in sort_numbers(torch.tensor([[0.5, 0.25, 0.5]]))]
    [[[0.25, 0.5, 0.5]], [[1, 0, 2]]]
    """
    values = self.movedim(dim, -1)
    number = torch.arange(values.shape[-1], device=self.device)
    own, other = values.unsqueeze(-1), values.unsqueeze(-2)
    before = other > own if descending else other < own
    before = before | ((other == own) & (number < number[:, None]))
    place = before.to(torch.int64).sum(-1)
    order = number.expand_as(place).scatter(-1, place, number.expand_as(place))
    return values.gather(-1, order).movedim(-1, dim), order.movedim(-1, dim)


def row_by_row(run: Callable[[list[Tensor]], Sequence[Tensor]], feed: tuple[Tensor, ...]) -> list[Tensor]:
    """What a graph of one row says of all, put together."""
    said = [run([tensor[row : row + 1].contiguous() for tensor in feed]) for row in range(len(feed[0]))]
    return [torch.cat(parts) for parts in zip(*said, strict=True)]
