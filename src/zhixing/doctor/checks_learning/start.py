"""The loss at the start, and what reaches the encoders."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ...columns.column import Ragged
from ...models.encoding import Encoding
from ..case import Case
from ..finding import Finding, Mend, escaped
from ..trial import evaluated
from ..views import after_stem

__all__ = ["initial_loss", "normalisation"]

SHIFTED, WIDE, NARROW = 8.0, 30.0, 0.01


def initial_loss(case: Case) -> Iterator[Finding]:
    """The loss before any step beside what theory gives for a model that knows only how often each answer comes.

    Of classes that is the entropy of their frequencies, of standardised numbers their variance; of other heads what
    they say of an encoding of zeros. More means that the first predictions are sure of what they cannot know.
    """
    rows = case.learned("train", 512)
    model = case.fresh()
    for name in model.outputs:
        head = model.head(name)
        if head.forced or head.reads != "pooled":  # predicts token after token, of which it is given those before
            continue
        first, blind, targets = [], [], []
        try:
            for batch, predictions in evaluated(case, model, rows):
                target = batch.columns[name].values
                first.append(head.loss(predictions[name].float(), target))
                encoding = model.encode(batch)
                nothing = Encoding(*(torch.zeros_like(part) for part in encoding[:2]), encoding.mask, encoding.grid)
                blind.append(head.loss(head(nothing).float(), target))
                targets.append(target)
        except (RuntimeError, ValueError, IndexError, TypeError):  # told of as a crash
            return
        loss, known = float(torch.cat(first).mean()), float(torch.cat(blind).mean())
        theory, what = expected(case, name, torch.cat(targets), known)
        if not np.isfinite(loss):
            continue
        excess = loss - theory
        bad = excess > max(1.0, 1.0 * theory)
        yield Finding(
            "initial_loss", ("fault" if excess > max(5.0, 5 * theory) else "warning") if bad else "note",
            f"the loss of {name!r} starts at {loss:.4g}; {what} is {theory:.4g}"
            + (": the first predictions are far too sure" if bad else ""),
            sure=0.85 if bad else 0.9,
            evidence={"loss": loss, "theory": theory, "loss_of_a_blank_encoding": known},
            mend=Mend(("training.initialisation=xavier",)) if bad and case.recipe.training.initialisation != "xavier"
            else Mend(),
            advice="Weights that start too large, or inputs that are not standardised." if bad else "",
        )  # fmt: skip


def expected(case: Case, name: str, target: torch.Tensor, blank: float) -> tuple[float, str]:
    """The loss of knowing frequencies alone, and what it is called."""
    settings = case.recipe.outputs[name]
    if case.columns[name].spec().kind == "ids" and settings.loss == "cross_entropy" and not settings.smoothing:
        share = torch.bincount(target.flatten()).double() / max(1, target.numel())
        return float(-(share * share.clamp(min=1e-12).log()).sum()), "the entropy of its classes"
    if case.columns[name].spec().kind == "vector" and getattr(settings, "loss", "") == "squared":
        return float(target.float().var(0, unbiased=False).mean()), "the variance of its numbers"
    return blank, "that of a model that sees nothing"


def normalisation(case: Case) -> Iterator[Finding]:
    """Inputs that reach their encoder far from mean 0 and deviation 1, on training rows."""
    for name, column in case.inputs.items():
        kind = column.spec().kind
        if kind in ("ids", "tokens"):
            continue
        values, mask = after_stem(column, case.stored(name), case.some(case.split("train"), 400))
        values = values.float()
        if kind == "image":
            features = values.transpose(0, 1).flatten(1)
        elif kind == "sequence":
            features = (values.flatten(0, 1) if mask is None else values[mask]).T
        else:
            features = values.T
        mean, std = features.mean(1), features.std(1)
        alive = (std > 1e-6) | (mean.abs() > 20)
        if not bool(alive.any()) or (isinstance(case.stored(name), Ragged) and not features.shape[1]):
            continue
        mean, std = mean[alive], std[alive]
        off = mean.abs() / torch.maximum(std, torch.ones(()))
        worst, widest, narrowest = float(off.max()), float(std.max()), float(std.max())
        if worst < SHIFTED and widest < WIDE and narrowest > NARROW:
            continue
        yield Finding(
            "normalisation", "fault" if widest > 3 * WIDE or worst > 3 * SHIFTED or narrowest < 0.1 * NARROW else "warning",
            f"{name!r} reaches its encoder with means up to {float(mean.abs().max()):.3g} and deviations up to "
            f"{widest:.3g}, where about 0 and 1 are expected",
            sure=0.93,
            evidence={"mean": float(mean.abs().max()), "deviation": widest},
            mend=standardised(case, name),
            advice="Standardise it.",
        )  # fmt: skip


def standardised(case: Case, name: str) -> Mend:
    settings = case.recipe.inputs[name]
    if getattr(settings, "scale", "standardise") in ("none", "row"):
        return Mend((f"inputs.{escaped(name)}.scale=standardise",))
    if getattr(settings, "statistics", "fitted") != "fitted":
        return Mend((f"inputs.{escaped(name)}.statistics=fitted",))
    return Mend()
