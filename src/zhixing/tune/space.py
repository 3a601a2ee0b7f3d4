"""What may vary: a range for each setting that matters, derived from the recipe.

A recipe's settings are walked; those in the table below get a range around the value that they have, within the bounds
of their own annotation. So a new encoder has a search space as soon as its parameters have the usual names.
"""

from __future__ import annotations

import json
import math
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ..columns.augment import AUGMENTS
from ..recipe import Recipe
from ..training.optimizers import OPTIMIZERS

__all__ = ["Dimension", "default_space"]

Kind = Literal["choices", "float", "int"]


@dataclass(frozen=True)
class Dimension:
    """A setting, by its path as ``--set`` takes it, and what it may be: choices, or a range from low to high."""

    path: str
    kind: Kind
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    step: int = 1
    choices: tuple[Any, ...] = ()

    @property
    def structural(self) -> bool:
        """Whether other settings come and go with it."""
        return self.path.endswith((".name", ".type"))

    def distribution(self) -> Any:
        """The same in Optuna's words; choices that are not plain stand there as JSON."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.kind == "choices":
            return CategoricalDistribution([plain(value) for value in self.choices])
        if self.kind == "int":
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=self.step)
        return FloatDistribution(self.low, self.high, log=self.log)

    def at(self, share: float) -> Any:
        """What is drawn at a share in [0, 1) of the range, or of the choices.

        >>> Dimension("a", "float", 1e-4, 1e-2, log=True).at(0.5), Dimension("a", "int", 1, 4).at(0.99)
        (0.001, 4)
        """
        if self.kind == "choices":
            return plain(self.choices[int(share * len(self.choices))])
        low, high = self.low, self.high + (self.step if self.kind == "int" else 0)
        value = low * (high / low) ** share if self.log else low + share * (high - low)
        if self.kind == "float":
            return min(max(value, self.low), self.high)
        return int(self.low) + min(int(value - low), int(self.high - low)) // self.step * self.step

    def value(self, drawn: Any) -> Any:
        """What a drawn value stands for."""
        if self.kind != "choices":
            return drawn
        return next(choice for choice in self.choices if plain(choice) == drawn and type(plain(choice)) is type(drawn))

    def drawn(self, value: Any) -> Any:
        """What would have to be drawn for this value; None where it lies outside."""
        if self.kind == "choices":
            return plain(value) if value in self.choices else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return None
        if self.kind == "int" and (value != int(value) or (int(value) - int(self.low)) % self.step):
            return None
        return value


def plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)


# Ranges by default --------------------------------------------------------------------------------------------------


def around(factor: float, *, unless: tuple[float, float]) -> Callable[[Any], dict[str, Any] | None]:
    """By equal factors on both sides of the value; ``unless`` it is zero, then from the one to the other."""

    def rule(value: Any) -> dict[str, Any] | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        low, high = (value / factor, value * factor) if value > 0 else unless
        return {"kind": "float", "low": low, "high": high, "log": True}

    return rule


def between(low: float, high: float) -> Callable[[Any], dict[str, Any] | None]:
    """Evenly from low to high, and as far as the value."""

    def rule(value: Any) -> dict[str, Any] | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return {"kind": "float", "low": min(low, value), "high": max(high, value)}

    return rule


def width(value: Any) -> dict[str, Any] | None:
    """Half to twice, in steps of a half: whatever divides the half divides them all, as heads have to."""
    half = value // 2 if isinstance(value, int) and value >= 8 and value % 2 == 0 else 0
    return {"kind": "int", "low": half, "high": 4 * half, "step": half} if half else None


def depth(value: Any) -> dict[str, Any] | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return {"kind": "int", "low": max(1, value // 2), "high": value + max(1, value // 2)}


def widths(value: Any) -> dict[str, Any] | None:
    """Each layer half as wide, as it is, and twice; and one layer more."""
    if not isinstance(value, tuple | list) or not value or not all(isinstance(v, int) and v <= 1024 for v in value):
        return None
    same = list(value)
    half, twice = [max(1, v // 2) for v in same], [2 * v for v in same]
    return {"kind": "choices", "choices": (same, half, twice, [*same, same[-1]])}


def batch(value: Any) -> dict[str, Any]:
    return {"kind": "choices", "choices": tuple(dict.fromkeys(max(1, int(value * f)) for f in (0.25, 0.5, 1, 2)))}


# Settings of training, encoders, augmentation, fusion, heads and decoders that are searched, and how far.
RULES: dict[str, Callable[[Any], dict[str, Any] | None]] = {
    "adam_lr": around(10, unless=(1e-5, 1e-2)),
    "batch_size": batch,
    "channels": width,
    "dense": widths,
    "depth": depth,
    "dropout": between(0.0, 0.5),
    "layers": depth,
    "lr": around(10, unless=(1e-4, 1e-1)),
    "smoothing": between(0.0, 0.2),
    "stochastic_depth": between(0.0, 0.3),
    "warmup": between(0.05, 0.4),
    "weight_decay": around(30, unless=(1e-6, 1e-2)),
    "width": width,
    "widths": widths,
}
SWITCHED = ("batch_norm", "bidirectional", "pooling")  # yes or no, or one of the words of the annotation


def default_space(recipe: Recipe) -> list[Dimension]:
    """Ranges for the settings that matter in this recipe, in the recipe's order."""
    out: list[Dimension] = []
    for path, owner in places(recipe):
        for name, info in type(owner).model_fields.items():
            if found := dimension(f"{path}.{name}", owner, name, info):
                out.append(found)
    return out


