"""What every column type does: learn from training rows, become tensors, and come back."""

from __future__ import annotations

import math
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import DataError
from ..randomness import uniform

__all__ = ["Claim", "Column", "Finding", "Ragged", "Spec", "Stem", "Tensorized", "Wire"]

Locate = Callable[[str], Path]


@dataclass(frozen=True)
class Spec:
    """What a column's values look like to an encoder.

    ========= ======================= ===========================================
    kind      values                  shape, vocabulary
    ========= ======================= ===========================================
    image     [B, C, H, W] float      (C, H, W)
    vector    [B, F] float            (F,)
    ids       [B] int64               (), number of ids
    tokens    [B, T] int64            (T,), T the most tokens of a row; number of ids
    sequence  [B, T, F] float         (T, F), T the most steps of a row
    ========= ======================= ===========================================

    Tokens and sequences come with a mask [B, T], True where a step is real; what stands in other steps means nothing.
    Rows of a batch are padded to the longest of them, which may be far shorter than the T that is stated. The token 0
    is padding in every vocabulary and never stands in a row.
    """

    kind: str
    shape: tuple[int, ...] = ()
    vocabulary: int = 0


@dataclass(frozen=True)
class Claim:
    """How well a column type fits some values, from 0 to 1, and why, in words for a person."""

    score: float
    reason: str


@dataclass(frozen=True)
class Finding:
    """What is wrong with one cell.

    ``broken`` cells cannot be read; ``unseen`` ones hold a class that no training row has; ``suspect`` ones were
    read but may not be what was meant.
    """

    index: int
    reason: str
    kind: Literal["broken", "unseen", "suspect"] = "broken"


@dataclass
class Tensorized:
    """A run of cells as one array, [N, ...]; ``present`` [N] is False where a cell is empty or cannot be used.

    Cells of unequal length lie behind each other: ``values`` [S, ...] has a step for each of theirs, and ``lengths``
    [N] says how many are whose, 0 where a cell is not present. Ids are then int32 here and int64 in a batch.

    ``sums`` [N, K] is what :meth:`Column.calibrate` needs of each row, where it would else read all values again.
    """

    values: NDArray[Any]
    present: NDArray[np.bool_]
    findings: list[Finding] = field(default_factory=list)
    sums: NDArray[np.int64] | None = None
    lengths: NDArray[np.int64] | None = None


class Wire(NamedTuple):
    """How one cell stands in a request, as JSON.

    ``cell`` is a type that pydantic reads in strict mode, with the bounds that are kept to; what it gives is what
    :meth:`Column.tensorize` takes. ``facts`` is what a form for such cells has to know.
    """

    cell: Any
    example: Any
    facts: dict[str, Any]


class Ragged(NamedTuple):
    """Stored cells of unequal length: row ``i`` is ``values[offsets[i] : offsets[i + 1]]``; ``offsets`` [N + 1]."""

    values: Tensor
    offsets: NDArray[np.int64]

    def lengths_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.offsets[rows + 1] - self.offsets[rows]

    def row(self, row: int) -> Tensor:
        return self.values[self.offsets[row] : self.offsets[row + 1]]


Stored = Tensor | Ragged  # a column's tensors of all rows


