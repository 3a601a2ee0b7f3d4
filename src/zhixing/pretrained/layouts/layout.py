"""What a layout is: how one family of published models is named, and what it is here.

A family is a literal table of names, ours to theirs, and a few lines for what is not a copy. Tables name modules; what
follows a module's name (``.weight``, ``.bias``) is the same on both sides. ``{n}`` stands for the number of a block.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...errors import DataError, UsageError
from ..files import Files

__all__ = ["ACTIVATIONS", "Absent", "Layout", "Part", "Plan", "Role"]

Role = Literal["encoder", "decoder"]
SHOWN = 20  # names in a message
ACTIVATIONS = {  # of config.json, as FeedForward calls them
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


class Absent(Exception):  # noqa: N818
    """The files lack a tensor of this name."""


class Part(NamedTuple):
    """One of ``of`` equal parts, along the rows, of a tensor that holds several of ours."""

    name: str
    place: int
    of: int


class Plan(NamedTuple):
    """What a part of a published model is here: the encoder or decoder of this name.

    ``fixed`` are its settings that the weights decide; ``open`` those that they suggest and a user may change;
    ``column`` the column's settings, all of them fixed.
    """

    name: str
    fixed: dict[str, Any]
    open: dict[str, Any]
    column: dict[str, Any]
    suggested: dict[str, Any] = {}  # noqa: RUF012  (settings of the column that a user may change; never written to)


class Layout:
    """Base of the families. ``kinds`` are the ``model_type`` that config.json gives, ``reads`` the type of column that
    the encoder takes; ``roots`` stand before all names of some files; ``spare`` are patterns of tensors that are not
    needed; ``embeddings`` our tables whose rows are tokens; ``fresh`` our modules that published files never have."""

    kinds: ClassVar[tuple[str, ...]]
    reads: ClassVar[str] = "text"
    roots: ClassVar[tuple[str, ...]] = ()
    spare: ClassVar[tuple[str, ...]] = ()
    encoder_names: Mapping[str, str | Part] = {}
    decoder_names: Mapping[str, str | Part] = {}
    embeddings: ClassVar[tuple[str, ...]] = ("steps.embedding.weight", "embed.weight", "out.weight")
    rate: ClassVar[float] = 5e-5  # of learning, where none is given
    fresh: ClassVar[tuple[str, ...]] = (r"project\..*", r".*\.cross\..*")

    def __init__(self, files: Files) -> None:
        self.files, self.config = files, files.config
        self.theirs = {self.tidied(name): name for name in files.names()}
        self.order: NDArray[Any] | None = None  # their id of each of ours, where tokens are read
        self.language: str | None = None  # that is to be written, where several can be

    # What a family says of itself -----------------------------------------------------------------------------------

    def encoder(self) -> Plan | None:
        """What reads a column; None where the family has none."""
        return None

    def decoder(self) -> Plan | None:
        """What writes a text; None where the family has none."""
        return None

    def positions(self) -> int | None:
        """The most tokens of a text; None where there is no limit."""
        return None

    def tensor(self, role: Role, name: str, own: Tensor) -> Tensor:
        """The value of one of our tensors, by its name in the encoder or decoder; ``own`` is what it is to replace."""
        if name in self.embeddings:
            return self.rows(self.copied(role, name))
        return self.copied(role, name)

    @property
    def languages(self) -> bool:
        """Whether it writes one of several languages, as it is told."""
        return False

    def begin(self, library: Any, found: int) -> int:
        """The id that texts begin with, where ``found`` is what the tokenizer's files say; -1: none."""
        return found

    def lead(self, library: Any) -> tuple[int, ...]:
        """The ids that stand between begin and each text that is written."""
        return ()

    # What all have in common ----------------------------------------------------------------------------------------

    def tidied(self, name: str) -> str:
        """A tensor's name without what stands before it in some files; norms of old files by their new names."""
        root = next((root for root in self.roots if name.startswith(root)), "")
        name = name.removeprefix(root)
        return re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))

    def has(self, name: str) -> bool:
        return name in self.theirs

    def read(self, name: str) -> Tensor:
        if name not in self.theirs:
            raise Absent(name)
        return self.files.read(self.theirs[name])

    def table(self, role: Role) -> Mapping[str, str | Part]:
        return self.encoder_names if role == "encoder" else self.decoder_names

    def entry(self, role: Role, name: str) -> tuple[str | Part, str]:
        """What the table says of one of our tensors: an entry of the table with the block's number in it, and what
        follows the module's name."""
        for ours, theirs in self.table(role).items():
            found = re.fullmatch(pattern(ours) + r"(?P<rest>(\.\w+)?)", name)
            if found is not None:
                number = found.groupdict().get("n") or ""
                if isinstance(theirs, Part):
                    return theirs._replace(name=theirs.name.replace("{n}", number)), found["rest"]
                return theirs.replace("{n}", number), found["rest"]
        raise Absent(name)

    def copied(self, role: Role, name: str) -> Tensor:
        """The tensor that the table names."""
        theirs, rest = self.entry(role, name)
        if isinstance(theirs, Part):
            return self.read(theirs.name + rest).chunk(theirs.of)[theirs.place]
        return self.read(theirs + rest)

    def rows(self, table: Tensor) -> Tensor:
        """Vectors of tokens in the order of our ids; zero where they have none."""
        assert self.order is not None, "an encoder of tokens comes with a tokenizer"
        order = torch.from_numpy(self.order)
        if int(order.max()) >= len(table):
            raise DataError(
                f"the tokenizer has {int(order.max()) + 1} ids and the weights {len(table)} vectors: it is another's",
                place=self.files.path,
                mend="Fetch weights and tokenizer of one model.",
            )
        return torch.where(order[:, None] >= 0, table[order.clamp(min=0)], 0.0)

    def first_places(self, table: Tensor, own: Tensor) -> Tensor:
        """Vectors of the first places, as many as ours has."""
        if len(own) > len(table):
            raise UsageError(
                f"texts of up to {len(own)} tokens, and the weights know {len(table)} places",
                place=self.files.path,
                mend=f"Set the column's length to {len(table)} or less.",
            )
        return table[: len(own)]

    def fill(self, role: Role, module: nn.Module) -> None:
        """Put the weights into the encoder or decoder that the plan asked for.

        Raises:
            DataError: tensors that are missing, of another shape, or that nothing here stands for; all are named.
        """
        values: dict[str, Tensor] = {}
        missing, wrong = [], []
        for name, own in module.state_dict().items():
            if any(re.fullmatch(fresh, name) for fresh in self.fresh):
                continue
            try:
                found = self.tensor(role, name, own)
            except Absent as absent:
                missing.append(str(absent))
                continue
            if found.shape != own.shape:
                wrong.append(f"{name} is {tuple(found.shape)}, not {tuple(own.shape)}")
            values[name] = found
        unknown = [self.theirs[name] for name in self.theirs if not self.known(name)]
        for names, what in ((missing, "lack"), (wrong, "hold"), (unknown, "hold, and nothing here stands for,")):
            if names:
                more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
                raise DataError(
                    f"the weights {what} {', '.join(sorted(names)[:SHOWN])}{more}",
                    place=self.files.path,
                    mend=f"A model of type {self.config.get('model_type')} with its own config.json is wanted.",
                )
        module.load_state_dict(values, strict=False)

    def known(self, name: str) -> bool:
        """Whether one of their tensors is one that we read, or need not."""
        if any(re.fullmatch(spare, name) for spare in self.spare):
            return True
        entries = (*self.encoder_names.values(), *self.decoder_names.values())
        plain = (entry.name if isinstance(entry, Part) else entry for entry in entries)
        return any(re.fullmatch(pattern(entry) + r"(\.\w+)?", name) for entry in plain)

    def number(self, *names: str, default: int | None = None) -> int:
        """A whole number of the settings, by the first of these names that is there."""
        for name in names:
            value = self.config.get(name)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
        if default is not None:
            return default
        raise DataError(f"config.json lacks the number {names[0]}", place=self.files.path, mend="Fetch it again.")

    def activation(self, *names: str) -> str:
        """The function of the feed-forward part, in our words."""
        word = next((self.config[name] for name in names if name in self.config), None)
        if word not in ACTIVATIONS:
            raise UsageError(
                f"the activation {word!r} is not known here",
                place=self.files.path,
                mend=f"Known: {', '.join(ACTIVATIONS)}.",
            )
        return ACTIVATIONS[word]


def pattern(name: str) -> str:
    return re.escape(name).replace(r"\{n\}", r"(?P<n>\d+)")
