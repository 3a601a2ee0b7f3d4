"""Whether the model can take a step at all, and values that are not finite."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ...training.guard import name_culprit
from ...training.surroundings import reproducible
from ..case import Case
from ..finding import Finding, Mend

__all__ = ["crash", "nonfinite", "overflow"]


def crash(case: Case) -> Iterator[Finding]:
    """An error that torch raises in the first steps."""
    if case.trial.error:
        yield Finding(
            "crash", "fault",
            f"training stops at step {len(case.trial.losses)}: {case.trial.error}",
            sure=1.0,
            evidence={"step": len(case.trial.losses), "error": case.trial.error},
            advice="The message is torch's; a layer does not fit what it is given.",
        )  # fmt: skip


def nonfinite(case: Case) -> Iterator[Finding]:
    """Values that are not finite in the first batches, as the model starts: the first module that gives one."""
    culprit = culprit_of(case, case.fresh())
    if culprit:
        yield Finding(
            "nonfinite", "fault",
            f"values are not finite from the start: {culprit}",
            sure=1.0,
            evidence={"culprit": culprit, "skipped_steps": case.trial.skipped, "steps": len(case.trial.losses)},
            advice="A division by zero, a logarithm or root of nothing, or an exponential: look at that module.",
        )  # fmt: skip


def overflow(case: Case) -> Iterator[Finding]:
    """Values that are not finite after some steps: skipped ones, and the module that is first at the end."""
    trial = case.trial
    culprit = culprit_of(case, trial.model)
    if not culprit and not trial.skipped:
        return
    yield Finding(
        "overflow", "fault" if culprit or trial.skipped > 2 else "warning",
        f"values are no longer finite within {len(trial.losses)} steps ({trial.skipped} were skipped)"
        + (f": {culprit}" if culprit else ""),
        sure=0.95,
        evidence={"culprit": culprit, "skipped_steps": trial.skipped, "steps": len(trial.losses)},
        mend=Mend() if case.recipe.training.clip else Mend(("training.clip=1.0",)),
        advice="Lower the learning rate, or look for extreme values.",
    )  # fmt: skip


def culprit_of(case: Case, model: nn.Module) -> str:
    """The first module whose output or gradient is not finite on some batches; empty where all are."""
    rows = case.learned("train", 192)

    def losses() -> Iterator[Tensor]:
        for start in range(0, len(rows), 64):
            yield model.loss(model.weigh(case.batches.gather(rows[start : start + 64])))  # type: ignore[operator]

    was = model.training
    model.train()
    try:
        with reproducible(case.recipe.training.threads), torch.enable_grad():
            said = name_culprit(model, losses())
    except (RuntimeError, ValueError, IndexError, TypeError):  # told of as a crash
        return ""
    finally:
        model.train(was)
    return "" if "finite values" in said else said
