"""A model's answer to a batch, as a function of what its encoders see.

Numbers, pictures and sequences are seen as they leave their stems, standardised; tokens and classes as the vectors that
stand for them. Each can be put in the place of another, so that any explanation works on any encoder.

Shape legend: B rows of the batch, N rows that are tried, T steps, D width of a vector, F features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..columns import Column
from ..columns.column import Spec
from ..data.batches import Batch
from ..errors import UsageError
from ..model import Model
from ..models.encoding import Encoding
from .context import before, next_token, spoken
from .goals import Ask, Goal, goal_of

__all__ = ["Entry", "NotApplicableError", "Subject", "differentiable"]

PORTION, NUMBERS = 256, 2**21  # most rows that are tried at a time, and most numbers in their points


class NotApplicableError(UsageError):
    """A method that has nothing to work on in this model."""


@dataclass(frozen=True)
class Entry:
    """One input column on its way into the model.

    ``values`` and ``mask`` are what its encoder takes. ``point`` [B, …] is what can be moved: the same values, or the
    vectors that are looked up for them in ``table``. ``baseline`` says nothing: zeros, which after standardisation are
    the mean; the vector of padding for tokens; that of an empty cell for a class.

    An attribution has a number for each *cell*: [B, C, H, W] of a picture, [B, F] of numbers, [B, 1] of a class,
    [B, T] of tokens, [B, T, F] of a sequence; zero wherever no step is real.
    """

    name: str
    column: Column
    spec: Spec
    encoder: Any  # an Encoder, or a module of one's own that gives an Encoding
    table: nn.Embedding | None
    values: Tensor
    mask: Tensor | None
    point: Tensor
    baseline: Tensor

    def encode(self, point: Tensor, rows: Tensor | None = None) -> Encoding:
        """The encodings of rows whose values are replaced by ``point`` [N, …]."""
        mask = self.mask if self.mask is None or rows is None else self.mask[rows]
        values = point if self.table is None else self.values if rows is None else self.values[rows]
        with nullcontext() if self.table is None else replaced(self.table, point):
            out: Encoding = self.encoder(values, mask)
        return out

    def cells(self, attribution: Tensor) -> Tensor:
        """An attribution in the shape of ``point`` as one of cells."""
        if self.spec.kind == "tokens":
            attribution = attribution.sum(-1)
        elif self.spec.kind == "ids":
            attribution = attribution.sum(-1, keepdim=True)
        return self.real_alone(attribution)

    def real_alone(self, cells: Tensor) -> Tensor:
        if self.mask is None:
            return cells
        return cells.masked_fill(~self.mask.view(*self.mask.shape, *[1] * (cells.ndim - 2)), 0.0)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the cells of a row."""
        kind = self.spec.kind
        return (1,) if kind == "ids" else tuple(self.point.shape[1:2] if kind == "tokens" else self.point.shape[1:])

    @property
    def real(self) -> Tensor:
        """Which cells mean something, [B, …]."""
        return self.real_alone(torch.ones(len(self.point), *self.shape, device=self.point.device)) > 0

    def kept(self, keep: Tensor | None, rows: Tensor) -> Tensor:
        """The points of ``rows`` [N], with cells outside ``keep`` [N, …] at the baseline; None keeps all."""
        point = self.point[rows]
        if keep is None:
            return point
        if self.spec.kind == "tokens":
            keep = keep.unsqueeze(-1)
        return torch.where(keep, point, self.baseline[rows])


