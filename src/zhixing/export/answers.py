"""From what a head predicts to what stands in a graph's outputs: probabilities, and numbers in their own units.

Shape legend: B rows, T tokens, C classes, K quantities, Q quantiles, H steps, F features.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..calibration import Calibration
from ..calibration.outputs import Classes
from ..columns import Column
from ..columns.number import KNOTS, Number
from ..columns.series import Series
from ..errors import UsageError
from ..heads import CategoryHead, Head, LabelsHead, NumberHead, SeriesHead, TagsHead, TextHead
from ..heads.decoders import CTC

__all__ = ["ANSWERS", "Answer", "Output", "answer_of", "largest"]


class Output(NamedTuple):
    """One output of a graph: the end of its name, its ``kind`` for a reader, the names of axes that follow the rows
    and are of unequal length, and what else a reader is to know."""

    suffix: str
    kind: str
    axes: tuple[str, ...] = ()
    facts: Mapping[str, Any] = {}


class Answer(nn.Module):
    """Base of the ends of a graph: ``forward`` takes a head's prediction and gives a tensor for each of ``outputs``."""

    outputs: tuple[Output, ...]

    def forward(self, prediction: Tensor) -> tuple[Tensor, ...]:
        raise AssertionError(f"{type(self).__name__} has no forward")

    def differences(self, wanted: Sequence[Tensor], got: Sequence[Tensor]) -> list[float]:
        """How far another runtime's tensors are from these at most, by output."""
        return [largest(one.double() - other.double()) for one, other in zip(wanted, got, strict=True)]


def largest(apart: Tensor) -> float:
    """The largest difference; infinite where one of the two is no number."""
    return float(apart.abs().nan_to_num(float("inf"), float("inf")).max()) if apart.numel() else 0.0


class Probabilities(Answer):
    """Of each class, [B, C], or of each class of each token, [B, T, 1 + C], where the first is that of padding."""

    def __init__(self, head: Head, column: Column, calibration: Calibration | None) -> None:
        super().__init__()
        tokens = isinstance(head, LabelsHead)
        self.temperature = calibration.temperature if isinstance(calibration, Classes) else 1.0
        self.outputs = (Output("", "token_probabilities" if tokens else "probabilities", ("step",) * tokens),)

    def forward(self, prediction: Tensor) -> tuple[Tensor, ...]:
        return ((prediction / self.temperature).softmax(-1),)


class Chances(Answer):
    """Of each label by itself, [B, C]."""

    def __init__(self, head: TagsHead, column: Column, calibration: Calibration | None) -> None:
        super().__init__()
        self.outputs = (Output("", "chances", facts={"threshold": head.threshold}),)

    def forward(self, prediction: Tensor) -> tuple[Tensor, ...]:
        return (prediction.sigmoid(),)


class Alignment(Answer):
    """Of each token at each step of the input, [B, S, V], logarithms: see :class:`zhixing.heads.decoders.CTC`."""

    outputs = (Output("", "alignment", ("step",)),)

    def __init__(self, head: TextHead, column: Column, calibration: Calibration | None) -> None:
        super().__init__()

    def forward(self, prediction: Tensor) -> tuple[Tensor, ...]:
        return (prediction,)

    def differences(self, wanted: Sequence[Tensor], got: Sequence[Tensor]) -> list[float]:
        return super().differences([wanted[0].exp()], [got[0].exp()])


