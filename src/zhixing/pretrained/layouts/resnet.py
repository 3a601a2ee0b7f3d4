"""Residual networks (He et al. 2016, arXiv:1512.03385), in the names of torchvision (and timm) and of transformers."""

from __future__ import annotations

from typing import ClassVar

from ...errors import UsageError
from ..files import Files
from .layout import Part, Plan
from .vision import Convolutions

__all__ = ["ResNet", "TorchResNet"]

DEPTHS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}


class Blocks(Convolutions):
    """Base of both: our blocks are numbered through, theirs by stage. ``stem`` and ``last`` name their modules:
    convolution and normalisation; ``branch`` and ``shortcut`` those of a block."""

    stem: ClassVar[tuple[str, str]]
    block: ClassVar[str]  # {s} its stage, {i} its number there
    branch: ClassVar[tuple[str, str]]  # {j} its number in the block
    shortcut: ClassVar[tuple[str, str]]
    first_stage: ClassVar[int] = 0
    first_layer: ClassVar[int] = 0

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        self.encoder_names = self.names_of(DEPTHS[self.name()])

    def name(self) -> str:
        raise AssertionError(f"{type(self).__name__} has no name")

    def names_of(self, depths: tuple[int, ...]) -> dict[str, str | Part]:
        out: dict[str, str | Part] = dict(zip(("stem.0.convolution", "stem.0.norm"), self.stem, strict=True))
        places = [(stage, number) for stage, depth in enumerate(depths) for number in range(depth)]
        for own, (stage, number) in enumerate(places):
            block = self.block.format(s=stage + self.first_stage, i=number)
            for part, theirs in zip(("convolution", "norm"), self.branch, strict=True):
                for layer in range(3):
                    name = theirs.format(j=layer + self.first_layer)
                    out[f"blocks.{own}.branch.{layer}.{part}"] = f"{block}.{name}"
            for part, theirs in zip(("convolution", "norm"), self.shortcut, strict=True):
                out[f"blocks.{own}.shortcut.{part}"] = f"{block}.{theirs}"
        return out

    def encoder(self) -> Plan:
        # A small picture would otherwise get another stem than that of the weights.
        return Plan(self.name(), {"small_input": False}, {}, self.column(), {"size": self.size()})


class TorchResNet(Blocks):
    """``layer1.0.conv1``, ``layer1.0.downsample.0``, ``fc``; which one it is stands in config.json's architecture."""

    kinds: ClassVar[tuple[str, ...]] = tuple(DEPTHS)
    spare: ClassVar[tuple[str, ...]] = (r"fc\..*",)
    stem = ("conv1", "bn1")
    block = "layer{s}.{i}"
    branch = ("conv{j}", "bn{j}")
    shortcut = ("downsample.0", "downsample.1")
    first_stage = first_layer = 1

    def name(self) -> str:
        return str(self.config.get("architecture", self.config.get("model_type")))


class ResNet(Blocks):
    """``encoder.stages.0.layers.0.layer.0.convolution``."""

    kinds: ClassVar[tuple[str, ...]] = ("resnet",)
    roots: ClassVar[tuple[str, ...]] = ("resnet.",)
    spare: ClassVar[tuple[str, ...]] = (r"classifier\..*",)
    stem = ("embedder.embedder.convolution", "embedder.embedder.normalization")
    block = "encoder.stages.{s}.layers.{i}"
    branch = ("layer.{j}.convolution", "layer.{j}.normalization")
    shortcut = ("shortcut.convolution", "shortcut.normalization")

    def name(self) -> str:
        depths, kind = tuple(self.config.get("depths", ())), self.config.get("layer_type", "bottleneck")
        deep = ("resnet50", "resnet101", "resnet152") if kind == "bottleneck" else ("resnet18", "resnet34")
        known = {DEPTHS[name]: name for name in deep}
        if (
            depths not in known
            or self.config.get("downsample_in_bottleneck")
            or self.config.get("hidden_act") != "relu"
        ):
            raise UsageError(
                f"a ResNet of depths {list(depths)} in {kind} blocks is not known here",
                place=self.files.path,
                mend=f"Known: {', '.join(DEPTHS)}.",
            )
        return known[depths]
