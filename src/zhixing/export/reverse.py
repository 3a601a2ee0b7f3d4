"""A layout's table of names, read backwards: our tensors in the names and forms of published files.

A layout says how each of our tensors is made of theirs: copied, cut, turned, put in another order, multiplied by a
number. All of that is linear, with no more than one of their numbers in each of ours; so its gradient leads back, and
no family needs a second set of rules. Of a table that has fewer rows here (places, tokens) the others stay as they
were.

Where several of our tensors are one of theirs (words that are read, written and scored), training may have led them
apart: they are then tables of their own, as in published models whose settings say ``tie_word_embeddings: false``.
So too where one of their tokens is two of ours: in GPT-2 the same one begins and ends a text, here one is read and the
other scored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..columns.vocabulary import BEGIN, END, SPECIAL, UNKNOWN
from ..pretrained.layouts.layout import Absent, Layout, Part, Role

__all__ = ["Reversed", "reversed_tensors"]

APART = 1e-6  # of a table's largest number; less is the rounding of what was multiplied there and back
OWN_TABLES = {
    "steps.embedding.weight": "encoder.embed_tokens.weight",
    "embed.weight": "decoder.embed_tokens.weight",
    "out.weight": "lm_head.weight",
}
SCORES = {"whisper": "proj_out.weight"}  # by model_type, where it is not lm_head
# Special tokens that are read, or scored, by what holds them. Of those that are one token there, the last is scored.
EVERY = (UNKNOWN, BEGIN, END)
LIVE = {
    "steps.embedding.weight": EVERY, "embed.weight": (UNKNOWN, BEGIN), "out.weight": EVERY, "out.bias": EVERY,
    "score_bias": EVERY,
}  # fmt: skip
# Of places that files leave out, since a formula gives them; training moves them all the same.
COMPUTED = {"blocks.positions.table.weight": "encoder.embed_positions.weight"}


class Reversed(NamedTuple):
    """Their tensors, by the names of the layout; ``untied``: tables of words that were one there are several now."""

    tensors: dict[str, Tensor]
    untied: bool


class Trace(NamedTuple):
    """One of ours in one of theirs: by how much each of its numbers is to change, times the square of what it is
    multiplied by; and that square, 0 where it is not read."""

    change: Tensor
    size: Tensor


class Leaves:
    """A model's files whose tensors know what is made of them; the ``raised`` one has one added to each number."""

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


def reversed_tensors(layout: Layout, roles: dict[Role, nn.Module]) -> Reversed:
    """Their tensors as our modules have them now; and those that are read beside them, as they are."""
    new: dict[str, Tensor] = {}
    traces: dict[str, dict[str, Trace]] = {}  # by their name, then by what of ours it is
    used: set[str] = set()
    for role, module in roles.items():
        state = module.state_dict()
        for name, own in state.items():
            if any(re.fullmatch(fresh, name) for fresh in layout.fresh):
                continue
            with followed(layout) as leaves:
                found = layout.tensor(role, name, own)
                used |= set(leaves.leaves)
                if not leaves.leaves:
                    new |= computed(layout, role, name, own)
                elif found.requires_grad:
                    whole = main_of(layout, leaves, role, name)
                    for use in (
                        (name, "out.weight") if name == "embed.weight" and "out.weight" not in state else (name,)
                    ):
                        kept = live_rows(layout, use)
                        trace = traced(layout, leaves, role, name, own, found, whole, kept)
                        traces.setdefault(whole, {})[use] = trace
                else:
                    new[main_of(layout, leaves, role, name)] = own
    apart = dict[str, Tensor]()
    for whole, several in traces.items():
        old = layout.files.read(whole).double()
        new[whole] = changed(old, several.values()).float()
        if len(several) > 1:
            apart |= tables_apart(layout, whole, old, several, new[whole])
    for name in used - set(new):
        new[name] = layout.files.read(name)
    tensors = {layout.tidied(name): tensor for name, tensor in new.items()} | apart
    return Reversed({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, bool(apart))


def live_rows(layout: Layout, use: str) -> Tensor | None:
    """Which rows of a table of words count: not a special one of no use there, if what it is among theirs is another
    of ours too."""
    if use not in LIVE or layout.order is None:
        return None
    kept, theirs = torch.ones(len(layout.order), dtype=torch.bool), layout.order[: len(SPECIAL)].tolist()
    for token, one in enumerate(theirs):
        before = [live for live in LIVE[use] if live > token or token not in LIVE[use]]
        kept[token] = one not in [theirs[live] for live in before]
    return kept


def traced(
    layout: Layout,
    leaves: Leaves,
    role: Role,
    name: str,
    own: Tensor,
    found: Tensor,
    whole: str,
    kept: Tensor | None,
) -> Trace:
    """How one of ours, of which some rows are ``kept``, goes back into theirs called ``whole``, of which ``found`` was
    made."""
    leaves.raised = whole
    factor = layout.tensor(role, name, own).detach() - found.detach()
    leaves.raised = ""
    counts = torch.ones(()) if kept is None else kept.reshape(-1, *[1] * (own.ndim - 1))
    sides = ((own.double() - found.detach()) * counts, factor * counts)
    leaf = leaves.leaves[whole]
    return Trace(*(torch.autograd.grad(found, leaf, side, retain_graph=True)[0] for side in sides))


def changed(old: Tensor, traces: Iterable[Trace]) -> Tensor:
    """What was read, with all that several of ours say of it: their mean, where they speak of the same numbers."""
    change, size = torch.zeros_like(old), torch.zeros_like(old)
    for trace in traces:
        change, size = change + trace.change, size + trace.size
    return old + torch.where(size > 0, change / size.clamp(min=1e-30), 0.0)


def tables_apart(layout: Layout, whole: str, old: Tensor, traces: dict[str, Trace], mean: Tensor) -> dict[str, Tensor]:
    """Each of several tables of words under a name of its own, if they are no longer the same."""
    each = {name: changed(old, [trace]) for name, trace in traces.items()}
    worst = max(float(((each[name] - mean) * (trace.size > 0)).abs().max()) for name, trace in traces.items())
    if worst <= APART * float(mean.abs().max()):
        return {}
    kind = str(layout.config.get("model_type"))
    names = OWN_TABLES | {"out.weight": SCORES.get(kind, OWN_TABLES["out.weight"])}
    if not layout.config.get("is_encoder_decoder"):
        names["embed.weight"] = layout.tidied(whole)
    return {names[name]: table.float() for name, table in each.items()}


def computed(layout: Layout, role: Role, name: str, own: Tensor) -> dict[str, Tensor]:
    """What no file holds: places that training has moved, at the head of as many as the model knows. Whatever else
    there is (Whisper's biases of keys) changes nothing, and has no name there."""
    most = layout.positions()
    if name not in COMPUTED or most is None:
        return {}
    table = layout.tensor(role, name, own.new_empty(most, own.shape[1]))
    if float((table[: len(own)] - own).abs().max()) <= APART:
        return {}
    return {COMPUTED[name]: torch.cat([own.float(), table[len(own) :]])}


def main_of(layout: Layout, leaves: Leaves, role: Role, name: str) -> str:
    """The whole name of their tensor that the table names, or the only one that is read."""
    try:
        theirs, rest = layout.entry(role, name)
        return layout.theirs[(theirs.name if isinstance(theirs, Part) else theirs) + rest]
    except (Absent, KeyError):
        (only,) = leaves.leaves
        return only
