"""Learning-rate schedules: a factor on the base rate, as a function of progress.

Each takes ``progress`` in [0, 1], the share of all steps that are done. ``warmup`` is the share of all steps over
which the rate first rises linearly from nothing. The plateau alone also looks at the validation score.
"""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

__all__ = ["SCHEDULES", "Schedule"]

Warmup = Annotated[float, Field(ge=0, lt=1, description="share of all steps over which the rate rises")]


class Schedule:
    """Base: warm-up, then :meth:`after`."""

    def __init__(self, warmup: float) -> None:
        self.warmup = warmup

    def factor(self, progress: float) -> float:
        """The factor on the base rate at this share of all steps."""
        if progress < self.warmup:
            return self.rising(progress / self.warmup)
        return self.after((progress - self.warmup) / (1 - self.warmup))

    def rising(self, progress: float) -> float:
        return progress

    def after(self, progress: float) -> float:
        raise AssertionError(f"{type(self).__name__} has no after")

    def observe(self, better: bool) -> None:
        """Told after each validation whether the score was the best so far."""

    def state(self) -> dict[str, float]:
        return {}

    def load_state(self, state: dict[str, float]) -> None:
        assert not state


class Constant(Schedule):
    """The same rate throughout."""

    def __init__(self, *, warmup: Warmup = 0.0) -> None:
        super().__init__(warmup)

    def after(self, progress: float) -> float:
        return 1.0


class Step(Schedule):
    """Multiplied by ``gamma`` at each milestone."""

    def __init__(
        self,
        *,
        milestones: Annotated[tuple[float, ...], Field(description="shares of all steps, ascending")] = (0.5, 0.75),
        gamma: Annotated[float, Field(gt=0, le=1, description="factor at each milestone")] = 0.1,
        warmup: Warmup = 0.0,
    ) -> None:
        super().__init__(warmup)
        self.milestones, self.gamma = milestones, gamma

    def factor(self, progress: float) -> float:
        if progress < self.warmup:
            return progress / self.warmup
        return float(self.gamma ** sum(progress >= milestone for milestone in self.milestones))


class Exponential(Schedule):
    """Falls by the same factor in each step, to ``final`` of the base rate."""

    def __init__(
        self,
        *,
        final: Annotated[float, Field(gt=0, le=1, description="factor at the end")] = 0.01,
        warmup: Warmup = 0.0,
    ) -> None:
        super().__init__(warmup)
        self.final = final

    def after(self, progress: float) -> float:
        return float(self.final**progress)


class Cosine(Schedule):
    """Falls along half a cosine (Loshchilov and Hutter, "SGDR", 2017), to ``final`` of the base rate."""

    def __init__(
        self,
        *,
        final: Annotated[float, Field(ge=0, le=1, description="factor at the end")] = 0.0,
        warmup: Warmup = 0.0,
    ) -> None:
        super().__init__(warmup)
        self.final = final

    def after(self, progress: float) -> float:
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2


class OneCycle(Schedule):
    """Rises from ``1 / divide`` of the rate along half a cosine, then falls to nearly nothing along another
    (Smith and Topin, "Super-convergence", 2018)."""

    def __init__(
        self,
        *,
        warmup: Warmup = 0.3,
        divide: Annotated[float, Field(ge=1, description="the first rate is the base rate over this")] = 25.0,
        final: Annotated[float, Field(ge=0, le=1, description="factor at the end")] = 1e-4,
    ) -> None:
        super().__init__(warmup)
        self.first, self.final = 1 / divide, final

    def rising(self, progress: float) -> float:
        return self.first + (1 - self.first) * (1 - math.cos(math.pi * progress)) / 2

    def after(self, progress: float) -> float:
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2


class Linear(Schedule):
    """Falls along a straight line, to ``final`` of the base rate."""

    def __init__(
        self,
        *,
        final: Annotated[float, Field(ge=0, le=1, description="factor at the end")] = 0.0,
        warmup: Warmup = 0.0,
    ) -> None:
        super().__init__(warmup)
        self.final = final

    def after(self, progress: float) -> float:
        return 1 + (self.final - 1) * progress


class Plateau(Schedule):
    """Multiplied by ``gamma`` when the validation score has not improved ``patience`` times in a row."""

    def __init__(
        self,
        *,
        patience: Annotated[int, Field(ge=1, description="validations without a better score")] = 2,
        gamma: Annotated[float, Field(gt=0, lt=1, description="factor each time")] = 0.3,
        warmup: Warmup = 0.0,
    ) -> None:
        super().__init__(warmup)
        self.patience, self.gamma = patience, gamma
        self.scale, self.stale = 1.0, 0

    def after(self, progress: float) -> float:
        return self.scale

    def observe(self, better: bool) -> None:
        self.stale = 0 if better else self.stale + 1
        if self.stale >= self.patience:
            self.scale, self.stale = self.scale * self.gamma, 0

    def state(self) -> dict[str, float]:
        return {"scale": self.scale, "stale": self.stale}

    def load_state(self, state: dict[str, float]) -> None:
        self.scale, self.stale = float(state["scale"]), int(state["stale"])


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "cosine": Cosine,
    "exponential": Exponential,
    "linear": Linear,
    "one_cycle": OneCycle,
    "plateau": Plateau,
    "step": Step,
}
