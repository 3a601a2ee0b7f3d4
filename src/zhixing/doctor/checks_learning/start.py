"""The loss at the start, and what reaches the encoders."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

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
    rows = case.learned("train", 256)
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
                nothing = encoding._replace(
                    pooled=torch.zeros_like(encoding.pooled), tokens=torch.zeros_like(encoding.tokens)
                )
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
    odd = {}
    for name in case.inputs:
        found = moments(case, name)
        if found is None:
            continue
        mean, std = found
        off, wide = float((mean / std.clamp(min=1.0)).max()), float(std.max())
        if off > SHIFTED or wide > WIDE or wide < NARROW:
            odd[name] = (float(mean.max()), wide, max(off / SHIFTED, wide / WIDE, NARROW / max(wide, 1e-9)))
    if not odd:
        return
    worst = max(odd, key=lambda name: odd[name][2])
    others = f" ({len(odd) - 1} other columns are like it)" if len(odd) > 1 else ""
    mends = [standardised(case, name) for name in odd]
    yield Finding(
        "normalisation", "fault" if odd[worst][2] > 3 else "warning",
        f"{worst!r} reaches its encoder with means up to {odd[worst][0]:.3g} and deviations up to {odd[worst][1]:.3g}, "
        f"where about 0 and 1 are expected{others}",
        sure=0.93,
        evidence={"largest_mean_and_deviation": {name: values[:2] for name, values in odd.items()}},
        mend=Mend(tuple(setting for mend in mends for setting in mend.settings)),
        advice="Standardise them.",
    )  # fmt: skip


def moments(case: Case, name: str) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The size of the mean, and the deviation, of each feature that an encoder gets; None where it gets ids, or nothing
    that varies."""
    kind = case.columns[name].spec().kind
    if kind in ("ids", "tokens"):
        return None
    values, mask = after_stem(case.columns[name], case.stored(name), case.some(case.split("train"), 400))
    values = values.float()
    if kind == "image":
        features = values.transpose(0, 1).flatten(1)
    elif kind == "sequence":
        features = (values.flatten(0, 1) if mask is None else values[mask]).T
    else:
        features = values.T
    if features.shape[1] < 2:
        return None
    mean, std = features.mean(1).abs(), features.std(1)
    alive = (std > 1e-6) | (mean > 20)
    return (mean[alive], std[alive]) if bool(alive.any()) else None


def standardised(case: Case, name: str) -> Mend:
    settings = case.recipe.inputs[name]
    if getattr(settings, "scale", "standardise") in ("none", "row"):
        return Mend((f"inputs.{escaped(name)}.scale=standardise",))
    if getattr(settings, "statistics", "fitted") != "fitted":
        return Mend((f"inputs.{escaped(name)}.statistics=fitted",))
    return Mend()