class Stem(nn.Module):
    """The step from stored tensors to what an encoder takes: values and mask to values and mask.

    This one, for columns whose tensors are stored ready to use, changes nothing.
    """

    def forward(self, values: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        return values, mask


class Column(ABC):
    """Base of the column types.

    The keyword-only parameters of ``__init__`` are the settings in a recipe. Life of a column: ``fit`` on the training
    rows' cells, ``tensorize`` on all cells (run by run, in parallel, stored once), ``calibrate`` on the training rows'
    stored tensors; afterwards ``state()`` says all that was learned, as JSON, and ``load_state`` takes it back.
    """

    type: ClassVar[str]
    kind: ClassVar[str]  # the kind of Spec that it gives
    role: Literal["input", "output"] = "input"
    known: bool = False  # whether its state came with weights that are a start: then there is nothing to fit

    @property
    def chunk(self) -> int:
        """How many rows are tensorized at a time: no more than a few megabytes of result."""
        return 65536

    @classmethod
    @abstractmethod
    def claims(cls, values: pa.ChunkedArray, name: str) -> Claim | None:
        """Whether these values look like this type."""

    @abstractmethod
    def fit(self, values: pa.ChunkedArray, locate: Locate) -> None:
        """Learn from the cells of training rows."""

    @abstractmethod
    def tensorize(self, values: pa.Array, locate: Locate) -> Tensorized:
        """Cells to one array. Never raises for a bad cell: it is a finding, and its place holds zeros."""

    def calibrate(self, stored: Stored, rows: NDArray[np.int64], sums: NDArray[np.int64] | None = None) -> None:
        """Learn from the stored tensors of training rows. Most types have nothing left to learn.

        ``sums`` [N, K], where given, are those of :class:`Tensorized` for all rows: the tensors need not be read.
        """

    def stored_as(self) -> dict[str, Any]:
        """All that the stored tensors depend on beside the cells: settings and what was learned, as JSON."""
        return {"settings": self.settings(), "state": self.state()}

    def files(self, values: pa.Array, locate: Locate) -> bytes:
        """What tells whether files that cells point to have changed since: nothing for cells that hold their value."""
        return b""

    def place(self, cell: Any, locate: Locate) -> str | None:
        """Where a person finds this cell, when that is somewhere else than its row."""
        return None

    @abstractmethod
    def spec(self) -> Spec:
        """What an encoder of this column gets."""

    def steps_of(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many steps an encoder gets of rows of these stored lengths."""
        return lengths

    def stem(self) -> Stem:
        """The step from stored tensors to what an encoder takes, on the device and inside the model."""
        return Stem()

    def blank(self, rows: int) -> tuple[Tensor, Tensor | None]:
        """Values and mask of rows that say nothing, in the stored form as a batch has it, of the full length.

        For counting and for trying out, where no data are at hand.
        """
        spec = self.spec()
        mask = torch.ones(rows, spec.shape[0], dtype=torch.bool) if spec.kind in ("tokens", "sequence") else None
        kind = {"image": torch.uint8, "ids": torch.int64, "tokens": torch.int64}.get(spec.kind, torch.float32)
        return torch.full((rows, *spec.shape), spec.kind == "tokens", dtype=kind), mask

    @abstractmethod
    def restore(self, values: Tensor) -> list[Any]:
        """Stored tensors [N, …] back to cells, as nearly as they can be; ids that are 0 are padding."""

    def show(self, value: Tensor) -> dict[str, str]:
        """One stored tensor for a person to look at: ``{"text": …}`` or ``{"picture": data URI}``."""
        cell = self.restore(value[None])[0]
        return {"text": "" if cell is None else str(cell)}

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The settings with everything that was left open now resolved."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """All that was learned, as JSON."""

    @abstractmethod
    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` gave."""

    @abstractmethod
    def wire(self) -> Wire:
        """How a cell of this column, fitted, stands in a request."""

    def bound(self, *, pixels: int, seconds: float) -> None:
        """Refuse larger pictures and longer sounds than these from now on, before they are decoded."""

    def summary(self) -> dict[str, Any]:
        """A few facts for a person."""
        return {}


def files_of(values: pa.Array, locate: Locate) -> bytes:
    """What tells whether the files that cells name have changed: sizes, times, and which files they are.

    Cells are paths, or structs with a ``path``; whether a struct has its bytes in it stands in the cell.
    """
    if is_text(values.type):
        paths = values.to_pylist()
    elif pa.types.is_struct(values.type) and "path" in values.type.names:
        paths = values.field("path").to_pylist()
    else:
        return b""
    seen = []
    for path in paths:
        try:
            # Size and time alone are often the same in two folders unpacked from one archive.
            about = os.stat(locate(path or ""))
            seen.append(f"{about.st_size}:{about.st_mtime_ns}:{about.st_ctime_ns}:{about.st_ino}")
        except (DataError, OSError, ValueError):
            seen.append("missing")
    return ",".join(seen).encode()


def path_of(cell: Any, locate: Locate) -> str | None:
    """The file that a cell names, if it names one."""
    cell = cell.get("path") if isinstance(cell, dict) else cell
    try:
        return str(locate(cell)) if isinstance(cell, str) and cell else None
    except DataError:
        return None


def existing_file(cell: str, locate: Locate) -> Path:
    """The file that a cell names, which is there and holds something. Raises ValueError."""
    path = locate(cell)
    try:
        about = os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise ValueError(f"the file is missing: {path}") from error
    if stat.S_ISDIR(about.st_mode):
        raise ValueError(f"a folder, not a file: {path}")
    if not stat.S_ISREG(about.st_mode):
        raise ValueError(f"no file but a device or a pipe: {path}")
    if about.st_size == 0:
        raise ValueError("the file is empty")
    return path


def sample(values: pa.ChunkedArray, most: int = 1000) -> list[Any]:
    """Some non-empty cells: one, drawn at random, from each of ``most`` equal stretches of the column.

    Every so-many-th cell would not do: in a table whose classes take turns, those may all be of one class.
    """
    if len(values) > most:
        places = (np.arange(most) + uniform(most, "sample")) * len(values) / most
        values = values.take(pa.array(places.astype(np.int64)))
    return [
        cell for cell in values.to_pylist() if cell is not None and not (isinstance(cell, str) and not cell.strip())
    ]


def whole(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The cells as one array."""
    if not isinstance(values, pa.ChunkedArray):
        return values
    if values.num_chunks == 1:
        return values.chunk(0)
    if not values.num_chunks and isinstance(values.type, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(values.type, pa.array([], values.type.storage_type))
    return values.combine_chunks()


def text_of(values: pa.Array) -> tuple[pa.Array, list[Finding]]:
    """Cells of bytes as strings; empty, with a finding, where they are not UTF-8."""
    try:
        return pc.cast(values, pa.string()), []
    except pa.ArrowInvalid:
        cells, findings = values.to_pylist(), []
    for index, cell in enumerate(cells):
        try:
            cells[index] = None if cell is None else cell.decode()
        except UnicodeDecodeError:
            cells[index] = None
            findings.append(Finding(index, f"not UTF-8: {shorten(cell)}"))
    return pa.array(cells, pa.string()), findings


def is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def shorten(value: object, most: int = 60) -> str:
    """A value as it appears in a message."""
    text = repr(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def natural_order(words: Sequence[str]) -> list[str]:
    """Numbers by value, then everything else by code point: the same on any machine and in any locale."""

    def key(word: str) -> tuple[int, float, str]:
        try:
            number = float(word)
        except ValueError:
            number = math.nan
        return (0, number, word) if math.isfinite(number) else (1, 0.0, word)

    return sorted(words, key=key)
