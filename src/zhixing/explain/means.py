"""Means over many rows of a class: where its evidence lies as a rule."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .pictures import as_uri, overlay, spectrogram

__all__ = ["Means"]

WORDS = 20  # pieces of text that are shown of each class
OFTEN = 2  # rows of a class that a piece has to be in
Array = NDArray[Any]


class Sums:
    """Sums of arrays of unequal length along their first axis."""

    def __init__(self) -> None:
        self.total: Array = np.zeros(0)
        self.count: Array = np.zeros(0)

    def add(self, values: Array) -> None:
        values = np.nan_to_num(np.asarray(values, float))
        if len(values) > len(self.total):
            longer = np.zeros((len(values), *values.shape[1:]))
            longer[: len(self.total)] = self.total if self.total.size else 0.0
            self.total = longer
            self.count = np.pad(self.count, (0, len(values) - len(self.count)))
        self.total[: len(values)] += values
        self.count[: len(values)] += 1

    @property
    def mean(self) -> Array:
        return self.total / np.maximum(self.count, 1).reshape(-1, *[1] * (self.total.ndim - 1))


class Means:
    """Means of one column's facts over the rows of one class.

    Pictures and sounds: the mean map over the mean picture; series: mean values and attribution by step; texts: the
    pieces with most attribution a row; plain columns: mean attribution, for classes by what stands in the cell.
    """

    def __init__(self, name: str, kind: str) -> None:
        self.name, self.type, self.rows = name, kind, 0
        self.kind = ""
        self.maps, self.plain = Sums(), Sums()
        self.words: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self.weight = 0.0

    def add(self, facts: dict[str, Any], plain: Array | None) -> None:
        """Take in a row's facts; ``plain`` [H, W] is the picture itself, 0 … 255."""
        shown = facts["shown"]
        self.kind, self.rows, self.weight = shown["kind"], self.rows + 1, self.weight + facts["weight"]
        if self.kind == "picture":
            self.maps.add(shown["values"])
            if plain is not None:
                self.plain.add(plain)
        elif self.kind == "bands":
            self.maps.add(shown["values"])
            self.plain.add(shown["features"])
        elif self.kind == "curve":
            self.maps.add(shown["values"])
            self.plain.add(shown["raw"])
        else:
            for text, value in self.named(shown):
                entry = self.words[text]
                entry[0], entry[1] = entry[0] + value, entry[1] + 1

    def named(self, shown: dict[str, Any]) -> list[tuple[str, float]]:
        """Each piece of a text once a row, with the sum of what it was given; each part of a plain column."""
        if self.kind == "tokens":
            found: dict[str, float] = defaultdict(float)
            for text, value in shown["pieces"]:
                if value is not None and text.strip():
                    found[text.strip()] += value
            return list(found.items())
        of_classes = self.type == "category"  # whose attribution is another in each class
        return [
            (f"{part['name']} = {part['cell']}" if of_classes else part["name"], part["attribution"])
            for part in shown["parts"]
        ]

    def facts(self) -> dict[str, Any]:
        """The means in the form of a row's facts."""
        return {"name": self.name, "type": self.type, "weight": self.weight / max(1, self.rows), "shown": self.shown()}

    def shown(self) -> dict[str, Any]:
        if self.kind == "picture":
            grey = self.plain.mean if self.plain.total.size else np.full(self.maps.mean.shape, 255.0)
            drawn = overlay(self.maps.mean, Image.fromarray(np.rint(grey).astype(np.uint8)))
            return {"kind": "picture", "picture": as_uri(drawn), "values": self.maps.mean, "top": []}
        if self.kind == "bands":
            drawn = spectrogram(self.plain.mean, self.maps.mean)
            return {"kind": "bands", "picture": as_uri(drawn, 640), "values": self.maps.mean, "top": []}
        if self.kind == "curve":
            values, raw = self.maps.mean, self.plain.mean
            order = np.argsort(-np.abs(values).sum(0), kind="stable")[:4]
            names = [self.name] if raw.shape[1] == 1 else [f"{self.name} [{i}]" for i in range(raw.shape[1])]
            features = [
                {"name": names[i], "values": raw[:, i].tolist(), "attribution": values[:, i].tolist()} for i in order
            ]
            return {"kind": "curve", "features": features, "values": values, "top": []}
        least = 1 if self.kind == "parts" else min(OFTEN, self.rows)
        often = [(text, total, count) for text, (total, count) in self.words.items() if count >= least]
        # Of a text, what a piece adds to the class as a whole; of a plain column, what it adds where it stands.
        often.sort(key=lambda one: (-abs(one[1]), one[0]))
        parts = [
            {
                "name": text,
                "cell": f"{count:.0f} row{'s' if count != 1 else ''}",
                "attribution": total / (count if self.kind == "parts" else self.rows),
            }
            for text, total, count in (often if self.kind == "parts" else often[:WORDS])
        ]
        return {"kind": "parts", "parts": parts, "top": []}
