"""Parameters of every published network beside the published count: ``python -m benchmarks.parameter_counts``.

Counts are with a linear layer to 1,000 classes on top, for pictures of 3x224x224. Nothing is allocated: the networks
are built on torch's ``meta`` device.
"""

from __future__ import annotations

import torch
from torch import nn

from zhixing.models import ENCODERS, Spec

PUBLISHED = {
    "alexnet": 61_100_840,
    "vgg11": 132_863_336,
    "vgg11_bn": 132_868_840,
    "vgg13": 133_047_848,
    "vgg13_bn": 133_053_736,
    "vgg16": 138_357_544,
    "vgg16_bn": 138_365_992,
    "vgg19": 143_667_240,
    "vgg19_bn": 143_678_248,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "efficientnet_b0": 5_288_548,
    "efficientnet_b1": 7_794_184,
    "efficientnet_b2": 9_109_994,
    "efficientnet_b3": 12_233_232,
    "efficientnet_b4": 19_341_616,
    "efficientnet_b5": 30_389_784,
    "efficientnet_b6": 43_040_704,
    "efficientnet_b7": 66_347_960,
    "efficientnet_lite0": 4_652_008,
}


def count(name: str) -> int:
    """Parameters of one encoder at 3x224x224 with a linear layer to 1,000 classes."""
    with torch.device("meta"):
        encoder = ENCODERS[name](Spec("image", (3, 224, 224)))
        model = nn.Sequential(encoder, nn.Linear(encoder.width, 1000))
    return sum(parameter.numel() for parameter in model.parameters())


def main() -> None:
    print(f"{'network':20}{'ours':>15}{'published':>15}")
    for name, published in PUBLISHED.items():
        ours = count(name)
        print(f"{name:20}{ours:15,}{published:15,}{'' if ours == published else '  differs'}")


if __name__ == "__main__":
    main()
