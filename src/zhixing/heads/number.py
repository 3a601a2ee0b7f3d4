"""One or several quantities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..columns import Column
from ..columns.number import Number
from ..models.encoding import Encoding
from .head import Head

__all__ = ["NumberHead"]


Loss = Annotated[Literal["squared", "absolute", "huber", "quantile"], Field(description="what is minimised")]
Delta = Annotated[float, Field(gt=0, description="huber: where it turns linear, in standard deviations")]
Quantiles = Annotated[
    tuple[Annotated[float, Field(gt=0, lt=1)], ...],
    Field(min_length=1, description="quantile loss: which quantiles, between 0 and 1"),
]


class NumberHead(Head):
    """A linear layer to each quantity, or to several quantiles of each (Koenker and Bassett, 1978).

    The loss is of standardised values, the metrics of the column's own units. Prediction [B, K, Q] with Q quantiles
    (1 but for the quantile loss), target [B, K].
    """

    goal, higher = "rmse", False

    def __init__(
        self,
        width: int,
        column: Column,
        *,
        loss: Loss = "squared",
        delta: Delta = 1.0,
        quantiles: Quantiles = (0.1, 0.5, 0.9),
    ) -> None:
        super().__init__()
        assert isinstance(column, Number)
        self.kind, self.delta = loss, delta
        self.quantiles = tuple(sorted(set(quantiles))) if loss == "quantile" else (0.5,)
        self.length = column.length
        self.linear = nn.Linear(width, self.length * len(self.quantiles))

    def forward(self, encoding: Encoding, target: Tensor | None = None) -> Tensor:
        out: Tensor = self.linear(encoding.pooled)
        return out.view(-1, self.length, len(self.quantiles))

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        goal = target[:, :, None].to(prediction.dtype).expand_as(prediction)
        cells = differences(self.kind, prediction, goal, self.delta, self.quantiles)
        return cells.flatten(1).mean(-1)

    def middle(self, prediction: Tensor) -> Tensor:
        """The one value that stands for the prediction, [B, K]: the quantile nearest to the median."""
        nearest = min(range(len(self.quantiles)), key=lambda i: abs(self.quantiles[i] - 0.5))
        return prediction.sort(-1).values[:, :, nearest]  # sorted: quantiles that cross are put in order

    def decode(self, prediction: Tensor, column: Column, *, probabilities: bool = False) -> dict[str, list[Any]]:
        assert isinstance(column, Number)
        with np.errstate(over="ignore"):  # what is beyond all bounds in the column's own units is infinite there
            out = {"": column.restore(self.middle(prediction))}
            if len(self.quantiles) > 1:
                for level, at in zip(self.quantiles, prediction.sort(-1).values.unbind(-1), strict=True):
                    out[f"quantile_{level:g}"] = column.restore(at)
        return out

    def metrics(self, prediction: Tensor, target: Tensor, column: Column) -> dict[str, float]:
        assert isinstance(column, Number)
        said = own_units(column, self.middle(prediction))
        true = own_units(column, target)
        off = said - true
        out = {
            "rmse": off.square().mean().sqrt(),
            "mae": off.abs().mean(),
            "median_ae": torch.tensor(np.median(off.abs().numpy())),
        }
        spread = (true - true.mean(0)).square().sum(0)
        if bool((spread > 0).all()):
            out["r2"] = (1 - off.square().sum(0) / spread).mean()  # of several quantities the mean: units may differ
        if self.kind == "quantile":
            levels = [own_units(column, x) for x in prediction.sort(-1).values.unbind(-1)]
            out["coverage"] = ((true >= levels[0]) & (true <= levels[-1])).double().mean()
            pinball = [pinball_loss(true - at, q).mean() for at, q in zip(levels, self.quantiles, strict=True)]
            out["pinball_loss"] = torch.stack(pinball).mean()
        return {name: float(value) for name, value in out.items()}

    def examine(self, prediction: Tensor, target: Tensor, column: Column) -> dict[str, Any]:
        assert isinstance(column, Number)
        said = own_units(column, self.middle(prediction))[:, 0]
        true = own_units(column, target)[:, 0]
        known = said.isfinite()
        said, true = said[known], true[known]
        some = torch.linspace(0, len(true) - 1, min(len(true), 1000)).long()
        rows, edges = np.histogram((said - true).numpy(), bins=30)
        return {
            "scatter": {"truth": true[some].tolist(), "prediction": said[some].tolist()},
            "residuals": {"edges": edges.tolist(), "rows": rows.tolist()},
        }


def own_units(column: Number, values: Tensor) -> Tensor:
    """Standardised values [N, K] in the column's units, float64."""
    with np.errstate(over="ignore"):
        return torch.from_numpy(column.unscale(values))


def pinball_loss(short: Tensor, level: float | Tensor) -> Tensor:
    """What falling short by so much costs at a quantile; exceeding costs the rest (Koenker and Bassett, 1978)."""
    return torch.maximum(level * short, (level - 1) * short)


def differences(kind: str, prediction: Tensor, goal: Tensor, delta: float, quantiles: Sequence[float]) -> Tensor:
    """The loss of each value, in the shape of both; for quantiles the last axis is theirs."""
    if kind == "squared":
        return F.mse_loss(prediction, goal, reduction="none")
    if kind == "absolute":
        return F.l1_loss(prediction, goal, reduction="none")
    if kind == "huber":
        return F.huber_loss(prediction, goal, reduction="none", delta=delta)
    return pinball_loss(goal - prediction, prediction.new_tensor(quantiles))
