"""Learning from a larger model: its probabilities are targets beside the true ones.

The loop, its checkpoints and its choice of the best weights are the ordinary ones; only what a row's loss is differs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.batches import Batch
from ..heads import CategoryHead, Head, LabelsHead, NumberHead, SeriesHead, TagsHead
from ..model import Model
from ..recipe import Recipe
from .prune import Plan, slim_recipe

__all__ = ["IMITATES", "SMALLER", "Student", "student_recipe"]

HEAT = 2.0  # what logits are divided by, so that what the teacher thinks of wrong classes shows
SHARE = 0.5  # of the loss that is the teacher's


def classes(prediction: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy to the teacher's probabilities at a temperature T, less their entropy, times T squared (Hinton,
    Vinyals and Dean, "Distilling the knowledge in a neural network", 2015, arXiv:1503.02531)."""
    hot = F.kl_div(
        (prediction / HEAT).log_softmax(-1), (teacher / HEAT).log_softmax(-1), reduction="none", log_target=True
    )
    cells: Tensor = HEAT**2 * hot.sum(-1)
    return cells.flatten(1).mean(1) if cells.ndim > 1 else cells


def chances(prediction: Tensor, teacher: Tensor) -> Tensor:
    """The same of labels that may each be there or not."""
    return F.binary_cross_entropy_with_logits(prediction, teacher.sigmoid(), reduction="none").flatten(1).mean(1)


def quantities(prediction: Tensor, teacher: Tensor) -> Tensor:
    """The squared difference, of standardised values."""
    return (prediction - teacher).square().flatten(1).mean(1)


IMITATES: dict[type[Head], Callable[[Tensor, Tensor], Tensor]] = {
    CategoryHead: classes,
    LabelsHead: classes,
    NumberHead: quantities,
    SeriesHead: quantities,
    TagsHead: chances,
}


class Student(Model):
    """A model that learns from the truth and from a teacher, half of each.

    It goes on with the parts of ``model``, under their names: its weights are those of an ordinary model. The teacher
    sees the same rows, changed and blended as they are for the student.
    """

    def __init__(self, model: Model, teacher: Model) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(model.__dict__)
        self.teacher = (teacher.eval().requires_grad_(False),)  # in a tuple: no part of this model

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        predictions = super().forward(batch)
        if self.training:
            with torch.no_grad():
                self.said = self.teacher[0](batch)
        return predictions

    def target_losses(self, batch: Batch, name: str, prediction: Tensor) -> Tensor:
        rows = super().target_losses(batch, name, prediction)
        if not self.training:
            return rows
        like = IMITATES[type(self.head(name))](prediction.float(), self.said[name].float())
        return (1 - SHARE) * rows + SHARE * (like if rows.ndim == 1 else like[:, None])


SMALLER = {
    "resnet152": "resnet101", "resnet101": "resnet50", "resnet50": "resnet18", "resnet34": "resnet18",
    "vgg19": "vgg16", "vgg16": "vgg13", "vgg13": "vgg11", "vgg19_bn": "vgg16_bn", "vgg16_bn": "vgg13_bn",
    "vgg13_bn": "vgg11_bn", "efficientnet_b7": "efficientnet_b5", "efficientnet_b6": "efficientnet_b4",
    "efficientnet_b5": "efficientnet_b3", "efficientnet_b4": "efficientnet_b2", "efficientnet_b3": "efficientnet_b1",
    "efficientnet_b2": "efficientnet_b0", "efficientnet_b1": "efficientnet_b0",
}  # fmt: skip


def student_recipe(recipe: Recipe, plan: Callable[[], Plan]) -> Recipe:
    """A recipe like this one with smaller encoders: the next smaller of a family, or fewer units as ``plan`` has them.

    Raises:
        UsageError: there is no smaller one.
    """
    plain = recipe.plain()
    family = {name: SMALLER.get(settings["encoder"]["name"]) for name, settings in plain["inputs"].items()}
    if not any(family.values()):
        return slim_recipe(recipe, plan())
    for name, smaller in family.items():
        if smaller is not None:
            plain["inputs"][name]["encoder"] = {"name": smaller}
    return Recipe(plain)
