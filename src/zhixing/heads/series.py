"""The next steps of a series."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..columns import Column
from ..columns.series import Series
from ..models.encoding import Encoding
from .head import Head
from .number import Delta, Loss, Quantiles, differences, pinball_loss

__all__ = ["SeriesHead"]


class SeriesHead(Head):
    """A linear layer to each feature of each step ahead at once, or to several quantiles of each.

    The loss is of standardised values, a row's mean over the steps that are known: a target that is NaN counts for
    nothing. The metrics are of the column's own units; of several features they are means, whatever their units.

    Prediction [B, H, F], with the quantile loss [B, H, F, Q]; target [B, H, F].

    ``mase`` is the mean absolute error over that of saying, within the training series, that the next step will be as
    this one (Hyndman and Koehler, "Another look at measures of forecast accuracy", 2006); below 1 is better than that.
    It is there where the column knows that error.
    """

    goal, higher = "mae", False

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
        assert isinstance(column, Series)
        self.kind, self.delta = loss, delta
        self.quantiles = tuple(sorted(set(quantiles))) if loss == "quantile" else ()
        self.shape = (column.horizon, column.features, *([len(self.quantiles)] if self.quantiles else []))
        self.linear = nn.Linear(width, int(np.prod(self.shape)))

    def forward(self, encoding: Encoding, target: Tensor | None = None) -> Tensor:
        out: Tensor = self.linear(encoding.pooled)
        return out.view(-1, *self.shape)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        goal = target.to(prediction.dtype)
        if self.quantiles:
            goal = goal.unsqueeze(-1).expand_as(prediction)
        known = ~goal.isnan()
        goal = torch.where(known, goal, prediction.detach())
        cells = differences(self.kind, prediction, goal, self.delta, self.quantiles)
        return cells.masked_fill(~known, 0.0).flatten(1).sum(-1) / known.flatten(1).sum(-1).clamp(min=1)

    def levels(self, prediction: Tensor) -> list[Tensor]:
        """Each quantile [B, H, F], in order: those that cross are put right. Without quantiles the prediction."""
        return list(prediction.sort(-1).values.unbind(-1)) if self.quantiles else [prediction]

    def middle(self, prediction: Tensor) -> Tensor:
        """The one value that stands for the prediction, [B, H, F]: the quantile nearest to the median."""
        nearest = min(range(len(self.quantiles)), key=lambda i: abs(self.quantiles[i] - 0.5), default=0)
        return self.levels(prediction)[nearest]

    def decode(self, prediction: Tensor, column: Column, *, probabilities: bool = False) -> dict[str, list[Any]]:
        assert isinstance(column, Series)
        with np.errstate(over="ignore"):  # what is beyond all bounds in the column's own units is infinite there
            out = {"": column.restore(self.middle(prediction))}
            for level, at in zip(self.quantiles, self.levels(prediction), strict=False):
                out[f"quantile_{level:g}"] = column.restore(at)
        return out

    def metrics(self, prediction: Tensor, target: Tensor, column: Column) -> dict[str, float]:
        assert isinstance(column, Series)
        true = own_units(column, target)
        known = ~true.isnan()
        if not bool(known.any()):
            return {}
        true = true[known]
        off = own_units(column, self.middle(prediction))[known] - true
        out = {"mae": off.abs().mean(), "rmse": off.square().mean().sqrt()}
        naive_error: float | None = getattr(column, "naive_error", None)  # not every column knows it
        if naive_error:
            out["mase"] = out["mae"] / naive_error
        if self.quantiles:
            levels = [own_units(column, level)[known] for level in self.levels(prediction)]
            pinball = [pinball_loss(true - at, q).mean() for at, q in zip(levels, self.quantiles, strict=True)]
            out["pinball_loss"] = torch.stack(pinball).mean()
            out["coverage"] = ((true >= levels[0]) & (true <= levels[-1])).double().mean()
        return {name: float(value) for name, value in out.items()}

    def examine(self, prediction: Tensor, target: Tensor, column: Column) -> dict[str, Any]:
        """Errors of each step ahead, over all features, and of how many values; None where no value is known."""
        assert isinstance(column, Series)
        said, true = own_units(column, self.middle(prediction)), own_units(column, target)
        known, steps = ~true.isnan(), []
        for step in range(true.shape[1]):
            off = (said - true)[:, step][known[:, step]]
            figures = (off.abs().mean().item(), off.square().mean().sqrt().item()) if len(off) else (None, None)
            steps.append({"step": step + 1, "mae": figures[0], "rmse": figures[1], "values": len(off)})
        return {"per_step": steps}


def own_units(column: Series, values: Tensor) -> Tensor:
    """Standardised values [N, H, F] in the column's units, float64."""
    with np.errstate(over="ignore"):
        return torch.from_numpy(column.unscale(values))
