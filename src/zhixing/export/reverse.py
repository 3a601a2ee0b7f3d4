"""A layout's table of names, read backwards: our tensors in the names and forms of published files.

A layout says how each of our tensors is made of theirs: copied, cut, turned, put in another order, multiplied by a
number. All of that is linear, with no more than one of their numbers in each of ours; so its gradient leads back, and
no family needs a second set of rules. Of a table that has fewer rows here (places, tokens) the others stay as they
were. Where two of our tensors are one of theirs, that one becomes their mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..pretrained.layouts.layout import Absent, Layout, Part, Role

__all__ = ["reversed_tensors"]


class Leaves:
    """A model's files whose tensors know what is made of them; ``raised`` ones have one added to each number."""

    def __init__(self, files: Any) -> None:
        self.files, self.leaves, self.raised = files, dict[str, Tensor](), ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.files, name)

    def read(self, name: str) -> Tensor:
        if name not in self.leaves:
            found = self.files.read(name)
            self.leaves[name] = found.double().requires_grad_() if found.is_floating_point() else found
        return self.leaves[name] + 1 if name == self.raised else self.leaves[name]


@contextmanager
def followed(layout: Layout) -> Iterator[Leaves]:
    leaves = Leaves(layout.files)
    layout.files = leaves  # type: ignore[assignment]
    try:
        yield leaves
    finally:
        layout.files = leaves.files


def reversed_tensors(layout: Layout, roles: dict[Role, nn.Module]) -> dict[str, Tensor]:
    """Their tensors, by their names, as our modules have them now; and those that are read beside them, as they are."""
    new: dict[str, Tensor] = {}
    moved: dict[str, tuple[Tensor, Tensor]] = {}
    used: set[str] = set()
    for role, module in roles.items():
        for name, own in module.state_dict().items():
            if any(re.fullmatch(fresh, name) for fresh in layout.fresh):
                continue
            with followed(layout) as leaves:
                whole, change, size = traced(layout, leaves, role, name, own)
                used |= set(leaves.leaves)
            if change is None or size is None:
                new[whole] = own
                continue
            before = moved.get(whole, (torch.zeros_like(change), torch.zeros_like(size)))
            moved[whole] = (before[0] + change, before[1] + size)
    for name, (change, size) in moved.items():
        old = layout.files.read(name)
        new[name] = (old.double() + torch.where(size > 0, change / size.clamp(min=1e-30), 0.0)).float()
    for name in used - set(new):
        new[name] = layout.files.read(name)
    return {name: tensor.detach().contiguous() for name, tensor in new.items()}


def traced(
    layout: Layout, leaves: Leaves, role: Role, name: str, own: Tensor
) -> tuple[str, Tensor | None, Tensor | None]:
    """Their tensor that one of ours is made of; by how much each of its numbers is to change, times the square of what
    it is multiplied by; and that square."""
    found = layout.tensor(role, name, own)
    whole = main_of(layout, leaves, role, name)
    if not found.requires_grad:
        return whole, None, None
    leaf = leaves.leaves[whole]
    leaves.raised = whole
    factor = layout.tensor(role, name, own).detach() - found.detach()
    leaves.raised = ""
    change, size = (
        torch.autograd.grad(found, leaf, given, retain_graph=True)[0]
        for given in (own.double() - found.detach(), factor)
    )
    return whole, change, size


def main_of(layout: Layout, leaves: Leaves, role: Role, name: str) -> str:
    """The whole name of their tensor that the table names, or the only one that is read."""
    try:
        theirs, rest = layout.entry(role, name)
        return layout.theirs[(theirs.name if isinstance(theirs, Part) else theirs) + rest]
    except (Absent, KeyError):
        (only,) = leaves.leaves
        return only
