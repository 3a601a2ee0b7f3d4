"""A folder of pictures to a tensor by a DataLoader with two workers: ``prepare_loader.py FOLDER CACHE SIDE``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


class Folder(Dataset[tuple[Tensor, int]]):
    """Pictures below a folder for each class."""

    def __init__(self, folder: Path, side: int) -> None:
        self.side, self.classes = side, sorted(path.name for path in folder.iterdir())
        self.files = [(path, self.classes.index(path.parent.name)) for path in sorted(folder.glob("*/*.jpg"))]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        path, label = self.files[row]
        with Image.open(path) as picture:
            size = (self.side, self.side)
            pixels = np.array(picture.convert("RGB").resize(size, Image.Resampling.BICUBIC))
        return torch.from_numpy(pixels).permute(2, 0, 1), label


def main() -> None:
    folder, side = Path(sys.argv[1]), int(sys.argv[3])
    started = time.perf_counter()
    loader = DataLoader(Folder(folder, side), batch_size=128, num_workers=2)
    pixels = torch.cat([batch for batch, _ in loader])
    print(json.dumps({"rows": len(pixels), "work": time.perf_counter() - started}), flush=True)
    print(sum(int(part.sum(dtype=torch.int64)) for part in pixels.split(1000)))


if __name__ == "__main__":
    main()
