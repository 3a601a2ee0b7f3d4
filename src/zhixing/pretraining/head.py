"""What every objective does: ask something of the input that the input itself answers.

Shape legend: B rows, T tokens, D width, K places that are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from ..columns import Column
from ..data.batches import ColumnBatch, Draw
from ..errors import UsageError
from ..heads import Head
from ..models.encoding import Asked, Encoder, Encoding
from .column import Pretext

__all__ = ["PretextHead", "Question"]


class Question(NamedTuple):
    """What an encoder is to read, values and mask as from a stem; and what the objective then wants to know again."""

    values: Tensor
    mask: Tensor | None
    asked: Asked


class PretextHead(Head):
    """Base of the objectives. ``reads_types`` are the types of input that one can learn of.

    In place of a stem, :meth:`ask` brings stored tensors to what the encoder reads. What it hides, and what it draws,
    depends on (seed, step, row) alone; where nothing is trained, always on the same step. :meth:`forward` gives the
    figures of each row, [B, …], of which the first is its loss and the others are added up for the metrics.
    """

    goal, higher = "loss", False
    invents: ClassVar[bool] = True  # whether its output is no column of the table
    reads_types: ClassVar[tuple[str, ...]]

    def __init__(self, column: Column) -> None:
        super().__init__()
        assert isinstance(column, Pretext)
        self.input = column.of
        self.paired = column.read
        self.check(self.input.type in self.reads_types, f"reads {' or '.join(self.reads_types)}, not {self.input.type}")

    def check(self, fits: bool, why: str, mend: str = "Choose another objective: --objective NAME.") -> None:
        """Raises UsageError unless it fits."""
        if not fits:
            raise UsageError(f"{type(self).__name__} {why}", place=f"a column of type {self.input.type}", mend=mend)

    def meet(self, encoders: Sequence[Encoder]) -> None:
        super().meet(encoders)
        (encoder,) = encoders
        self.build(encoder)

    def build(self, encoder: Encoder) -> None:
        """Make the layers that the encoder's widths decide.

        Raises:
            UsageError: it gives no tokens that could answer.
        """

    def ask(self, stem: nn.Module, given: ColumnBatch, other: ColumnBatch, draw: Draw) -> Question:
        """From the input's stored tensors of a batch, and those of the other half of pairs, to the question."""
        raise AssertionError(f"{type(self).__name__} has no ask")

    def judge(self, encoding: Encoding, asked: Asked) -> Tensor:
        """The figures of each row, [B, …], from the answer to what was asked."""
        raise AssertionError(f"{type(self).__name__} has no judge")

    def forward(self, encoding: Encoding, target: Tensor | None = None) -> Tensor:
        if encoding.asked is None:
            raise UsageError(
                "a run that was pretrained predicts nothing",
                mend="Name it as the encoder of another (--encoder RUN), or write vectors: zhixing embed RUN DATA.",
            )
        return self.judge(encoding, encoding.asked)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        return prediction[:, 0]

    def decode(self, prediction: Tensor, column: Column, *, probabilities: bool = False) -> dict[str, list[Any]]:
        return {"": [None] * len(prediction)}

    def metrics(self, prediction: Tensor, target: Tensor, column: Column) -> dict[str, float]:
        rows = prediction.double()
        return {"loss": float(rows[:, 0].mean()), **self.figures(rows[:, 1:].sum(0).tolist(), len(rows))}

    def figures(self, sums: list[float], rows: int) -> dict[str, float]:
        """Metrics beside the loss, from the sums of the other figures over so many rows."""
        return {}
