"""Tables of every type of column, and models of every encoder and head over them."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import soundfile
import torch

from zhixing.columns import COLUMNS, Column
from zhixing.data.batches import Batch, Batches
from zhixing.data.prepare import Prepared, prepare
from zhixing.data.source import open_source
from zhixing.data.split import split
from zhixing.heads import HEADS
from zhixing.heads.decoders import DECODERS
from zhixing.model import Model
from zhixing.models import ENCODERS, encoders_for
from zhixing.recipe import Recipe
from zhixing.run import build_model, make_columns
from zhixing.settings import parameters_of

__all__ = [
    "CPU", "HEADS_AND_DECODERS", "HEAVY", "PAIRS", "WORDS",
    "clip", "fits", "made", "ready", "recipe_of", "table_of",
]  # fmt: skip

CPU = torch.device("cpu")
STEPS = [0, 1, None, 6, 2, 4, 3, 5]  # of each row; None: the cell is missing
ROWS = len(STEPS)
WORDS = ("the", "cat", "sat", "on", "a", "mat")


def clip(seconds: float, pitch: float) -> bytes:
    time = np.arange(round(seconds * 8000)) / 8000
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.3 * np.sin(2 * np.pi * pitch * time), 8000, format="WAV")
    return buffer.getvalue()


def cells_of(kind: str) -> list[Any]:
    """Eight cells of a type, the hard ones among them: nothing, one step, silence, missing."""
    draw = np.random.default_rng(3)
    if kind == "audio":  # silence, a single frame, and nothing at all
        lengths = (0.2, 0.025, None, 0.3, 0.1, 0.25, 0.15, 0.2)
        return [None if s is None else clip(s, 300.0 * row) for row, s in enumerate(lengths)]
    if kind == "image":
        return list(draw.integers(0, 256, (ROWS, 64, 64, 3), np.uint8))
    one_each: dict[str, Callable[[int], Any]] = {
        "category": lambda n: "abc"[n % 3],
        "date": lambda n: f"2026-0{1 + n}-15",
        "history": lambda n: [WORDS[-1 - i] for i in range(n)],
        "labels": lambda n: ["NV"[i % 2] for i in range(n)],
        "number": lambda n: n / 3,
        "series": lambda n: [[float(draw.normal()), None if i == 1 else 0.5 * i] for i in range(n)],
        "tags": lambda n: list("xyz"[: n % 4]),
        "text": lambda n: " ".join(WORDS[:n]),
    }
    assert set(one_each) | {"audio", "image"} == set(COLUMNS), "a new type of column needs cells here"
    return [None if n is None else one_each[kind](n) for n in STEPS]


TARGETS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "category": ({}, ["p", None, "q", "r", "p", "p", "q", "r"]),
    "labels": ({}, [None if not n else ["NVO"[i % 3] for i in range(n)] for n in STEPS]),
    "number": ({}, [0.5, None, 2.0, -1.0, 3.0, 0.0, 9.0, 4.0]),
    "series": ({}, [[1.0, 2.0], [None, 3.0], None, [4.0, 5.0], [0.0, 1.0], [2.0, None], [7.0, 8.0], [1.0, 1.0]]),
    "tags": ({}, [["u"], [], None, ["v", "u"], ["w"], [], ["u"], ["w", "v"]]),
    "text": ({"search": {"most": 4}, "tokenizer": "character"}, ["", "a", None, "cab", "bb", "abc", "c", "acab"]),
}
HEADS_AND_DECODERS = [
    *(kind for kind in HEADS if kind != "text"),
    *(f"text {name}" for name in DECODERS),
    "text transformer prefix",
]
SMALL = {"width": 8, "depth": 1, "heads": 2, "layers": 1, "embedding": 6, "channels": 8, "kernels": (2, 3), "kernel": 3}
SMALL |= {"subsample": 2, "dropout": 0.0, "stochastic_depth": 0.0, "dense": (8,), "widths": (8,)}
HEAVY = {
    "vgg13",
    "vgg16",
    "vgg19",
    "vgg13_bn",
    "vgg16_bn",
    "vgg19_bn",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
}
HEAVY |= {f"efficientnet_b{number}" for number in range(1, 8)}


def small(name: str, target: Any) -> dict[str, Any]:
    """Settings without chance that make an encoder or decoder small."""
    known = parameters_of(target)
    chosen = {key: value for key, value in SMALL.items() if key in known}
    if name == "cnn":
        chosen["layers"] = (4, "pool")
    return {"name": name, **chosen}


def input_settings(kind: str, encoder: str) -> dict[str, Any]:
    own: dict[str, Any] = {"audio": {"rate": 8000, "bands": 12}, "text": {"tokenizer": "word"}}.get(kind, {})
    if kind == "image":
        own = {"size": 64 if encoder == "alexnet" else 32}
    return {"type": kind, "encoder": small(encoder, ENCODERS[encoder]), **own}


def output_settings(head: str) -> dict[str, Any]:
    kind, *decoder = head.split()
    given = {"type": kind, **TARGETS[kind][0]}
    if decoder:
        given["decoder"] = small(decoder[0], DECODERS[decoder[0]])
        if decoder[1:]:
            given["decoder"]["join"] = "prefix"
    return given


def recipe_of(kind: str, encoder: str, heads: tuple[str, ...], seed: int = 0) -> Recipe:
    data = {"source": "memory", "split": {"train": 1.0, "validation": 0.0, "test": 0.0, "by": "random"}}
    outputs = {head.split()[0] + "_out": output_settings(head) for head in heads}
    return Recipe({"data": data, "inputs": {"x": input_settings(kind, encoder)}, "outputs": outputs, "seed": seed})


def table_of(kind: str) -> Any:
    return open_source({"x": cells_of(kind)} | {f"{name}_out": cells for name, (_, cells) in TARGETS.items()})


@cache
def ready(kind: str, size: int = 0) -> tuple[dict[str, Column], Prepared]:
    """All columns, fitted, and all rows, encoded; ``size`` tells pictures apart."""
    encoder = "alexnet" if size == 64 else next(iter(encoders_for(COLUMNS[kind].kind)))
    recipe = recipe_of(kind, encoder, tuple(name if name != "text" else "text ctc" for name in HEADS))
    table, columns = table_of(kind), make_columns(recipe)
    return columns, prepare(table, columns, split(table, recipe.data.split, 0), cache=None, on_error="skip")


def made(kind: str, encoder: str, head: str, seed: int = 0) -> tuple[Model, Batch]:
    """A model of one input and one head, in training, and all rows that it can use."""
    columns, prepared = ready(kind, 64 if encoder == "alexnet" else 32) if kind == "image" else ready(kind)
    recipe = recipe_of(kind, encoder, (head,), seed)
    tensors = {name: prepared.columns[name] for name in ("x", *recipe.outputs)}
    return build_model(recipe, columns), Batches(tensors, CPU).gather(prepared.split["train"])


def fits(encoder: str, head: str) -> bool:
    """Labels stand beside tokens that an encoder reads one by one."""
    return head != "labels" or (
        bool(ENCODERS[encoder].accepts & {"tokens", "sequence"}) and encoder not in ("conformer", "whisper")
    )


PAIRS = [(kind, encoder) for kind in COLUMNS for encoder in encoders_for(COLUMNS[kind].kind)]
