"""Healthy data for the doctor's suite, with recipes for them, and ways to break them. All is drawn from fixed seeds."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zhixing.data.catalogue import load

from .data import photo_patches, spam
from .doctor_parts import FAULTY, Plain
from .near import groups_of_near_duplicates

__all__ = [
    "SMALL_CNN", "TRAINING", "Subject", "augmented", "digits", "faulty", "homes", "language", "machines", "mails",
    "photos", "relabel", "repeat", "rng", "take", "thin", "tones", "tumours", "with_split",
]  # fmt: skip

SMALL_CNN = {"name": "cnn", "layers": [8, "pool", 16, "pool"], "dense": [32]}
TRAINING = {"batch_size": 32}


@dataclass
class Subject:
    """What is handed to the doctor. ``run`` asks for a real run to be made of it first, whose folder is examined;
    ``spoil`` changes a file of that run."""

    source: Any
    recipe: dict[str, Any] = field(default_factory=dict)
    encoder: Any = None
    run: bool = False
    spoil: Callable[[Path], None] | None = None


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# Where they start ---------------------------------------------------------------------------------------------------


@cache
def mnist(rows: int = 900, start: int = 0) -> tuple[np.ndarray, list[str]]:
    table = load("mnist").take(range(start, start + rows))
    return table["image"].combine_chunks().to_numpy_ndarray(), table["label"].to_pylist()


def digits(rows: int = 900, encoder: Any = SMALL_CNN, **training: Any) -> Subject:
    pictures, labels = mnist(rows)
    recipe = {
        "inputs": {"image": {"type": "image", **({"encoder": encoder} if encoder else {})}},
        "outputs": {"label": {"type": "category"}},
        "training": {**TRAINING, **training},
    }
    return Subject({"image": pictures.copy(), "label": list(labels)}, recipe)


@cache
def cancer() -> Any:
    return load("breast-cancer").data.to_pandas()


def tumours(encoder: Any = None, **training: Any) -> Subject:
    """Thirty numbers of 569 tumours, and what they turned out to be."""
    frame = cancer().sample(frac=1, random_state=0)
    recipe = {
        "outputs": {"target": {"type": "category"}},
        "fusion": {"name": "concat", "widths": [32]},
        "training": {**TRAINING, "epochs": 10, **training},
    }
    return Subject({**{one: frame[one].to_numpy() for one in frame.columns if one != "diagnosis"},
                    "target": frame["diagnosis"].tolist()}, recipe, encoder)  # fmt: skip


def homes(rows: int = 900, seed: int = 0) -> Subject:
    """Made-up homes: numbers, classes, a day of sale, and a price with noise."""
    random = rng(seed)
    size = random.gamma(9, 11, rows).round(1)
    rooms = np.clip((size / 28 + random.normal(0, 0.7, rows)).round(), 1, 9).astype(int)
    town = random.choice(["Aarau", "Basel", "Chur", "Davos"], rows, p=[0.3, 0.4, 0.2, 0.1])
    age = random.integers(0, 90, rows)
    worth = {"Aarau": 5.0, "Basel": 7.5, "Chur": 4.5, "Davos": 9.0}
    price = size * np.array([worth[one] for one in town]) * (1 - age / 250) * np.exp(random.normal(0, 0.12, rows))
    day = np.datetime64("2023-01-01") + random.integers(0, 700, rows).astype("timedelta64[D]")
    source = {"size": size, "rooms": rooms, "town": town.tolist(), "age": age, "sold": day.astype(str).tolist(),
              "price": price.round(2)}  # fmt: skip
    recipe = {
        "outputs": {"price": {"type": "number", "scale": "log"}},
        "inputs": {"rooms": {"type": "number"}, "age": {"type": "number"}},
        "data": {"others": "read"},
        "fusion": {"name": "concat", "widths": [32]},
        "training": {**TRAINING, "epochs": 10},
    }
    return Subject(source, recipe)


@cache
def messages(rows: int = 800) -> tuple[list[str], list[str]]:
    """Short e-mails without their headers, no two nearly equal, as many of either kind."""
    found = [json.loads(line) for line in spam().read_text("utf-8").splitlines()]
    bodies = [" ".join(one["text"].partition("\n\n")[2].split()) for one in found]
    kept = [i for i, body in enumerate(bodies) if 80 < len(body) < 1500 and body.isascii()]
    groups = groups_of_near_duplicates([bodies[i] for i in kept])
    kept = [i for place, i in enumerate(kept) if groups[place] == place]
    ham, junk = ([i for i in kept if found[i]["label"] == label] for label in ("ham", "spam"))
    count = min(len(ham), len(junk), rows // 2)
    chosen = rng().permutation(ham[:count] + junk[:count])
    return [bodies[i] for i in chosen], [found[i]["label"] for i in chosen]


def mails(encoder: Any = None, rows: int = 800, length: int = 320, **training: Any) -> Subject:
    texts, labels = messages(rows)
    column = {"type": "text", "tokenizer": "word", "length": length}
    recipe = {
        "inputs": {"text": {**column, "encoder": encoder or {"name": "bag", "width": 32}}},
        "outputs": {"label": {"type": "category"}},
        "training": {**TRAINING, "epochs": 15, **training},
    }
    return Subject({"text": list(texts), "label": list(labels)}, recipe)


@cache
def motion() -> tuple[list[Any], list[str]]:
    """Eight-second courses of made-up machines: five kinds of vibration, with noise, drift and other lengths."""
    random, cells, labels = rng(3), [], []
    for _ in range(700):
        kind = int(random.integers(5))
        steps = int(random.integers(50, 70))
        time = np.arange(steps) / 10
        phase, speed = random.uniform(0, 6.3), random.normal(1, 0.05)
        one = np.sin((1 + kind) * speed * time + phase) + 0.3 * random.normal(size=steps)
        other = np.cos((5 - kind) * speed * time + phase) * (1 + 0.2 * kind) + 0.3 * random.normal(size=steps)
        cells.append(np.stack([one, other, 0.5 * random.normal(size=steps)], 1).round(4).tolist())
        labels.append(f"kind {kind}")
    return cells, labels


def machines(encoder: Any = None, **training: Any) -> Subject:
    cells, labels = motion()
    recipe = {
        "inputs": {"course": {"type": "series", "encoder": encoder or {"name": "gru", "width": 24}}},
        "outputs": {"label": {"type": "category"}},
        "training": {**TRAINING, "epochs": 15, **training},
    }
    return Subject({"course": copy.deepcopy(cells), "label": list(labels)}, recipe)


def tones(folder: Path, *, change: Callable[[int, np.ndarray], np.ndarray] = lambda i, x: x) -> Subject:
    """Clips of three kinds of sound, half a second each, as files."""
    import soundfile

    random, paths, labels = rng(4), [], []
    time = np.arange(4000) / 8000
    folder.mkdir(parents=True, exist_ok=True)
    for row in range(180):
        kind = ("hum", "chirp", "buzz")[row % 3]
        pitch, level = random.uniform(150, 500), random.uniform(0.1, 0.5)
        if kind == "hum":
            wave = np.sin(2 * np.pi * pitch * time)
        elif kind == "chirp":
            wave = np.sin(2 * np.pi * (pitch + 900 * time) * time)
        else:
            overtones = [np.sin(2 * np.pi * pitch * n * time + random.uniform(0, 6)) / n for n in range(1, 6)]
            wave = np.sum(overtones, axis=0) / 2
        wave = level * wave + 0.01 * random.normal(size=4000)
        path = folder / f"{row:04}.wav"
        soundfile.write(path, change(row, wave).clip(-1, 1), 8000, subtype="PCM_16")
        paths.append(str(path))
        labels.append(kind)
    recipe = {
        "inputs": {"sound": {"type": "audio", "rate": 8000, "bands": 24, "encoder": {"name": "gru", "width": 24}}},
        "outputs": {"label": {"type": "category"}},
        "training": TRAINING,
    }
    return Subject({"sound": paths, "label": labels}, recipe)


def photos(folder: Path, *, rows: int = 160, change: Callable[[int, Image.Image], Any] = lambda i, x: x) -> Subject:
    """Patches of two photographs in class folders; ``change`` may give another picture, or bytes that are none."""
    for kind in ("flower", "temple"):
        (folder / kind).mkdir(parents=True)
        for place, path in enumerate(sorted((photo_patches() / "train" / kind).glob("*.jpg"))[: rows // 2]):
            made = change(2 * place + (kind == "temple"), Image.open(path))
            target = folder / kind / f"{place:04}.png"
            if isinstance(made, bytes):
                target.write_bytes(made)
            else:
                made.save(target)
    recipe = {
        "inputs": {"image": {"type": "image", "size": 32, "encoder": SMALL_CNN}},
        "outputs": {"label": {"type": "category"}},
        "training": TRAINING,
    }
    return Subject(str(folder), recipe)


# Ways to break them ---------------------------------------------------------------------------------------------------


def with_split(subject: Subject, test: np.ndarray) -> Subject:
    """Rows where ``test`` is true are for testing; of the others, training takes nine tenths."""
    parts = np.where(test, "test", np.where(rng(9).random(len(test)) < 0.12, "validation", "train"))
    subject.source["split"] = parts.tolist()
    subject.recipe.setdefault("data", {})["split"] = {"by": "column", "column": "split"}
    if "inputs" not in subject.recipe:
        subject.recipe["inputs"] = {name: None for name in subject.source if name not in ("target", "split")}
    return subject


def take(subject: Subject, rows: np.ndarray) -> Subject:
    subject.source = {
        name: values[rows] if isinstance(values, np.ndarray) else [values[i] for i in rows]
        for name, values in subject.source.items()
    }
    return subject


def repeat(subject: Subject, share: float) -> Subject:
    """Some rows stand in the table twice."""
    rows = len(next(iter(subject.source.values())))
    copies = rng(5).choice(rows, int(share * rows), replace=False)
    return take(subject, rng(6).permutation(np.concatenate([np.arange(rows), copies])))


def relabel(subject: Subject, share: float, name: str = "label") -> Subject:
    """Some labels are replaced by another class."""
    labels, random = list(subject.source[name]), rng(7)
    classes = sorted(set(labels))
    for row in random.choice(len(labels), int(share * len(labels)), replace=False):
        labels[row] = str(random.choice([one for one in classes if one != labels[row]]))
    subject.source[name] = labels
    return subject


def thin(subject: Subject, share: float, kind: str, name: str = "label") -> Subject:
    """Of one class only so many rows are left."""
    labels = np.array(subject.source[name])
    lost = (labels == kind) & (rng(8).random(len(labels)) > share)
    return take(subject, np.flatnonzero(~lost))


def faulty(name: str, subject: Subject, features: int, vocabulary: int = 0, column: str | None = None) -> Subject:
    """The subject with an encoder of one's own that has a fault."""
    import torch

    torch.manual_seed(0)
    module = FAULTY[name](features, vocabulary=vocabulary) if name else Plain(features, vocabulary=vocabulary)
    for settings in (subject.recipe.get("inputs") or {}).values():
        if settings and column is None:
            settings.pop("encoder", None)
    subject.encoder = {column: module} if column else module
    return subject


def augmented(subject: Subject) -> Subject:
    subject.recipe["inputs"]["image"]["augment"] = {"name": "light"}
    return subject


def language() -> Subject:
    texts, _ = messages()
    column = {"type": "text", "tokenizer": "character", "length": 64, "packed": True,
              "decoder": {"name": "transformer", "width": 32, "depth": 2, "heads": 2}}  # fmt: skip
    return Subject({"text": texts[:300]}, {"outputs": {"text": column}, "training": TRAINING})
