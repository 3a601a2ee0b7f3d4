"""What is explained: of each row one number of one output, as a function of its encoding.

Shape legend: B rows, C classes, K quantities, H steps of a forecast, T tokens of a text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, singledispatch
from typing import NamedTuple

import torch
from torch import Tensor

from ..columns import Column
from ..columns.category import Category
from ..columns.tags import Tags
from ..columns.vocabulary import END, PAD
from ..errors import UsageError, did_you_mean
from ..heads import CategoryHead, Head, LabelsHead, NumberHead, SeriesHead, TagsHead, TextHead
from ..heads.decoders import CTC, Forced
from ..models.encoding import Encoding

__all__ = ["Ask", "Goal", "goal_of", "picked", "place_of"]

Read = Callable[[Tensor, Tensor], Tensor]  # prediction and target of each row to one number of each, [B]


class Ask(NamedTuple):
    """What of an output is asked for: a class or tag by its name, or a step; open: what the model says."""

    label: str | None = None
    step: int | None = None


@dataclass(frozen=True)
class Goal:
    """One number a row.

    ``target`` [B, …] says which class, step or text of each row; ``read`` takes the number out of the prediction;
    ``chance`` takes the same as a probability, where there is one. ``names`` are the answers that are explained, and
    ``unit`` what the number is.
    """

    head: Head
    target: Tensor
    read: Read
    unit: str
    names: Sequence[str]
    chance: Read | None = None
    of_classes: bool = False  # whether the answers are classes, over which means can be taken

    def score(self, encoding: Encoding, rows: Tensor | None = None) -> Tensor:
        """The number of each row, [N]; ``rows`` [N] says which rows of the batch the encodings are of."""
        return self.apply(self.read, encoding, rows)

    def probability(
        self, encoding: Encoding, rows: Tensor | None = None, adjust: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """The same as a probability, or the number itself where it has none; of predictions as ``adjust`` has them."""
        return self.apply(self.chance or self.read, encoding, rows, adjust)

    def apply(
        self, read: Read, encoding: Encoding, rows: Tensor | None, adjust: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        target = self.target if rows is None else self.target[rows]
        prediction = self.head(encoding, target) if self.head.forced else self.head(encoding)
        return read(prediction.float() if adjust is None else adjust(prediction.float()), target)


@singledispatch
def goal_of(head: Head, column: Column, encoding: Encoding, ask: Ask) -> Goal:
    """What is explained of an output of this head.

    A head that is not known here is explained by how likely it finds its own answer: minus the loss of that.

    Raises:
        UsageError: a class, tag or step that there is none of.
    """
    refuse(ask.label, "class")
    refuse(ask.step, "step")
    target = head.answer(encoding)
    names = [str(cell) for cell in column.restore(target)]
    return Goal(head, target, lambda said, wanted: -head.loss(said, wanted), "minus the loss", names)


def refuse(value: object, what: str) -> None:
    if value is not None:
        raise UsageError(f"this output has no {what} to choose, and {value!r} was asked for")


def place_of(label: str, classes: Sequence[str], what: str = "class") -> int:
    if label not in classes:
        raise UsageError(f"the model knows no {what} {label!r}", mend=did_you_mean(label, classes))
    return list(classes).index(label)


def checked_step(step: int, most: int) -> int:
    if not 0 <= step < most:
        raise UsageError(f"there is no step {step}", mend=f"Steps are counted from 0 to {most - 1}.")
    return step


def picked(prediction: Tensor, target: Tensor) -> Tensor:
    return prediction.gather(1, target[:, None])[:, 0]


def one_of(
    head: Head, classes: list[str], encoding: Encoding, ask: Ask, probability: Callable[[Tensor], Tensor]
) -> Goal:
    """The logit of a class or tag: of the likeliest, or of the one that is asked for."""
    refuse(ask.step, "step")
    said = head(encoding).argmax(-1)
    target = said if ask.label is None else torch.full_like(said, place_of(ask.label, classes))
    names = [classes[index] for index in target.tolist()]
    return Goal(head, target, picked, "logit", names, lambda said, wanted: picked(probability(said), wanted), True)


@goal_of.register
def category(head: CategoryHead, column: Column, encoding: Encoding, ask: Ask) -> Goal:
    """The logit of a class."""
    assert isinstance(column, Category)
    return one_of(head, column.classes, encoding, ask, lambda logits: logits.softmax(-1))


@goal_of.register
def tags(head: TagsHead, column: Column, encoding: Encoding, ask: Ask) -> Goal:
    """The logit of a tag."""
    assert isinstance(column, Tags)
    return one_of(head, column.classes, encoding, ask, torch.sigmoid)


def middle_at(head: NumberHead | SeriesHead, step: int | None, prediction: Tensor, target: Tensor) -> Tensor:
    values = head.middle(prediction)
    return values.flatten(1).mean(1) if step is None else values[:, step].flatten(1).mean(1)


@goal_of.register(NumberHead)
@goal_of.register(SeriesHead)
def quantity(head: NumberHead | SeriesHead, column: Column, encoding: Encoding, ask: Ask) -> Goal:
    """The predicted value, standardised: the mean of all quantities or steps ahead, or one of them.

    With quantiles it is that nearest to the median.
    """
    refuse(ask.label, "class")
    prediction = head(encoding)
    step = None if ask.step is None else checked_step(ask.step, prediction.shape[1])
    target = torch.zeros(len(prediction), dtype=torch.int64, device=prediction.device)
    said = head.decode(prediction, column)[""]
    names = [in_short(cell if step is None or not isinstance(cell, list) else cell[step]) for cell in said]
    what = "value in standard deviations" if step is None else f"value of step {step} in standard deviations"
    return Goal(head, target, partial(middle_at, head, step), what, names)


def in_short(cell: object) -> str:
    if isinstance(cell, list):
        shown = ", ".join(map(in_short, cell[:4]))
        return f"[{shown}, …]" if len(cell) > 4 else f"[{shown}]"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


@goal_of.register
def labels(head: LabelsHead, column: Column, encoding: Encoding, ask: Ask) -> Goal:
    """The logit of the labels that are given: their mean over the tokens, or that of one token."""
    refuse(ask.label, "class")
    prediction = head(encoding)
    step = None if ask.step is None else checked_step(ask.step, prediction.shape[1])
    target = prediction.argmax(-1)

    def read(prediction: Tensor, target: Tensor) -> Tensor:
        each = prediction.gather(-1, target.unsqueeze(-1))[..., 0] * (target > 0)
        return each[:, step] if step is not None else each.sum(1) / (target > 0).sum(1).clamp(min=1)

    def chance(prediction: Tensor, target: Tensor) -> Tensor:
        return read(prediction.log_softmax(-1), target).exp()

    said = column.restore(target)
    names = [" ".join(row) if step is None else (row[step] if step < len(row) else "") for row in said]
    return Goal(head, target, read, "logit", names, chance)


@goal_of.register
def text(head: TextHead, column: Column, encoding: Encoding, ask: Ask) -> Goal:
    """The log probability of the text that is written, each token given those before it; or of one of its tokens."""
    refuse(ask.label, "class")
    with torch.no_grad():
        target = head.answer(encoding)
    restored = column.restore(target)
    names = [" ".join(cell) if isinstance(cell, list) else str(cell) for cell in restored]
    decoder, step = head.decoder, ask.step
    if isinstance(decoder, CTC):
        refuse(step, "step")

        def read(prediction: Tensor, target: Tensor) -> Tensor:
            tokens = ((target > PAD) & (target != END)).sum(1).clamp(min=1)
            return -decoder.loss(prediction, target) * tokens  # the loss is a mean over them

        return Goal(head, target, read, "log probability", names, lambda said, wanted: read(said, wanted).exp())
    assert isinstance(decoder, Forced)
    if step is not None:
        checked_step(step, target.shape[1])

    def of_tokens(prediction: Tensor, target: Tensor) -> Tensor:
        losses, _ = decoder.token_losses(prediction, target, 0.0)
        return -losses.sum(1) if step is None else -losses[:, step]

    return Goal(head, target, of_tokens, "log probability", names, lambda said, wanted: of_tokens(said, wanted).exp())
