"""What is learned of each kind of output from rows that were not trained on.

Shape legend: N rows, C classes, K quantities (or steps and features of a series).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor

from ..columns import Column
from ..columns.category import Category
from ..columns.number import Number
from ..columns.series import Series
from ..heads import CategoryHead, Head, NumberHead, SeriesHead
from ..heads.category import calibration_error, reliability
from ..randomness import permutation, uniform
from .conformal import Quantiles, adaptive_scores, threshold_scores
from .temperature import fit_temperature

__all__ = ["ASKED", "Calibration", "Classes", "Ranges", "Sets"]

ASKED = 0.9  # the coverage that is looked at where none is asked for
Sets = Literal["threshold", "adaptive"]
MOST_SCORES = 5_000  # of all quantities together


def spread_chances(rows: int, key: str) -> Tensor:
    """A random number in [0, 1) for each of so many rows, one from each of as many equal stretches: of themselves they
    move the coverage by less than one row, where independent ones would move it by a point among a thousand rows."""
    return torch.from_numpy((permutation(rows, key, "stretch") + uniform(rows, key)) / max(1, rows))


class Calibration(ABC):
    """What one output learned from rows kept out of training.

    :meth:`apply` changes a prediction, so that what is decoded from it can be believed; :meth:`region` gives, beside
    the answer, what holds the truth with a chance that is asked for.
    """

    kind: ClassVar[str]
    rows: int

    @classmethod
    @abstractmethod
    def fit(cls, head: Head, prediction: Tensor, target: Tensor) -> Calibration | None:
        """Learn from predictions [N, …] and targets; None where there is nothing to learn from."""

    @classmethod
    @abstractmethod
    def load(cls, state: Mapping[str, Any]) -> Calibration:
        """What :meth:`state` gave. Raises KeyError, TypeError or ValueError where it is something else."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """All that was learned, as JSON."""

    def apply(self, prediction: Tensor) -> Tensor:
        """The prediction as it is to be decoded. The answer stays the same."""
        return prediction

    @abstractmethod
    def region(
        self, head: Head, column: Column, prediction: Tensor, coverage: float, sets: Sets = "threshold"
    ) -> dict[str, pa.Array]:
        """Columns beside the answer, by the ends of their names, from predictions as they were before :meth:`apply`."""

    @abstractmethod
    def measure(self, head: Head, column: Column, prediction: Tensor, target: Tensor) -> dict[str, Any]:
        """How well it does on other rows, for the report."""


class Classes(Calibration):
    """One of several classes: a temperature, and sets of classes."""

    kind = "classes"

    def __init__(self, rows: int, temperature: float, scores: dict[str, Quantiles]) -> None:
        if not (0 < temperature < math.inf):
            raise ValueError(f"a temperature is above 0, not {temperature}")
        self.rows, self.temperature, self.scores = rows, temperature, scores

    @classmethod
    def fit(cls, head: Head, prediction: Tensor, target: Tensor) -> Classes | None:
        good = prediction.isfinite().all(1)
        logits, target = prediction[good].double(), target[good]
        if not len(target) or logits.shape[1] < 2:
            return None
        temperature = fit_temperature(logits, target)
        own = target[:, None]
        chance = spread_chances(len(target), "calibration")
        scores = {
            "threshold": threshold_scores(logits / temperature).gather(1, own)[:, 0],
            "adaptive": adaptive_scores(logits / temperature, chance).gather(1, own)[:, 0],
        }
        return cls(len(target), temperature, {name: Quantiles.of(each) for name, each in scores.items()})

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> Classes:
        rows = int(state["rows"])
        scores = {
            name: Quantiles(rows, [float(x) for x in state["scores"][name]]) for name in ("threshold", "adaptive")
        }
        return cls(rows, float(state["temperature"]), scores)

    def state(self) -> dict[str, Any]:
        scores = {name: each.scores for name, each in self.scores.items()}
        return {"kind": self.kind, "rows": self.rows, "temperature": self.temperature, "scores": scores}

    def apply(self, prediction: Tensor) -> Tensor:
        return prediction / self.temperature

    def members(self, prediction: Tensor, coverage: float, sets: Sets) -> Tensor:
        """Which classes belong to each row's set, [N, C]."""
        logits = prediction.double() / self.temperature
        if sets == "threshold":
            scores = threshold_scores(logits)
        else:
            scores = adaptive_scores(logits, spread_chances(len(logits), "set"))
        return scores <= self.scores[sets].at(coverage)

    def region(
        self, head: Head, column: Column, prediction: Tensor, coverage: float, sets: Sets = "threshold"
    ) -> dict[str, pa.Array]:
        """``set``: the classes that belong to it, the most probable first."""
        assert isinstance(column, Category)
        inside = self.members(prediction, coverage, sets)
        order = prediction.argsort(dim=1, descending=True, stable=True)
        counts = inside.sum(1).tolist()
        # Members come first, in the order of probability, since scores grow as probability falls.
        cells = [[column.classes[i] for i in row[:count].tolist()] for row, count in zip(order, counts, strict=True)]
        return {"set": pa.array(cells, pa.list_(pa.string()))}

    def measure(self, head: Head, column: Column, prediction: Tensor, target: Tensor) -> dict[str, Any]:
        out: dict[str, Any] = {"temperature": self.temperature, "calibration_rows": self.rows}
        for name, logits in (("before", prediction.double()), ("after", self.apply(prediction.double()))):
            sure, code = logits.softmax(-1).max(-1)
            curve = reliability(sure, code == target)
            out[f"ece_{name}"] = calibration_error(curve)
            out[f"log_loss_{name}"] = float(F.cross_entropy(logits, target))
            if name == "before":
                out["reliability_before"] = curve
        coverage = {}
        for sets in get_args(Sets):
            inside = self.members(prediction, ASKED, sets)
            size = inside.sum(1).double()
            coverage[sets] = {
                "coverage": float(inside.gather(1, target[:, None]).double().mean()),
                "mean_size": float(size.mean()),
                "empty": float((size == 0).double().mean()),
            }
        return out | {"asked": ASKED, "sets": coverage}