def places(recipe: Recipe) -> Iterator[tuple[str, BaseModel]]:
    """The settings objects that are searched, with their paths; those without effect are left out."""
    yield "training", recipe.training
    yield from below("training", recipe.training)
    for name, settings in recipe.inputs.items():
        yield from below(f"inputs.{escaped(name)}", settings)
    if len(recipe.inputs) > 1:  # a single input passes through the fusion as it is
        yield "fusion", recipe.fusion
    for name, settings in recipe.outputs.items():
        path = f"outputs.{escaped(name)}"
        yield path, settings
        yield from below(path, settings)


def below(path: str, settings: BaseModel) -> Iterator[tuple[str, BaseModel]]:
    for name in type(settings).model_fields:
        inner = getattr(settings, name)
        if isinstance(inner, BaseModel):
            yield f"{path}.{name}", inner


def escaped(name: str) -> str:
    return name.replace(".", "\\.").replace("=", "\\=")


def dimension(path: str, owner: BaseModel, name: str, info: FieldInfo) -> Dimension | None:
    value = getattr(owner, name)
    if name == "name":
        return augmentations(path, value)
    if name == "dropout" and getattr(owner, "widths", getattr(owner, "dense", True)) in ((), None):  # of no layer
        return None
    if name == "lr" and value == "find":
        value = OPTIMIZER_RATES.get(owner.name)  # type: ignore[attr-defined]
    if name in SWITCHED:
        words = words_of(info.annotation)
        return Dimension(path, "choices", choices=words) if len(words) > 1 else None
    found = RULES[name](value) if name in RULES else None
    return within(Dimension(path, **found), info) if found else None


def augmentations(path: str, value: str) -> Dimension | None:
    """Which of the named augmentations; of settings that were written by hand, none."""
    named = next((tuple(table) for table in AUGMENTS.values() if path.endswith(".augment.name") and value in table), ())
    if not named or value == "custom":
        return None
    others = [name for name in named if name not in ("custom", "strong", value)]
    return Dimension(path, "choices", choices=(value, *others))


def words_of(annotation: Any) -> tuple[Any, ...]:
    """The words that a setting may be, of its annotation.

    >>> words_of(Literal["mean", "max"] | None), words_of(bool)
    (('mean', 'max'), (False, True))
    """
    if annotation is bool:
        return (False, True)
    if get_origin(annotation) is Literal:
        return tuple(get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(word for member in get_args(annotation) for word in words_of(member))
    return ()


def within(found: Dimension, info: FieldInfo) -> Dimension | None:
    """The range cut to the bounds of the setting's annotation."""
    low, high = found.low, found.high
    for bound in info.metadata:
        if isinstance(bound, Ge):
            low = max(low, float(bound.ge))  # type: ignore[arg-type]
        elif isinstance(bound, Gt):
            low = max(low, math.nextafter(float(bound.gt), math.inf))  # type: ignore[arg-type]
        elif isinstance(bound, Le):
            high = min(high, float(bound.le))  # type: ignore[arg-type]
        elif isinstance(bound, Lt):
            high = min(high, math.nextafter(float(bound.lt), -math.inf))  # type: ignore[arg-type]
    if found.kind == "choices":
        return found
    return Dimension(found.path, found.kind, low, high, found.log, found.step) if low < high else None


def default_rate(make: Callable[..., Any]) -> Any:
    return (make.__kwdefaults__ or {}).get("lr")


OPTIMIZER_RATES = {name: default_rate(make) for name, make in OPTIMIZERS.items()}
