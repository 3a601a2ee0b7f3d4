"""Explanations as files: one page, one JSON file, pictures."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import UsageError
from ..report.explanations import page
from ..report.files import write_atomically
from .explain import Explained
from .pictures import curve_picture, enlarged, parts_picture, tokens_picture, uri_picture

__all__ = ["as_json", "check_out", "encoded", "pictures_of", "write"]

ARRAYS = ("values", "features", "raw")  # of pictures, sounds and series, number by number
NAME = re.compile(r"[^-.\w]+")


def as_json(value: Any, *, arrays: bool = True) -> Any:
    """Facts as plain JSON, numbers to 5 digits; without ``arrays``, only what a page draws."""
    if isinstance(value, dict):
        return {
            str(key): as_json(item, arrays=arrays)
            for key, item in value.items()
            if arrays or not isinstance(item, np.ndarray)
        }
    if isinstance(value, np.ndarray):
        return as_json(value.tolist())
    if isinstance(value, list | tuple):
        return [as_json(item, arrays=arrays) for item in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    return int(value) if isinstance(value, np.integer) else str(value)


def encoded(facts: dict[str, Any], *, arrays: bool = True) -> bytes:
    """Facts as the bytes of a JSON file."""
    return (json.dumps(as_json(facts, arrays=arrays), ensure_ascii=False) + "\n").encode("utf-8", "replace")


def check_out(out: Path) -> None:
    """Refuse a place that nothing can be written to, before any work is done."""
    if out.suffix.lower() in (".html", ".json"):
        if not out.parent.is_dir():
            raise UsageError("there is no such folder", place=out.parent)
    elif out.suffix.lower() == ".png" or (out.suffix and not out.is_dir()):
        raise UsageError(
            f"explanations are not written as {out.suffix}", place=out, mend="Use .html, .json, or a folder for all."
        )
    elif out.is_file():
        raise UsageError("this is a file", place=out, mend="Name a folder, or a file that ends in .html or .json.")


def write(explained: Explained, out: Path, title: str) -> list[Path]:
    """Write a page (.html), all numbers (.json), or into a folder both and a picture for each map; gives the paths."""
    facts = explained.facts
    if out.suffix.lower() == ".html":
        return [write_atomically(out, page(as_json(facts, arrays=False), title))]
    if out.suffix.lower() == ".json":
        return [write_atomically(out, encoded(facts).decode())]
    out.mkdir(parents=True, exist_ok=True)
    paths = write(explained, out / "explanations.html", title) + write(explained, out / "explanations.json", title)
    for name, picture in pictures_of(facts):
        picture.save(out / f"{name}.png", optimize=True)
        paths.append(out / f"{name}.png")
    return paths


def pictures_of(facts: dict[str, Any]) -> Iterator[tuple[str, Image.Image]]:
    """A name and a picture for each row, method and column; those of plain columns in one."""
    for row in facts["rows"]:
        for method, found in row["maps"].items():
            stem = f"row-{row['row']}-{method}"
            parts = []
            for one in found["columns"]:
                if one["shown"]["kind"] == "parts":
                    parts += [(f"{p['name']} = {p['cell']}", p["attribution"]) for p in one["shown"]["parts"]]
                else:
                    yield f"{stem}-{NAME.sub('_', one['name'])}", drawn(one["shown"])
            if parts:
                yield f"{stem}-columns", parts_picture(sorted(parts, key=lambda part: -abs(part[1])))


def drawn(shown: dict[str, Any]) -> Image.Image:
    if shown["kind"] == "tokens":
        return tokens_picture([(text, value) for text, value in shown["pieces"]])
    if shown["kind"] == "curve":
        return curve_picture(shown["features"])
    return enlarged(uri_picture(shown["picture"]))