class Units(nn.Module):
    """Standardised numbers [..., K] in the column's own units, float64, as :meth:`Number.unscale` has them.

    In float64 a large offset (a year, an identifier) keeps its digits; ``narrow()`` is for where there is none. A rank
    among training rows comes back on the straight lines between the knots: the sum of the rises that lie behind it.
    """

    mean: Tensor
    std: Tensor
    floor: Tensor
    rises: Tensor

    def __init__(self, column: Number | Series) -> None:
        super().__init__()
        self.scale = column.scale
        self.register_buffer("mean", torch.from_numpy(column.mean).double(), persistent=False)
        self.register_buffer("std", torch.from_numpy(column.std).double(), persistent=False)
        knots = getattr(column, "knots", None)
        table = torch.zeros(KNOTS, 1).double() if knots is None else torch.from_numpy(knots).double()
        self.register_buffer("floor", table[0], persistent=False)
        self.register_buffer("rises", table.diff(dim=0).T.contiguous(), persistent=False)  # [K, knots - 1]

    def forward(self, scaled: Tensor) -> Tensor:
        x: Tensor = scaled.to(self.mean.dtype) * self.std + self.mean
        if self.scale == "log":
            out: Tensor = x.sign() * (x.abs().exp() - 1)
            return out
        if self.scale != "quantile":
            return x
        rank = 0.5 * (1 + (x * 0.5**0.5).float().erf().to(x.dtype))
        place = torch.arange(KNOTS - 1, dtype=x.dtype, device=x.device)
        share = (rank[..., None] * (KNOTS - 1) - place).clamp(0, 1)
        back: Tensor = self.floor + (share * self.rises).sum(-1)
        return back

    def narrow(self) -> Units:
        """The same in float32."""
        return copy.deepcopy(self).float()


class Quantities(Answer):
    """Numbers [B, K] (of a series [B, H, F]) in their own units; and their quantiles, a last axis Q, in order."""

    def __init__(self, head: NumberHead | SeriesHead, column: Number | Series, calibration: Calibration | None) -> None:
        super().__init__()
        self.units = Units(column)
        levels: Sequence[float] = head.quantiles
        self.last = isinstance(head, NumberHead) or bool(levels)  # whether the prediction's last axis is that of levels
        self.many = len(levels) > 1
        self.nearest = min(range(len(levels)), key=lambda i: abs(levels[i] - 0.5), default=0)
        more = [Output("quantiles", "quantiles", facts={"levels": list(levels)})] if self.many else []
        self.outputs = (Output("", "numbers"), *more)

    def forward(self, prediction: Tensor) -> tuple[Tensor, ...]:
        if not self.last:
            return (self.units(prediction),)
        if not self.many:
            return (self.units(prediction.squeeze(-1)),)
        ordered = prediction.sort(-1).values
        levels = self.units(ordered.movedim(-1, 1)).movedim(1, -1)
        return levels[..., self.nearest], levels

    def differences(self, wanted: Sequence[Tensor], got: Sequence[Tensor]) -> list[float]:
        """In standard deviations of the column; of what lies further out than one, as a share of how far that is."""
        with torch.no_grad():
            low, centre, high = (self.units(self.units.mean.new_full((len(self.units.mean),), x)) for x in (-1, 0, 1))
        found: list[float] = []
        for one, other in zip(wanted, got, strict=True):
            wide = (one.movedim(-1, 1), other.movedim(-1, 1)) if len(found) else (one, other)
            scale = torch.maximum((high - low) / 2, (wide[0].double() - centre).abs())
            found.append(largest((wide[0].double() - wide[1].double()) / scale))
        return found


# By the class of the head, of a text by that of its decoder.
ANSWERS: dict[type[nn.Module], Callable[[Any, Any, Calibration | None], Answer]] = {
    CTC: Alignment,
    CategoryHead: Probabilities,
    LabelsHead: Probabilities,
    NumberHead: Quantities,
    SeriesHead: Quantities,
    TagsHead: Chances,
}


def answer_of(name: str, head: Head, column: Column, calibration: Calibration | None) -> Answer:
    """The end of the graph for one output.

    Raises:
        UsageError: this kind of output is not said in one pass.
    """
    make = ANSWERS.get(type(head.decoder) if isinstance(head, TextHead) else type(head))
    if make is None:
        raise UsageError(
            f"the output {name!r} of type {column.type} is not one pass of a graph",
            mend=f"Known: {', '.join(sorted(kind.__name__ for kind in ANSWERS))}.",
        )
    return make(head, column, calibration)
