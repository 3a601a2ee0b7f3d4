"""Damaged checkpoints: ``python -m benchmarks.damage --flips 1000 --cuts 300 --pages 200``.

Takes two checkpoints of a training loop, damages a file of the newer one in one place, and asks for the newest good
one: a bit is flipped, the file is cut, or a page of 4096 bytes is zeroed (as a disk that lost a write leaves it). Each
time the damage must be told and the older checkpoint be given, with the very bits that were written. Prints one line of
JSON; ``silent`` counts what was loaded although it was damaged.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from zhixing.training.checkpoint import Checkpoint, latest, read_checkpoint, write_checkpoint

PAGE = 4096
Damage = Callable[[bytes, random.Random], bytes]


def flip(content: bytes, chance: random.Random) -> bytes:
    """One bit is another one."""
    place = chance.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]


def cut(content: bytes, chance: random.Random) -> bytes:
    """The end is missing."""
    return content[: chance.randrange(len(content))]


def zero(content: bytes, chance: random.Random) -> bytes:
    """A page holds zeros."""
    start = chance.randrange(-(-len(content) // PAGE)) * PAGE
    page = content[start : start + PAGE]
    return content[:start] + bytes(len(page)) + content[start + PAGE :]


def example(step: int) -> Checkpoint:
    """A checkpoint with tensors of several types and sizes, some of them full of zeros."""
    generator = torch.Generator().manual_seed(step)
    model = {
        "weight": torch.randn(64, 300, generator=generator),
        "bias": torch.zeros(300),
        "half": torch.randn(40, 7, generator=generator).bfloat16(),
        "count": torch.tensor(step),
        "none": torch.zeros(0, 3),
    }
    adam = {f"0.{i}.exp_avg": torch.randn(64, 300, generator=generator) for i in range(3)}
    return Checkpoint(step, {"model": model, "optimizer": adam}, {"progress": {"step": step}, "seed": 0})


def same(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether two checkpoints hold the same to the bit."""
    if (one.step, one.state, one.tensors.keys()) != (other.step, other.state, other.tensors.keys()):
        return False
    for group, tensors in one.tensors.items():
        if tensors.keys() != other.tensors[group].keys():
            return False
        for name, tensor in tensors.items():
            mate = other.tensors[group][name]
            raw = [x.reshape(-1).view(torch.uint8) for x in (tensor, mate)]
            if tensor.dtype != mate.dtype or tensor.shape != mate.shape or not torch.equal(*raw):
                return False
    return True


def survey(root: Path, damages: dict[Damage, int], seed: int) -> dict[str, Any]:
    """Damage the newer of two checkpoints below ``root``, many times, and count what comes of it."""
    older, newer = example(100), example(200)
    write_checkpoint(root, older)
    folder = write_checkpoint(root, newer)
    files = sorted(path for path in folder.iterdir())
    chance = random.Random(seed)
    found: Counter[str] = Counter()
    for damage, count in damages.items():
        done = 0
        while done < count:
            # Half of the time a file in proportion to its size, as a disk would have it; else any, the small ones too.
            sizes = [path.stat().st_size for path in files]
            path = chance.choices(files, sizes if done % 2 else None)[0]
            content = path.read_bytes()
            changed = damage(content, chance)
            if changed == content:  # a page that was zero before
                continue
            done += 1
            path.write_bytes(changed)
            given, wrong = latest(root)
            found[damage.__name__] += 1
            found["told"] += len(wrong) == 1 and str(folder) in str(wrong[0])
            found["fell_back"] += given is not None and same(given, older)
            found["silent"] += not wrong
            path.write_bytes(content)
    assert same(read_checkpoint(folder), newer)  # all damage was taken back
    return {name: found[name] for name in (*(d.__name__ for d in damages), "told", "fell_back", "silent")}


def main() -> None:
    parser = argparse.ArgumentParser(description="Damage checkpoints and count what is noticed.")
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--cuts", type=int, default=300)
    parser.add_argument("--pages", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    root = Path(tempfile.mkdtemp())
    try:
        found = survey(root, {flip: arguments.flips, cut: arguments.cuts, zero: arguments.pages}, arguments.seed)
    finally:
        shutil.rmtree(root)
    print(json.dumps(found))
    total = arguments.flips + arguments.cuts + arguments.pages
    sys.exit(0 if found["told"] == found["fell_back"] == total and not found["silent"] else 1)


if __name__ == "__main__":
    main()
