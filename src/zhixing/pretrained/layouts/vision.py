"""What models of pictures have in common: the size and the statistics that they were made for."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from ...errors import DataError
from .layout import Absent, Layout, Role

__all__ = ["Convolutions", "Vision"]

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
NAMES = ("preprocessor_config.json", "processor_config.json")


class Vision(Layout):
    """Base of the families that read pictures.

    Statistics come from ``preprocessor_config.json`` or from the ``pretrained_cfg`` that config.json has in timm's
    folders; without either they are ImageNet's. They are of values from 0 to 1 there, and from 0 to 255 here.
    """

    reads = "image"
    mean_std: ClassVar[tuple[list[float], list[float]]] = IMAGENET

    def told(self) -> dict[str, Any]:
        """What the files say of pictures."""
        found = next((told for name in NAMES if (told := self.files.json(name)) is not None), None)
        found = found or self.config.get("pretrained_cfg") or {}
        return found if isinstance(found, dict) else {}

    def statistics(self) -> dict[str, Any]:
        told = self.told()
        mean = told.get("image_mean", told.get("mean", self.mean_std[0]))
        std = told.get("image_std", told.get("std", self.mean_std[1]))
        good = isinstance(mean, list) and isinstance(std, list) and len(mean) == len(std) == 3
        if not good or not all(isinstance(x, int | float) for x in (*mean, *std)) or not all(x > 0 for x in std):
            raise DataError(f"mean {mean!r} and deviation {std!r} are no statistics of pictures", place=self.files.path)
        scale = 255.0 if told.get("do_rescale", True) else 1.0
        return {name: [round(scale * x, 6) for x in values] for name, values in (("mean", mean), ("std", std))}

    def size(self) -> int:
        """The side that the files name, 224 where they name none."""
        told = self.told()
        size = told.get("crop_size") or told.get("size") or told.get("input_size")
        if isinstance(size, list):
            size = size[-1] if size else None
        if isinstance(size, dict):
            size = size.get("height", size.get("shortest_edge"))
        return int(size) if isinstance(size, int | float) else 224

    def column(self) -> dict[str, Any]:
        return {"channels": 3, "statistics": self.statistics()}


class Convolutions(Vision):
    """Base of those with convolutions and batch norm."""

    rate: ClassVar[float] = 3e-4

    def tensor(self, role: Role, name: str, own: Tensor) -> Tensor:
        try:
            return super().tensor(role, name, own)
        except Absent:
            if name.endswith("num_batches_tracked"):  # of no effect in evaluation; older files lack it
                return own
            raise
