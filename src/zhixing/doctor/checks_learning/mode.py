"""Evaluation that is not what it should be: random, or dependent on which rows come together."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..case import Case
from ..finding import Finding

__all__ = ["evaluation_mode"]


def evaluation_mode(case: Case) -> Iterator[Finding]:
    """Predictions of the same rows, twice, and in other company, by a model in evaluation mode.

    Other company is allowed to move a prediction by what rounding may: a thousandth of the size of predictions.
    """
    model, rows = case.trial.model, case.seen_in_evaluation(64)
    if case.trial.error or not case.trial.finite or len(rows) < 4:
        return
    was = [module.training for module in model.modules()]
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            batch = case.batches.gather(rows)
            first, second = ({name: x.clone() for name, x in model(batch).items()} for _ in range(2))
            half = model(batch.part(0, len(rows) // 2))
    finally:
        for module, training in zip(model.modules(), was, strict=True):
            module.training = training
    size = max(float(one.abs().max()) for one in first.values())
    again = max(float((first[name] - second[name]).abs().max()) for name in first)
    alone = max(gap(first[name][: len(rows) // 2], half[name]) for name in first)
    if again > 1e-6 * size:
        yield Finding(
            "evaluation_mode", "fault",
            f"the model is not still in evaluation: the same rows give predictions that differ by up to {again:.3g} "
            f"(predictions are up to {size:.3g})",
            sure=0.98,
            evidence={"difference": again, "size": size, "modules_in_training": still_training(case)},
            advice="Dropout or noise that does not look at self.training, or a train() that does not reach its parts.",
        )  # fmt: skip
    elif alone > 1e-2 * size:
        yield Finding(
            "evaluation_mode", "fault",
            f"in evaluation a row's prediction depends on the rows beside it: by up to {alone:.3g} (predictions are "
            "up to "
            f"{size:.3g})",
            sure=0.95,
            evidence={"difference": alone, "size": size, "modules_in_training": still_training(case)},
            advice="Normalisation over the batch in place of running statistics: a part is in training mode.",
        )  # fmt: skip


def gap(whole: torch.Tensor, half: torch.Tensor) -> float:
    """The largest difference; of predictions of several steps, over those that both have."""
    if whole.ndim > 2 and whole.shape[1] != half.shape[1]:
        steps = min(whole.shape[1], half.shape[1])
        whole, half = whole[:, :steps], half[:, :steps]
    return float((whole - half).abs().max())


def still_training(case: Case) -> list[str]:
    """Modules that stay in training mode when the model is put in evaluation mode."""
    model = case.fresh().eval()
    return [name for name, module in model.named_modules() if module.training][:10]
