"""Is every broken row told of, and no other? ``python -m benchmarks.broken_rows`` prints one line of JSON.

A CSV of 10,000 rows (a picture, a number, a class, a day, and the class to predict), 500 of them broken in 25 ways,
goes through reading, splitting and preparing; what is reported is compared with what is known.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zhixing.columns import COLUMNS, Column
from zhixing.data.prepare import Prepared, prepare
from zhixing.data.source import open_source
from zhixing.data.split import SplitSettings, split
from zhixing.data.table import Problem, Table

FILES = 300
HEADER = "photo,amount,kind,day,label,split"
KINDS, LABELS = ("red", "green", "blue"), ("cat", "dog", "北京")
LOST = ("too few cells", "too many cells")


@dataclass(frozen=True)
class Way:
    """One way to break a row: how, in which column, words of the reason, and whether the row can still be used."""

    change: Callable[[list[str]], None]
    column: str
    reason: str
    fatal: bool = True


def put(place: int, cell: str) -> Callable[[list[str]], None]:
    return lambda cells: cells.__setitem__(place, cell)


def unseen(cells: list[str]) -> None:
    cells[4], cells[5] = "unicorn", "test"


WAYS = {
    "truncated": Way(put(0, "bad/cut.jpg"), "photo", "truncated"),
    "empty file": Way(put(0, "bad/empty.png"), "photo", "empty"),
    "text": Way(put(0, "bad/text.png"), "photo", "not a picture"),
    "wrong suffix": Way(put(0, "bad/jpeg.png"), "photo", "called .png but holds JPEG", False),
    "bomb": Way(put(0, "bad/bomb.png"), "photo", "decompression bomb"),
    "missing": Way(put(0, "bad/none.jpg"), "photo", "missing"),
    "folder": Way(put(0, "bad"), "photo", "a folder"),
    "zero byte": Way(put(0, "good/0\0.png"), "photo", "zero byte"),
    "URL": Way(put(0, "https://example.org/a.png"), "photo", "URL"),
    "no path": Way(put(0, ""), "photo", "empty"),
    "animated": Way(put(0, "bad/moving.gif"), "photo", "first of 3 frames", False),
    "not a grey": Way(put(0, "bad/nan.tif"), "photo", "outside 0 … 65535"),
    "NaN": Way(put(1, "NaN"), "amount", "NaN", False),
    "infinite": Way(put(1, "-inf"), "amount", "not finite"),
    "no number": Way(put(1, "12 apples"), "amount", "not a number"),
    "thousands": Way(put(1, '"1,234.5"'), "amount", "not a number"),
    "too few cells": Way(lambda cells: cells.__delitem__(2), "", "6 cells expected, 5 found"),
    "too many cells": Way(lambda cells: cells.append("more"), "", "6 cells expected, 7 found"),
    "not UTF-8": Way(put(2, "re\udcff"), "kind", "not UTF-8", False),
    "unseen": Way(unseen, "label", "in no training row"),
    "no target": Way(put(4, ""), "label", "empty"),
    "no date": Way(put(3, "soon"), "day", "not a date"),
    "impossible date": Way(put(3, "2026-02-30"), "day", "not a date"),
    "year 10000": Way(put(3, "10000-01-01"), "day", "not a date"),
    "duplicate": Way(lambda cells: None, "", "repeats row", False),
}


@dataclass
class Truth:
    """What is known of the table: the cells of each of its rows, and what must be reported."""

    path: Path
    rows: list[list[str]] = field(default_factory=list)
    expected: dict[tuple[int, str], tuple[Way, str]] = field(default_factory=dict)  # by row and column
    lost: dict[str, tuple[int, Way]] = field(default_factory=dict)  # by place


def save_pictures(folder: Path) -> None:
    """Good files of every mode and format, each of one brightness; and the bad ones."""
    good, bad = folder / "good", folder / "bad"
    good.mkdir(parents=True)
    bad.mkdir()
    for index in range(FILES):
        mode = ("RGB", "L", "CMYK", "P", "RGBA", "1", "I;16")[index % 7]
        grey = Image.new("L", (12, 12), brightness(index))
        if mode == "I;16":
            picture = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
        elif mode == "CMYK":
            picture = grey.convert("RGB").convert("CMYK")
        else:
            picture = grey.convert(mode)
        picture.save(good / f"{index}.{'jpg' if mode in ('RGB', 'L', 'CMYK') else 'png'}", quality=95)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    noise.save(bad / "cut.jpg")
    (bad / "cut.jpg").write_bytes((bad / "cut.jpg").read_bytes()[:1500])
    (bad / "empty.png").touch()
    (bad / "text.png").write_text("this is no picture")
    noise.save(bad / "jpeg.png", "JPEG")
    Image.new("1", (8000, 8000)).save(bad / "bomb.png")
    frames = [Image.new("L", (12, 12), shade) for shade in (0, 100, 200)]
    frames[0].save(bad / "moving.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(np.full((12, 12), np.nan, np.float32)).save(bad / "nan.tif")


def brightness(index: int) -> int:
    return 0 if index % 7 == 5 else index % 250


def make(folder: Path, rows: int = 10_000, each: int = 20) -> Truth:
    """The files and the CSV, with ``each`` rows broken in each way."""
    save_pictures(folder)
    draw = np.random.default_rng(1)
    broken = np.sort(draw.permutation(np.arange(50, rows))[: each * len(WAYS)])
    way_of = dict(zip(broken.tolist(), draw.permutation(np.repeat(list(WAYS), each)).tolist(), strict=True))
    truth = Truth(folder / "table.csv")
    lines = [HEADER]
    for number in range(rows):
        suffix = "jpg" if number % FILES % 7 < 3 else "png"
        cells = [f"good/{number % FILES}.{suffix}", str(number), KINDS[number % 3], f"2026-03-{number % 28 + 1:02}"]
        cells += [LABELS[number * 7 % 3], ("train", "train", "train", "Valid", "test")[number % 5]]
        name = way_of.get(number)
        if name == "duplicate":
            cells = list(truth.rows[int(draw.integers(0, 50))])
        elif name is not None:
            WAYS[name].change(cells)
        lines.append(",".join(cells))
        place = f"{truth.path}, line {len(lines)}"
        if name in LOST:
            truth.lost[place] = len(truth.rows), WAYS[name]
            continue
        if name is not None:
            if WAYS[name].column == "photo" and cells[0] and "\0" not in cells[0] and ":" not in cells[0]:
                place = str(folder / cells[0])
            truth.expected[len(truth.rows), WAYS[name].column] = WAYS[name], place
        truth.rows.append(cells)
    truth.path.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    return truth


def columns() -> dict[str, Column]:
    kinds = {"photo": "image", "amount": "number", "kind": "category", "day": "date"}
    made = {name: COLUMNS[kind]() for name, kind in kinds.items()}
    made["label"] = COLUMNS["category"]()
    made["label"].role = "output"
    return made


def read(truth: Truth, cache: Path | None, on_error: str = "skip") -> tuple[Table, dict[str, Column], Prepared]:
    """The way of the data, up to tensors."""
    table, made = open_source(truth.path), columns()
    return table, made, prepare(table, made, split(table, SplitSettings(), 0), cache=cache, on_error=on_error)


def right(truth: Truth, problem: Problem) -> bool:
    """Whether a report is one that must be, with its row, place, reason and gravity."""
    if problem.column == "" and problem.place in truth.lost:
        row, way = truth.lost[problem.place]
        return problem.row == row and way.reason in problem.reason and problem.fatal
    expected = truth.expected.get((problem.row, problem.column))
    if expected is None:
        return False
    way, place = expected
    return way.reason in problem.reason and problem.place == place and problem.fatal == way.fatal


def order_kept(truth: Truth, made: dict[str, Column], prepared: Prepared) -> bool:
    """Whether each usable row is still itself and in its place, and no unusable one has taken another's picture."""
    fatal = {row for (row, _), (way, _) in truth.expected.items() if way.fatal}
    touched = {row for row, _ in truth.expected}
    for part, names in (("train", ("train",)), ("validation", ("Valid",)), ("test", ("test",))):
        usable = [row for row, cells in enumerate(truth.rows) if cells[5] in names and row not in fatal]
        if prepared.split[part].tolist() != usable:
            return False
    clean = np.array([row for row in range(len(truth.rows)) if row not in touched])
    cells: dict[str, Any] = {name: made[name].restore(prepared.columns[name].values[clean]) for name in made}
    light = prepared.columns["photo"].values.float().mean((1, 2, 3))
    for place, row in enumerate(clean.tolist()):
        _, amount, kind, day, label, _ = truth.rows[row]
        if (cells["kind"][place], cells["day"][place], cells["label"][place]) != (kind, day, label):
            return False
        if abs(cells["amount"][place] - float(amount)) > 0.01 or abs(light[row] - brightness(int(amount) % FILES)) > 2:
            return False
    bad_photos = [row for (row, column), (way, _) in truth.expected.items() if column == "photo" and way.fatal]
    return not bool(light[bad_photos].any())


def measure(folder: Path) -> dict[str, Any]:
    truth = make(folder)
    _, made, prepared = read(truth, folder / "cache")
    good = [problem for problem in prepared.problems if right(truth, problem)]
    return {
        "broken": len(truth.expected) + len(truth.lost),
        "ways": len(WAYS),
        "reported": len({(p.row, p.column, p.place) for p in good}),
        "wrongly_reported": len(prepared.problems) - len(good),
        "order_kept": order_kept(truth, made, prepared),
    }


@contextmanager
def folder_of(arguments: list[str]) -> Iterator[Path]:
    if arguments:
        yield Path(arguments[0])
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


if __name__ == "__main__":
    with folder_of(sys.argv[1:]) as folder:
        print(json.dumps(measure(folder)))
