"""What our sides of the comparison with published models have in common.

Ours are called with the library's arguments and give the outputs that are compared, by the library's names. What is
not one of our layers (tables of words, entrances, scores) is plain torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import transformers
from torch import Tensor, nn

from zhixing.layers.transformer import PRESETS, Transformer, TransformerSettings
from zhixing.pretrained.layouts import Part

WORDS, WIDTH, HEADS, HIDDEN, DEPTH, LENGTH = 23, 16, 4, 24, 2, 12

Tensors = dict[str, Tensor]


def small(name: str, **changes: Any) -> TransformerSettings:
    """A preset at a size for tests."""
    chosen = {"heads": HEADS, "hidden": HIDDEN, "kv_heads": 2 if PRESETS[name].kv_heads else None}
    return TransformerSettings.model_validate(PRESETS[name].model_dump() | chosen | changes)


def stack(name: str) -> Transformer:
    return Transformer(WIDTH, DEPTH, small(name), length=LENGTH, cross=name.endswith("_decoder"))


def padded(texts: Sequence[Tensor], left: bool = False) -> tuple[Tensor, Tensor]:
    """Texts side by side [B, T] and which of their words are real; padding is a word like others, to be ignored."""
    most = max(map(len, texts))
    words, real = torch.full((len(texts), most), 1), torch.zeros(len(texts), most, dtype=torch.bool)
    for row, text in enumerate(texts):
        where = slice(most - len(text), most) if left else slice(len(text))
        words[row, where], real[row, where] = text, True
    return words, real


def parts(table: Mapping[str, str | Part]) -> dict[str, str]:
    """What stands behind the number of a block in a table of the package, theirs to ours."""
    pairs = [(theirs, ours) for ours, theirs in table.items() if isinstance(theirs, str) and "{n}." in theirs]
    return {theirs.partition("{n}.")[2]: ours.partition("{n}.")[2] for theirs, ours in pairs}


class Ours(nn.Module):
    """Base of our side. ``names`` says what parts of the library's names are in ours, the first that fits."""

    names: ClassVar[dict[str, str]]

    @staticmethod
    def published() -> transformers.PreTrainedModel:
        """Their side, at the same size."""
        raise NotImplementedError

    def untangle(self, tensors: Tensors, gradient: bool) -> Tensors:
        """Tensors by their names, one for each of our weights; a gradient may need another factor than its weight."""
        return tensors

    def translate(self, tensors: Tensors, *, gradient: bool = False) -> Tensors:
        """Their weights or gradients by our names. What is done to them is linear, so that it is right for both."""
        pattern = re.compile("|".join(map(re.escape, self.names)))
        untangled = self.untangle(tensors, gradient)
        return {pattern.sub(lambda found: self.names[found[0]], name): tensor for name, tensor in untangled.items()}

    @staticmethod
    def source(length: int) -> Tensor:
        """A random source, where there is one."""
        return torch.randint(1, WORDS, (length,))

    @staticmethod
    def inputs(texts: Sequence[Tensor], sources: Sequence[Tensor], left: bool = False) -> Tensors:
        """The arguments of both sides for a batch."""
        raise NotImplementedError
