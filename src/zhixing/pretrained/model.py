"""A published model, opened: what it is here, its tokenizer, its weights."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from ..columns.tokenizer_published import Published
from ..errors import DataError, UsageError
from .files import Files, local, open_files
from .layouts import Plan, Role, layout_of
from .tokenizer import read_tokenizer

__all__ = ["PublishedModel", "open_model"]

HASHES: dict[tuple[Any, ...], str] = {}  # of files as they were when they were last hashed in this process


class PublishedModel:
    """A model's files, with their layout.

    Example::

        model = open_model("./minilm")
        plan = model.plan("encoder")
        encoder = ENCODERS[plan.name](column.spec(), **plan.fixed)
        model.fill("encoder", encoder)
    """

    def __init__(self, source: str, files: Files) -> None:
        self.source, self.files = source, files
        self.layout = layout_of(files)

    @cached_property
    def tokenizer(self) -> Published:
        """The tokenizer that belongs to the weights; the reader's, where there are two."""
        return self.tokenizer_of("encoder")

    def tokenizer_of(self, role: Role) -> Published:
        """The tokenizer of what is read or written, which in some families are two under the same ids."""
        return read_tokenizer(self.layout, role)

    @property
    def rate(self) -> float:
        """Of learning, where none is given."""
        return self.layout.rate

    def plan(self, role: Role) -> Plan:
        """The encoder or decoder that it is here.

        Raises:
            UsageError: it has none.
            DataError: its settings speak of sizes that its tensors do not have.
        """
        plan = self.layout.encoder() if role == "encoder" else self.layout.decoder()
        if plan is None:
            other = "decoder" if role == "encoder" else "encoder"
            raise UsageError(
                f"a model of type {self.files.config['model_type']} has no {role}",
                place=self.source,
                mend=f"Use it as the {other} of a column.",
            )
        self.check_sizes(plan.fixed)
        return plan

    def check_sizes(self, fixed: Mapping[str, Any]) -> None:
        """Hold the settings against the tensors, before a damaged number has memory set aside for it."""
        shapes = [self.files.shape(name) for name in self.files.names()]
        there = {size for shape in shapes for size in shape}
        most = max(len(shapes), *there, 1)
        for name, value in fixed.items():
            if not isinstance(value, int) or isinstance(value, bool):
                continue
            if value not in there if name in ("width", "hidden") else not 0 <= value <= most:
                raise DataError(
                    f"its settings say {name} {value:,}, and none of its {len(shapes)} tensors is of such a size",
                    place=self.source,
                    mend="Fetch settings and weights again, both of one model.",
                )

    def fill(self, role: Role, module: nn.Module) -> None:
        """Put the weights into the encoder or decoder that the plan describes.

        Raises:
            DataError: weights are missing, of another shape, or not known.
        """
        if self.plan(role).column.get("tokenizer"):
            self.layout.order = self.tokenizer.order
        self.layout.fill(role, module)

    def sha256(self) -> str:
        """Of the content of its files; counted once in a process as long as they stay the same."""
        stats = [(path, path.stat()) for path in self.files.parts()]
        key = tuple((str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats)
        if key not in HASHES:
            HASHES[key] = self.files.sha256()
        return HASHES[key]


def open_model(source: str | Path, *, allow_pickle: bool = False) -> PublishedModel:
    """Open a model's folder, its GGUF file, or its name on the hub.

    Raises:
        UsageError: there is nothing of that name, or it is no model that is known here.
        DataError: a file is damaged, missing, or one that can run code.
    """
    return PublishedModel(str(source), open_files(local(str(source)), allow_pickle=allow_pickle))
