"""One or several quantities."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..columns import Column
from ..columns.number import Number
from ..models.encoding import Encoding
from .head import Head, rounded

__all__ = ["NumberHead"]


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
        loss: Annotated[
            Literal["squared", "absolute", "huber", "quantile"], Field(description="what is minimised")
        ] = "squared",
        delta: Annotated[float, Field(gt=0, description="huber: where it turns linear, in standard deviations")] = 1.0,
        quantiles: Annotated[
            tuple[float, ...], Field(min_length=1, description="quantile loss: which quantiles, ascending")
        ] = (0.1, 0.5, 0.9),
    ) -> None:
        super().__init__()
        assert isinstance(column, Number)
        self.kind, self.delta = loss, delta
        self.quantiles = tuple(sorted(quantiles)) if loss == "quantile" else (0.5,)
        self.length = column.length
        self.linear = nn.Linear(width, self.length * len(self.quantiles))

    def forward(self, encoding: Encoding) -> Tensor:
        out: Tensor = self.linear(encoding.pooled)
        return out.view(-1, self.length, len(self.quantiles))

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        goal = target[:, :, None].to(prediction.dtype).expand_as(prediction)
        if self.kind == "squared":
            cells = F.mse_loss(prediction, goal, reduction="none")
        elif self.kind == "absolute":
            cells = F.l1_loss(prediction, goal, reduction="none")
        elif self.kind == "huber":
            cells = F.huber_loss(prediction, goal, reduction="none", delta=self.delta)
        else:
            level = prediction.new_tensor(self.quantiles)
            short = goal - prediction
            cells = torch.maximum(level * short, (level - 1) * short)
        return cells.flatten(1).mean(-1)

    def middle(self, prediction: Tensor) -> Tensor:
        """The one value that stands for the prediction, [B, K]: the quantile nearest to the median."""
        nearest = min(range(len(self.quantiles)), key=lambda i: abs(self.quantiles[i] - 0.5))
        return prediction.sort(-1).values[:, :, nearest]  # sorted: quantiles that cross are put in order

    def decode(self, prediction: Tensor, column: Column) -> dict[str, list[Any]]:
        assert isinstance(column, Number)
        out = {"": column.restore(self.middle(prediction))}
        ordered = prediction.sort(-1).values
        if len(self.quantiles) > 1:
            for place, level in enumerate(self.quantiles):
                out[f"quantile_{level:g}"] = column.restore(ordered[:, :, place])
        return out

    def metrics(self, prediction: Tensor, target: Tensor, column: Column) -> dict[str, float]:
        from torchmetrics.functional import regression as tm

        assert isinstance(column, Number)
        said = torch.from_numpy(column.unscale(self.middle(prediction))).reshape(-1)
        true = torch.from_numpy(column.unscale(target)).reshape(-1)
        out = {
            "rmse": tm.mean_squared_error(said, true, squared=False),
            "mae": tm.mean_absolute_error(said, true),
            "median_absolute_error": (said - true).abs().median(),
        }
        if len(true) > 1 and float(true.var()) > 0:
            out["r2"] = tm.r2_score(said, true)
        if self.kind == "quantile":
            low, high = (column.unscale(prediction.sort(-1).values[:, :, i]) for i in (0, -1))
            inside = (true >= torch.from_numpy(low).reshape(-1)) & (true <= torch.from_numpy(high).reshape(-1))
            out["coverage"] = inside.double().mean()
            out["pinball_loss"] = self.loss(prediction, target).mean()
        return {name: float(value) for name, value in out.items()}

    def examine(self, prediction: Tensor, target: Tensor, column: Column) -> dict[str, Any]:
        assert isinstance(column, Number)
        said = torch.from_numpy(column.unscale(self.middle(prediction)))[:, 0]
        true = torch.from_numpy(column.unscale(target))[:, 0]
        some = torch.linspace(0, len(true) - 1, min(len(true), 1000)).long()
        rows, edges = torch.histogram(said - true, bins=30)
        return {
            "scatter": {"truth": rounded(true[some]), "prediction": rounded(said[some])},
            "residuals": {"edges": rounded(edges), "rows": rows.long().tolist()},
        }