class Subject:
    """What is explained: ``model``'s ``output`` for a batch.

    Raises:
        UsageError: a class or step that the output has not.

    Example::

        subject = Subject(run.model, run.fitted, batch, "label")
        scores = subject.score(subject.points)          # [B], the logits of the predicted classes
    """

    def __init__(
        self, model: Model, columns: Mapping[str, Column], batch: Batch, output: str, ask: Ask | None = None
    ) -> None:
        assert not model.training, "explanations are of a model in evaluation mode"
        self.model, self.output, self.size = model, output, len(batch)
        self.device = batch.rows.device
        self.goal: Goal
        with torch.no_grad():
            if model.inputs:
                self.entries = self.enter(columns, batch)
                self.goal = goal_of(model.head(output), columns[output], self.encode(self.points), ask or Ask())
            else:
                self.read_own_text(columns[output], batch, ask or Ask())

    def enter(self, columns: Mapping[str, Column], batch: Batch) -> list[Entry]:
        parts = zip(self.model.inputs, self.model.stems, self.model.encoders, strict=True)
        out = []
        for name, stem, encoder in parts:
            values, mask = stem(*batch.columns[name])
            encoder = spoken(encoder, self.model.head(self.output))
            out.append(entry_of(name, columns[name], encoder, values, mask))
        return out

    def read_own_text(self, column: Column, batch: Batch, ask: Ask) -> None:
        """Of a language model: the token that comes next, and the text before it."""
        head, values = self.model.head(self.output), batch.columns[self.output].values
        encoder, values, mask, there = before(head, values, ask.step)
        self.entries = [entry_of(self.output, column, encoder, values, mask)]
        self.goal = next_token(head, column, self.encode(self.points), ask, there)

    @property
    def points(self) -> list[Tensor]:
        return [entry.point for entry in self.entries]

    @property
    def baselines(self) -> list[Tensor]:
        return [entry.baseline for entry in self.entries]

    def encode(self, points: Sequence[Tensor], rows: Tensor | None = None) -> Encoding:
        """The joined encoding of rows whose inputs are these, one tensor a column."""
        encodings = [entry.encode(point, rows) for entry, point in zip(self.entries, points, strict=True)]
        if self.model.passes or not self.model.inputs:
            return encodings[0]
        out: Encoding = self.model.fusion(encodings)
        return out

    def score(self, points: Sequence[Tensor], rows: Tensor | None = None) -> Tensor:
        """The number that is explained, [N], of rows whose inputs are these."""
        return self.goal.score(self.encode(points, rows), rows)

    def gradient(self, points: Sequence[Tensor], rows: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """The scores [N], and their slopes in the shape of the points."""
        with differentiable(self.model):
            free = [point.detach().requires_grad_() for point in points]
            scores = self.score(free, rows)
            slopes = torch.autograd.grad(scores.sum(), free, allow_unused=True)
        found = [torch.zeros_like(x) if slope is None else slope for x, slope in zip(free, slopes, strict=True)]
        return scores.detach(), found

    def kept(self, keeps: Sequence[Tensor | None], rows: Tensor, *, probability: bool = False) -> Tensor:
        """The scores of ``rows`` [N] where only the cells in ``keeps`` (one a column, [N, …]) are left."""
        with torch.no_grad():
            points = [entry.kept(keep, rows) for entry, keep in zip(self.entries, keeps, strict=True)]
            read = self.goal.probability if probability else self.goal.score
            return read(self.encode(points, rows), rows)

    def only(self, number: int, keep: Tensor, rows: Tensor) -> Tensor:
        """The same where one column loses cells and the others stay as they are."""
        keeps: list[Tensor | None] = [None] * len(self.entries)
        keeps[number] = keep
        return self.kept(keeps, rows)

    def portions(self, rows: int, trials: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Each of ``rows`` with each of ``trials``, as many pairs at a time as fit: the numbers of both, row by row."""
        size = sum(point[0].numel() for point in self.points)
        most = max(1, min(PORTION, NUMBERS // max(1, size)))
        for start in range(0, rows * trials, most):
            pair = torch.arange(start, min(start + most, rows * trials), device=self.device)
            yield pair // trials, pair % trials


def entry_of(name: str, column: Column, encoder: Any, values: Tensor, mask: Tensor | None) -> Entry:
    """What can be moved of one column's values."""
    spec = column.spec()
    if spec.kind not in ("tokens", "ids"):
        point = values.float()
        if mask is not None:
            point = point.masked_fill(~mask.view(*mask.shape, *[1] * (point.ndim - 2)), 0.0)
        return Entry(name, column, spec, encoder, None, values, mask, point, torch.zeros_like(point))
    if spec.kind == "tokens" and mask is None:
        mask = values != 0
    table = table_of(encoder, spec)
    if table is None:
        raise NotApplicableError(
            f"the encoder of {name!r} ({type(encoder).__name__}) looks its {spec.vocabulary} ids up in no table",
            mend="Explanations move the vectors of an nn.Embedding with a row for each id.",
        )
    point = looked_up(table, encoder, values, mask)
    nothing = table.weight[0 if spec.kind == "tokens" else spec.vocabulary - 1].detach()
    baseline = nothing.to(point.dtype).expand_as(point).clone()
    entry = Entry(name, column, spec, encoder, table, values, mask, point, baseline)
    if mask is None:
        return entry
    return replace(entry, point=torch.where(mask.unsqueeze(-1), point, baseline))


def table_of(encoder: Any, spec: Spec) -> nn.Embedding | None:
    """The table in which an encoder looks its ids up."""
    own = getattr(encoder, "item_embedding", None)
    if isinstance(own, nn.Embedding):
        return own
    tables = (module for module in encoder.modules() if isinstance(module, nn.Embedding))
    return next((table for table in tables if table.num_embeddings == spec.vocabulary), None)


def looked_up(table: nn.Embedding, encoder: nn.Module, values: Tensor, mask: Tensor | None) -> Tensor:
    """The vectors that an encoder looks up for its values."""
    seen: list[Tensor] = []
    handle = table.register_forward_hook(lambda module, given, out: seen.append(out.detach()))
    try:
        encoder(values, mask)
    finally:
        handle.remove()
    if not seen or seen[0].shape[:-1] != values.shape:
        found = "nothing" if not seen else f"vectors of shape {tuple(seen[0].shape)}"
        raise NotApplicableError(f"{type(encoder).__name__} looks up {found} for ids of shape {tuple(values.shape)}")
    return seen[0].float()


@contextmanager
def replaced(table: nn.Embedding, vectors: Tensor) -> Iterator[None]:
    """Whatever is looked up in a table is these vectors."""
    handle = table.register_forward_hook(lambda module, given, out: vectors.to(out.dtype))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Gradients, also of recurrent layers in evaluation mode, which cuDNN's kernels refuse."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext():
        yield
