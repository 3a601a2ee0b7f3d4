"""Families of published models, by the ``model_type`` of their config.json."""

from __future__ import annotations

from ...errors import UsageError, did_you_mean
from ..files import Files
from .bert import Bert, DistilBert, Roberta
from .gpt2 import GPT2
from .layout import Layout, Part, Plan, Role
from .llama import Llama

__all__ = ["LAYOUTS", "Layout", "Part", "Plan", "Role", "layout_of"]

FAMILIES: tuple[type[Layout], ...] = (Bert, Roberta, DistilBert, GPT2, Llama)
LAYOUTS: dict[str, type[Layout]] = {kind: family for family in FAMILIES for kind in family.kinds}


def layout_of(files: Files) -> Layout:
    """The layout of a model's files.

    Raises:
        UsageError: a family that is not known here.
    """
    kind = files.config.get("model_type")
    if kind not in LAYOUTS:
        raise UsageError(
            f"models of type {kind!r} are not read", place=files.path, mend=did_you_mean(str(kind), LAYOUTS)
        )
    return LAYOUTS[str(kind)](files)
