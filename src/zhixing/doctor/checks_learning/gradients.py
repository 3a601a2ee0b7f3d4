"""How gradients and updates flow: parts that get none, layers where they fade or grow, and steps out of proportion."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import nn

from ..case import Case
from ..finding import Curve, Finding, Mend, Severity, escaped

__all__ = ["flow", "no_gradient", "updates"]

FADED, GROWN = 1e-4, 1e3
LARGE, SMALL = 0.2, 1e-6


def parts_of(case: Case) -> Iterator[tuple[str, nn.Module, str]]:
    """What a model is made of: encoders, fusion, heads; for a person, the module, its path."""
    model = case.trial.model
    for index, name in enumerate(model.inputs):
        yield f"the encoder of {name!r}", model.encoders[index], f"encoders.{index}."
    yield "the fusion", model.fusion, "fusion."
    for index, name in enumerate(model.outputs):
        yield f"the head of {name!r}", model.heads[index], f"heads.{index}."


def no_gradient(case: Case) -> Iterator[Finding]:
    """Encoders, fusions and heads of whose parameters none ever gets a gradient: frozen, detached, or not used."""
    trial = case.trial
    if not trial.finite:
        return
    for what, module, path in parts_of(case):
        parameters = list(module.named_parameters())
        if not parameters:
            continue
        reached = {name: path + name in trial.gradients and any(trial.gradients[path + name]) for name, _ in parameters}
        without = [name for name, got in reached.items() if not got]
        frozen = [name for name, p in parameters if not p.requires_grad]
        share = sum(p.numel() for name, p in parameters if name in without) / sum(p.numel() for _, p in parameters)
        if share < 0.05:
            continue
        whole = len(without) == len(parameters)
        asked = len(frozen) == len(without)  # frozen by its maker, as a pretrained part may be
        severity: Severity
        if asked:
            severity = "warning" if whole else "note"
        else:
            severity = "fault" if share > 0.5 else "warning" if share > 0.3 else "note"
        how = "is frozen" if asked else "gets no gradient"
        yield Finding(
            "no_gradient", severity,
            f"{what} {how}: " + ("it does not learn" if whole else f"{share:.0%} of its parameters do not learn, from "
                                 f"{path}{without[0]} on"),
            sure=0.99,
            evidence={"part": what, "parameters": without[:20], "share": share, "frozen": asked},
            advice="Look for detach(), no_grad(), .data, argmax or round in its forward, or parameters that it does "
            "not "
            "use.",
        )  # fmt: skip


LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.RNNBase)


def ratios(case: Case) -> dict[str, float]:
    """For each weight matrix of a layer, in order: the gradient's norm beside its own, the median over steps."""
    modules = dict(case.trial.model.named_modules())
    out = {}
    for name, gradients in case.trial.gradients.items():
        weights, (path, _, last) = case.trial.weights[name], name.rpartition(".")
        if not isinstance(modules[path], LAYERS) or "weight" not in last:
            continue
        some = [g / w for g, w in zip(gradients[1:], weights[1:], strict=True) if w > 0 and np.isfinite(g) and g > 0]
        if some:
            out[name] = float(np.median(some))
    return out


def flow(case: Case) -> Iterator[Finding]:
    """Layers of an encoder whose gradients are very small, or very large, beside those of its last layer."""
    every = ratios(case)
    for what, _, path in parts_of(case):
        inside = {name: value for name, value in every.items() if name.startswith(path)}
        if len(inside) < 2:
            continue
        names, values = list(inside), np.array(list(inside.values()))
        last = float(np.median(values[-2:]))
        evidence = {"gradient_beside_weight": {name: float(f"{value:.3g}") for name, value in inside.items()}}
        curve = Curve(list(range(len(values))), values.tolist(), "layer", "gradient / weight")
        if values[0] < FADED * last:
            yield Finding(
                "flow", "fault" if values[0] < 0.1 * FADED * last else "warning",
                f"gradients vanish in {what}: at {names[0]} they are {values[0] / last:.1e} of those at {names[-1]}",
                sure=0.93,
                evidence=evidence,
                curve=curve,
                mend=rectified(case, path),
                advice="Rectified units, normalisation or residual connections keep gradients alive in deep networks.",
            )  # fmt: skip
        elif values.max() > GROWN:
            worst = int(values.argmax())
            yield Finding(
                "flow", "fault" if values.max() > 10 * GROWN else "warning",
                f"gradients explode in {what}: at {names[worst]} they are {values[worst]:.1e} times the weights' size",
                sure=0.9,
                evidence=evidence,
                curve=curve,
                mend=Mend(("training.clip=1.0",)) if not case.recipe.training.clip else Mend(),
                advice="Smaller first weights, normalisation, or clipping.",
            )  # fmt: skip


def rectified(case: Case, path: str) -> Mend:
    """Another activation and first weights, where the encoder's settings have one that saturates."""
    kind, _, index = path.rstrip(".").partition(".")
    if kind != "encoders":
        return Mend()
    name = case.trial.model.inputs[int(index)]
    choice = case.recipe.inputs[name].encoder
    if getattr(choice, "activation", None) in ("sigmoid", "tanh"):
        return Mend((f"inputs.{escaped(name)}.encoder.activation=relu", "training.initialisation=he"))
    return Mend()


def updates(case: Case) -> Iterator[Finding]:
    """The size of a step beside that of the weights; about a thousandth is usual."""
    trial, found = case.trial, {}
    for name, steps in trial.updates.items():
        weights, parameter = trial.weights[name], dict(trial.model.named_parameters())[name]
        if parameter.ndim >= 2 and any(steps):
            some = [u / w for u, w in zip(steps, weights, strict=True) if w > 0 and np.isfinite(u)]
            found[name] = float(np.median(some)) if some else 0.0
    if not found:
        return
    middle = float(np.median(list(found.values())))
    evidence = {"update_beside_weight": {name: float(f"{value:.3g}") for name, value in found.items()}}
    if middle > LARGE or middle < SMALL:
        large = middle > LARGE
        yield Finding(
            "updates", "warning",
            f"a step changes weights by {middle:.1e} of their size (about 1e-3 is usual): the learning rate is too "
            + ("high" if large else "low"),
            sure=0.8,
            evidence=evidence,
            mend=Mend((f"training.optimizer.lr={max(case.found_rate.steepest_rate, 1e-6):.2g}",)),
        )  # fmt: skip
    else:
        yield Finding(
            "updates", "note", f"a step changes weights by {middle:.1e} of their size (about 1e-3 is usual)",
            sure=0.9, evidence=evidence,
        )  # fmt: skip
