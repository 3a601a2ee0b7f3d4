"""A folder of pictures to stored arrays by Hugging Face ``datasets``, in two processes:
``prepare_datasets.py FOLDER CACHE SIDE``."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
from datasets import Array3D, Features, disable_progress_bars, load_dataset
from PIL import Image


def arrays(rows: dict[str, list[Any]], side: int) -> dict[str, list[Any]]:
    size = (side, side)
    pictures = [picture.convert("RGB").resize(size, Image.Resampling.BICUBIC) for picture in rows["image"]]
    return {"pixels": [np.asarray(picture) for picture in pictures]}


def main() -> None:
    folder, cache, side = sys.argv[1], sys.argv[2], int(sys.argv[3])
    disable_progress_bars()
    started = time.perf_counter()
    found = load_dataset("imagefolder", data_dir=folder, split="train", cache_dir=cache)
    kinds = Features({"pixels": Array3D((side, side, 3), "uint8"), "label": found.features["label"]})
    stored = found.map(
        arrays, batched=True, num_proc=2, remove_columns=["image"], features=kinds, fn_kwargs={"side": side}
    )
    print(json.dumps({"rows": len(stored), "work": time.perf_counter() - started}), flush=True)
    pixels = stored.with_format("numpy")
    print(sum(int(part["pixels"].sum(dtype=np.int64)) for part in pixels.iter(1000)))


if __name__ == "__main__":
    main()
