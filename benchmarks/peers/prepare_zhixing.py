"""A folder of pictures to stored tensors by Zhixing: ``prepare_zhixing.py FOLDER CACHE SIDE``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch

from zhixing.columns import COLUMNS
from zhixing.data.prepare import prepare
from zhixing.data.source import open_source
from zhixing.data.split import SplitSettings, split


def main() -> None:
    folder, cache, side = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    started = time.perf_counter()
    table = open_source(folder)
    columns = {"image": COLUMNS["image"](size=side), "label": COLUMNS["category"]()}
    columns["label"].role = "output"
    parts = split(table, SplitSettings(), 0, target="label")
    pixels = prepare(table, columns, parts, cache=cache).columns["image"].values
    print(json.dumps({"rows": len(pixels), "work": time.perf_counter() - started}), flush=True)
    print(sum(int(part.sum(dtype=torch.int64)) for part in pixels.split(1000)))


main()
