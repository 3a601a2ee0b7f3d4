"""What a method of attribution takes and gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ..subject import Subject

__all__ = ["Maps", "Method"]


@dataclass(frozen=True)
class Maps:
    """Attributions of a batch: for each column a number for each cell [B, …], None where the method has none.

    ``gap`` [B] is, for methods whose attributions are to add up to score less that of the baseline, by how much they
    do not, as a share of that difference. Where columns are judged whole (``whole``), only the sums of their cells say
    anything.
    """

    cells: Sequence[Tensor | None]
    gap: Tensor | None = None
    whole: bool = False


class Method(Protocol):
    """A function of a subject. All randomness follows from ``seed``.

    Raises:
        NotApplicableError: there is nothing in the model that it could work on.
    """

    def __call__(self, subject: Subject, *, seed: int = 0) -> Maps: ...
