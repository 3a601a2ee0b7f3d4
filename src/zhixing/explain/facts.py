"""Attributions as facts for people: what a page draws, a JSON file keeps and means are taken of.

=========  ================================================================================================
kind       beside ``top``, the parts that count most with their attribution
=========  ================================================================================================
picture    ``picture``, a heat map over it; ``values`` [H][W]
bands      the same of a sound: bands over time
tokens     ``pieces``: parts of the text and what each was given, null where no token stands for it
curve      ``features``: of each its ``name``, ``values`` and ``attribution`` by step
parts      ``parts``: numbers, classes, tags, dates: ``name``, ``cell``, ``attribution``
=========  ================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..columns import Column
from ..columns.category import Category
from ..columns.number import Number
from ..columns.series import Series
from ..columns.tags import Tags
from .pictures import as_uri, overlay, spectrogram
from .spans import pieces_of
from .subject import Entry

__all__ = ["facts_of"]

TOP = 5
CURVES = 4  # features of a series that are drawn: those with most
Part = tuple[str, str, float]  # a name, the cell as a person reads it, its attribution
Facts = dict[str, Any]


def facts_of(entry: Entry, row: int, stored: Tensor, cell: Any, cells: Tensor, *, whole: bool = False) -> Facts:
    """What is shown of one column of one row.

    Args:
        row: its number in the batch.
        stored: what is stored of it, without padding.
        cell: what stands in the table.
        cells: its attribution, in the shape of the entry's cells.
        whole: whether only their sum says anything.
    """
    real = cells if entry.mask is None else cells[entry.mask[row]]
    values = real.detach().cpu().double()
    draw = as_whole if whole else DRAWN.get(entry.column.type) or DRAWN[entry.spec.kind]
    shown = draw(entry, row, stored, cell, values.numpy())
    return {
        "name": entry.name,
        "type": entry.column.type,
        "total": float(values.sum()),
        "weight": float(values.abs().sum()),
        "shown": shown,
    }


def strongest(named: list[tuple[str, float]], most: int = TOP) -> list[list[Any]]:
    return [list(one) for one in sorted(named, key=lambda one: -abs(one[1]))[:most] if one[1] != 0]


def picture(entry: Entry, row: int, stored: Tensor, cell: Any, values: NDArray[np.float64]) -> Facts:
    flat = values.sum(0)
    plain = entry.column.restore(stored[None])[0]
    places = [(f"{entry.name}, row {y}, column {x}", float(flat[y, x])) for y, x in strong_places(flat)]
    return {"kind": "picture", "picture": as_uri(overlay(flat, plain)), "values": flat, "top": strongest(places)}


def strong_places(values: NDArray[np.float64]) -> list[tuple[int, int]]:
    order = np.argsort(-np.abs(values), axis=None, kind="stable")[:TOP]
    return [(int(y), int(x)) for y, x in zip(*np.unravel_index(order, values.shape), strict=True)]


def bands(entry: Entry, row: int, stored: Tensor, cell: Any, values: NDArray[np.float64]) -> Facts:
    assert entry.mask is not None
    heard = entry.point[row][entry.mask[row]].detach().cpu().numpy()
    places = [(f"{entry.name}, frame {t}, band {f}", float(values[t, f])) for t, f in strong_places(values)]
    drawn = as_uri(spectrogram(heard, values), 640)
    return {"kind": "bands", "picture": drawn, "values": values, "features": heard, "top": strongest(places)}


def tokens(entry: Entry, row: int, stored: Tensor, cell: Any, values: NDArray[np.float64]) -> Facts:
    ids = [int(token) for token in stored.tolist()][: len(values)]
    pieces = pieces_of(entry.column, cell, ids, [float(value) for value in values[: len(ids)]])
    named = [(text, value) for text, value in pieces if value is not None]
    return {"kind": "tokens", "pieces": [list(piece) for piece in pieces], "top": strongest(named)}


def curve(entry: Entry, row: int, stored: Tensor, cell: Any, values: NDArray[np.float64]) -> Facts:
    raw = stored.detach().cpu().double().numpy()
    names = [entry.name] if raw.shape[1] == 1 else [f"{entry.name} [{i}]" for i in range(raw.shape[1])]
    column = entry.column
    if isinstance(column, Series):
        raw = column.unscale(stored)
        values = values.copy()
        for place, feature in enumerate(np.flatnonzero(column.gaps)):  # that a value is missing belongs to it
            values[:, feature] += values[:, column.features + place]
        values, names = values[:, : column.features], names[: column.features]
        names = [entry.name] if column.features == 1 else names
    order = np.argsort(-np.abs(values).sum(0), kind="stable")[:CURVES]
    features = [{"name": names[i], "values": raw[:, i].tolist(), "attribution": values[:, i].tolist()} for i in order]
    places = [(f"{names[f]}, step {t}", float(values[t, f])) for t, f in strong_places(values)] if values.size else []
    return {"kind": "curve", "features": features, "values": values, "raw": raw, "top": strongest(places)}


def plain(entry: Entry, row: int, stored: Tensor, cell: Any, values: NDArray[np.float64]) -> Facts:
    parts = parts_of(entry.column, entry.name, stored, values)
    listed = [{"name": name, "cell": text, "attribution": value} for name, text, value in parts]
    named = [(f"{name} = {text}" if text else name, value) for name, text, value in parts]
    return {"kind": "parts", "parts": listed, "top": strongest(named)}


def as_whole(entry: Entry, row: int, stored: Tensor, cell: Any, values: NDArray[np.float64]) -> Facts:
    text, total = entry.column.show(stored).get("text", ""), float(values.sum())
    part = {"name": entry.name, "cell": text, "attribution": total}
    return {"kind": "parts", "parts": [part], "top": strongest([(entry.name, total)])}


@singledispatch
def parts_of(column: Column, name: str, stored: Tensor, values: NDArray[np.float64]) -> list[Part]:
    """What of a plain column is shown by itself: unless a type says otherwise, the whole cell."""
    return [(name, column.show(stored).get("text", ""), float(values.sum()))]


@parts_of.register
def number_parts(column: Number, name: str, stored: Tensor, values: NDArray[np.float64]) -> list[Part]:
    """Each quantity, with what its being missing was given."""
    cell = column.restore(stored[None])[0]
    cells = cell if isinstance(cell, list) else [cell]
    each = values.reshape(-1, column.length).sum(0)
    names = [name] if column.length == 1 else [f"{name} [{i}]" for i in range(column.length)]
    shown = ["empty" if x is None else f"{x:.4g}" for x in cells]
    return list(zip(names, shown, each.tolist(), strict=True))


@parts_of.register
def tag_parts(column: Tags, name: str, stored: Tensor, values: NDArray[np.float64]) -> list[Part]:
    """Each tag that the cell has."""
    flags = stored.tolist()
    each = zip(column.classes, flags, values.tolist(), strict=True)
    return [(f"{name}: {tag}", "yes", value) for tag, flag, value in each if flag]


@parts_of.register
def category_parts(column: Category, name: str, stored: Tensor, values: NDArray[np.float64]) -> list[Part]:
    cell = column.restore(stored.reshape(1))[0]
    return [(name, "empty" if cell is None else str(cell), float(values.sum()))]


Draw = Callable[[Entry, int, Tensor, Any, NDArray[np.float64]], Facts]
# By the type of a column, or else by the kind of what it gives.
DRAWN: dict[str, Draw] = {
    "audio": bands,
    "image": picture,
    "tokens": tokens,
    "sequence": curve,
    "vector": plain,
    "ids": plain,
}