class Ranges(Calibration):
    """Quantities: an interval about what is predicted.

    Of a head that gives quantiles, its lowest and highest are moved apart or together by as much as is needed
    (conformalized quantile regression: Romano, Patterson and Candès 2019, arXiv:1905.03222); of another, both are the
    one value that it gives, which makes the score the absolute error (split conformal: Lei et al. 2018). Scores are of
    standardised values: of a column whose scale is the logarithm, the interval is wider where values are larger. Each
    quantity, and each step of a series, has scores of its own.
    """

    kind = "ranges"

    def __init__(self, rows: int, shape: tuple[int, ...], scores: list[Quantiles]) -> None:
        if len(scores) != math.prod(shape):
            raise ValueError(f"{len(scores)} quantities, and a shape of {shape}")
        self.rows, self.shape, self.scores = rows, shape, scores

    @staticmethod
    def bounds(head: Head, prediction: Tensor) -> tuple[Tensor, Tensor]:
        """The lowest and the highest that the head gives, each [N, K] or [N, H, F], standardised."""
        if isinstance(head, SeriesHead):
            levels = head.levels(prediction)
            return levels[0].double(), levels[-1].double()
        assert isinstance(head, NumberHead)
        ordered = prediction.double().sort(-1).values
        return ordered[..., 0], ordered[..., -1]

    @classmethod
    def fit(cls, head: Head, prediction: Tensor, target: Tensor) -> Ranges | None:
        if not len(target):
            return None
        low, high = cls.bounds(head, prediction)
        scores = torch.maximum(low - target.double(), target.double() - high).flatten(1)
        most = max(100, MOST_SCORES // scores.shape[1])
        return cls(len(target), tuple(low.shape[1:]), [Quantiles.of(each, most) for each in scores.unbind(1)])

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> Ranges:
        scores = [Quantiles(int(one["rows"]), [float(x) for x in one["scores"]]) for one in state["quantities"]]
        return cls(int(state["rows"]), tuple(int(side) for side in state["shape"]), scores)

    def state(self) -> dict[str, Any]:
        each = [{"rows": one.rows, "scores": one.scores} for one in self.scores]
        return {"kind": self.kind, "rows": self.rows, "shape": list(self.shape), "quantities": each}

    def interval(self, head: Head, prediction: Tensor, coverage: float) -> tuple[Tensor, Tensor]:
        """Both ends of each interval, standardised."""
        low, high = self.bounds(head, prediction)
        margin = torch.tensor([one.at(coverage) for one in self.scores], dtype=torch.float64).view(self.shape)
        low, high = low - margin, high + margin
        middle = (low + high) / 2  # of quantiles that were too far apart, what is left may be less than nothing
        return torch.where(low > high, middle, low), torch.where(low > high, middle, high)

    def region(
        self, head: Head, column: Column, prediction: Tensor, coverage: float, sets: Sets = "threshold"
    ) -> dict[str, pa.Array]:
        """``low`` and ``high``, in the column's own units."""
        with np.errstate(over="ignore"):
            ends = [column.restore(end) for end in self.interval(head, prediction, coverage)]
        return {"low": pa.array(ends[0]), "high": pa.array(ends[1])}

    def measure(self, head: Head, column: Column, prediction: Tensor, target: Tensor) -> dict[str, Any]:
        assert isinstance(column, Number | Series)
        low, high = self.interval(head, prediction, ASKED)
        known = ~target.isnan()
        inside = ((target >= low) & (target <= high))[known]
        with np.errstate(over="ignore", invalid="ignore"):
            width = (torch.from_numpy(column.unscale(high)) - torch.from_numpy(column.unscale(low)))[known]
        return {
            "calibration_rows": self.rows,
            "asked": ASKED,
            "intervals": {"coverage": float(inside.double().mean()), "mean_width": float(width.mean())},
        }


CALIBRATIONS: dict[type[Head], type[Calibration]] = {CategoryHead: Classes, NumberHead: Ranges, SeriesHead: Ranges}
