"""Families of published models, by the ``model_type`` of their config.json, or timm's ``architecture``."""

from __future__ import annotations

from ...errors import UsageError, did_you_mean
from ..files import Files
from .bert import Bert, DistilBert, Roberta
from .efficientnet import EfficientNet, PortedEfficientNet, TimmEfficientNet
from .gpt2 import GPT2
from .layout import Layout, Part, Plan, Role
from .llama import Llama
from .marian import Marian
from .resnet import ResNet, TorchResNet
from .t5 import T5
from .vit import TimmViT, ViT
from .whisper import Whisper

__all__ = ["LAYOUTS", "Layout", "Part", "Plan", "Role", "layout_of"]

FAMILIES: tuple[type[Layout], ...] = (
    Bert, Roberta, DistilBert, GPT2, Llama, T5, Marian, Whisper,
    ViT, TimmViT, ResNet, TorchResNet, EfficientNet, TimmEfficientNet, PortedEfficientNet,
)  # fmt: skip
LAYOUTS: dict[str, type[Layout]] = {kind: family for family in FAMILIES for kind in family.kinds}


def layout_of(files: Files) -> Layout:
    """The layout of a model's files.

    Raises:
        UsageError: a family that is not known here.
    """
    kind = files.config.get("model_type", files.config.get("architecture"))
    if kind not in LAYOUTS:
        raise UsageError(
            f"models of type {kind!r} are not read", place=files.path, mend=did_you_mean(str(kind), LAYOUTS)
        )
    return LAYOUTS[str(kind)](files)
