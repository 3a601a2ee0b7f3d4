"""EfficientNets (Tan and Le 2019, arXiv:1905.11946), in the names of three libraries.

All are the original weights, whose convolutions pad as TensorFlow does; timm calls such networks ``tf_efficientnet_…``.
"""

from __future__ import annotations

from math import ceil
from typing import Any, ClassVar

from ...errors import UsageError
from ...models import ENCODERS
from ...models.efficientnet import STAGES
from ...models.efficientnet import EfficientNet as Network
from ..files import Files
from .layout import Part, Plan
from .vision import Convolutions

__all__ = ["EfficientNet", "PortedEfficientNet", "TimmEfficientNet"]

SIZES = {
    "efficientnet_b0": 224, "efficientnet_b1": 240, "efficientnet_b2": 260, "efficientnet_b3": 300,
    "efficientnet_b4": 380, "efficientnet_b5": 456, "efficientnet_b6": 528, "efficientnet_b7": 600,
    "efficientnet_lite0": 224,
}  # fmt: skip
PARTS = (
    "expand.convolution", "expand.norm", "depthwise.convolution", "depthwise.norm", "excite.reduce", "excite.expand",
    "project.convolution", "project.norm",
)  # fmt: skip
ENDS = ("stem.convolution", "stem.norm", "top.convolution", "top.norm")


class Bottlenecks(Convolutions):
    """Base of all: ``ends`` and ``parts`` name their modules as ``ENDS`` and ``PARTS`` ours."""

    ends: ClassVar[tuple[str, ...]]
    parts: ClassVar[tuple[str, ...]]

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        self.encoder_names: dict[str, str | Part] = dict(zip(ENDS, self.ends, strict=True))
        for own, (stage, number) in enumerate(self.places()):
            for part, theirs in zip(PARTS, self.parts_of(stage), strict=True):
                self.encoder_names[f"blocks.{own}.{part}"] = f"{self.block(own, stage, number)}.{theirs}"

    def name(self) -> str:
        """Which of our encoders it is."""
        return str(self.config.get("architecture", self.config.get("model_type"))).removeprefix("tf_")

    def places(self) -> list[tuple[int, int]]:
        """The stage of each block, and its number there."""
        network = ENCODERS[self.name()]
        assert issubclass(network, Network)
        depths = [ceil(network.depth_factor * stage.blocks) for stage in STAGES]
        return [(stage, number) for stage, depth in enumerate(depths) for number in range(depth)]

    def parts_of(self, stage: int) -> tuple[str, ...]:
        return self.parts

    def block(self, own: int, stage: int, number: int) -> str:
        raise AssertionError(f"{type(self).__name__} has no blocks")

    def encoder(self) -> Plan:
        told = self.told()
        size = self.size() if told else SIZES[self.name()]
        return Plan(self.name(), {}, {}, self.column(), {"size": size})


class PortedEfficientNet(Bottlenecks):
    """``_blocks.3._depthwise_conv``: the widespread port to PyTorch. The lite one wants bytes x as (x - 127) / 128."""

    kinds: ClassVar[tuple[str, ...]] = tuple(SIZES)
    spare: ClassVar[tuple[str, ...]] = (r"_fc\..*",)
    ends = ("_conv_stem", "_bn0", "_conv_head", "_bn1")
    parts = (
        "_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_se_reduce", "_se_expand", "_project_conv", "_bn2",
    )  # fmt: skip

    def block(self, own: int, stage: int, number: int) -> str:
        return f"_blocks.{own}"

    def statistics(self) -> dict[str, Any]:
        if self.name() == "efficientnet_lite0" and not self.told():
            return {"mean": [127.0] * 3, "std": [128.0] * 3}
        return super().statistics()


class TimmEfficientNet(Bottlenecks):
    """``blocks.1.0.conv_dw``: by stage. The first stage, which does not widen, has other names."""

    kinds: ClassVar[tuple[str, ...]] = tuple(f"tf_{name}" for name in SIZES)
    spare: ClassVar[tuple[str, ...]] = (r"classifier\..*",)
    ends = ("conv_stem", "bn1", "conv_head", "bn2")
    parts = ("conv_pw", "bn1", "conv_dw", "bn2", "se.conv_reduce", "se.conv_expand", "conv_pwl", "bn3")
    narrow: ClassVar[tuple[str, ...]] = (
        "none", "none", "conv_dw", "bn1", "se.conv_reduce", "se.conv_expand", "conv_pw", "bn2",
    )  # fmt: skip

    def parts_of(self, stage: int) -> tuple[str, ...]:
        return self.parts if stage else self.narrow

    def block(self, own: int, stage: int, number: int) -> str:
        return f"blocks.{stage}.{number}"


class EfficientNet(Bottlenecks):
    """``encoder.blocks.3.depthwise_conv.depthwise_conv``; which one it is follows from its factors."""

    kinds: ClassVar[tuple[str, ...]] = ("efficientnet",)
    roots: ClassVar[tuple[str, ...]] = ("efficientnet.",)
    spare: ClassVar[tuple[str, ...]] = (r"classifier\..*",)
    ends = ("embeddings.convolution", "embeddings.batchnorm", "encoder.top_conv", "encoder.top_bn")
    parts = (
        "expansion.expand_conv", "expansion.expand_bn", "depthwise_conv.depthwise_conv",
        "depthwise_conv.depthwise_norm", "squeeze_excite.reduce", "squeeze_excite.expand", "projection.project_conv",
        "projection.project_bn",
    )  # fmt: skip

    def name(self) -> str:
        factors = self.config.get("width_coefficient"), self.config.get("depth_coefficient")
        for name in SIZES:
            network = ENCODERS[name]
            assert issubclass(network, Network)
            if not network.lite and (network.width_factor, network.depth_factor) == factors:
                return name
        raise UsageError(
            f"an EfficientNet of factors {factors} is not known here", place=self.files.path, mend="Known: B0 to B7."
        )

    def block(self, own: int, stage: int, number: int) -> str:
        return f"encoder.blocks.{own}"
