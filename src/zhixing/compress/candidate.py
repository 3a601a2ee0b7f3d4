"""What a compressed form is: a model and the way it is written, with all that was measured of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UsageError, ZhixingError
from .measure import Timed

__all__ = ["AIMS", "Candidate", "choose"]

MARGIN = 1e-9  # so that a drop that is exactly the limit is within it


@dataclass
class Candidate:
    """One form of one model. What was not measured is None, and ``failure`` says why.

    ``model`` is empty for the run's own; ``form`` a name of the table of forms; ``size`` the bytes of the files that
    are needed to answer; ``figures`` the metric of each output on validation rows, ``drop`` what of it is lost.
    """

    name: str
    model: str
    form: str
    folder: Path
    parameters: int | None = None
    size: int | None = None
    figures: dict[str, float] = field(default_factory=dict)
    drop: float | None = None
    timed: Timed | None = None
    failure: str = ""

    def fail(self, error: BaseException) -> None:
        """Note why this one cannot be had: the first line of what was said."""
        text = " ".join(str(error).split("\n\n")[0].split())
        self.failure = (text if isinstance(error, ZhixingError) else f"{type(error).__name__}: {text}")[:300]

    def within(self, limit: float) -> bool:
        return not self.failure and self.drop is not None and self.drop <= limit + MARGIN

    def line(self) -> str:
        if self.failure:
            return f"{self.name}: not measured: {self.failure}"
        told = ", ".join(f"{name} {value:.4f}" for name, value in self.figures.items())
        return f"{self.name}: {told}, {(self.size or 0) / 1e6:.3g} MB"

    def plain(self) -> dict[str, Any]:
        """The candidate as JSON."""
        speed = self.timed.plain() if self.timed else {}
        return {
            "name": self.name, "model": self.model or "original", "form": self.form, "parameters": self.parameters,
            "bytes": self.size, "validation": self.figures, "drop": self.drop, **speed, "not_measured": self.failure,
        }  # fmt: skip


AIMS: dict[str, Callable[[Candidate], float]] = {
    "latency": lambda one: one.timed.latency if one.timed else float("inf"),
    "throughput": lambda one: -one.timed.throughput if one.timed else float("inf"),
    "size": lambda one: one.size if one.size is not None else float("inf"),
    "memory": lambda one: one.timed.memory if one.timed else float("inf"),
}


def choose(candidates: Sequence[Candidate], limit: float, aim: str) -> Candidate:
    """Of those within the limit, the best by the aim; the first, which is the original, where none is better."""
    good = [one for one in candidates if one.within(limit) and one.timed is not None]
    if not good:
        raise UsageError(
            f"nothing was measured that stays within {limit:g}: {candidates[0].failure}",
            mend="See the reasons above.",
        )
    return min(good, key=AIMS[aim])
