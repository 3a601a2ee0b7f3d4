"""Folders: of class folders with pictures, of pictures with a table beside them, of tables.

A folder may hold a million pictures: each directory is listed once, and no file is asked about by itself.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from ..errors import DataError
from .source_arrow import join, read_arrow_folder, read_saved
from .source_cells import SPLIT, SPLIT_ORDER, split_of
from .source_csv import read_csv
from .source_idx import read_idx_folder
from .source_json import read_json_lines
from .source_text import unpacked_suffix
from .table import Problem, Table, resolve

__all__ = ["PICTURES", "read_folder"]

PICTURES = frozenset(
    [".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"]
)
DROPPINGS = frozenset(("thumbs.db", "desktop.ini", "__macosx", "ehthumbs.db", "icon\r"))
BESIDE = ("metadata.csv", "metadata.jsonl", "labels.csv", "metadata.tsv", "labels.tsv", "labels.jsonl")
READERS = {".csv": read_csv, ".tsv": read_csv, ".jsonl": read_json_lines, ".ndjson": read_json_lines}


@dataclass
class Level:
    """One directory: names of its pictures and of its folders, sorted by code point, and what else lies there."""

    path: str
    prefix: str
    pictures: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    others: list[tuple[str, str]] = field(default_factory=list)  # name, why it is not a picture

    def below(self, folder: str, root: str) -> Level:
        return scan(os.path.join(self.path, folder), f"{self.prefix}{folder}/", root)


def read_folder(folder: Path) -> Table:
    """A table from a folder, by what lies in it; the first of these that fits:

    - what ``save_to_disk`` of the ``datasets`` library wrote; idx files; Parquet or Arrow files, also in folders below;
    - ``train.csv`` and ``test.csv`` (or ``.tsv``, ``.jsonl``; ``validation`` too): one table with a split column;
    - ``metadata.csv``, ``labels.csv`` (or ``.tsv``, ``.jsonl``) that names pictures beside it: that table;
    - class folders: columns ``image`` (paths relative to the folder) and ``label`` (the name of the class folder;
      folders within it belong to it). ``train``, ``val`` or ``valid`` or ``validation``, and ``test`` above the
      classes make a split column; pictures right in a split folder have no label;
    - pictures: one column ``image``.

    A single folder without pictures of its own around all the rest is passed through. Hidden files and the droppings
    of operating systems are ignored. Whatever else is not a picture is told of in ``problems``. So is a symbolic link
    that leads to a folder or out of the source: a link is followed only to a picture within it, lest a data set read
    what its owner did not put there, or go in circles.

    Raises:
        DataError: nothing to read, or a folder that can be read in two ways.
    """
    try:
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            return read_saved(folder)
        found = read_idx_folder(folder) or read_arrow_folder(folder) or split_files(folder) or beside(folder)
        return found or read_pictures(folder)
    except OSError as error:
        raise DataError(f"the folder cannot be read: {error.strerror}", place=error.filename or folder) from error


def split_files(folder: Path) -> Table | None:
    """``train.csv``, ``test.csv`` and the like."""
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        split = split_of(file.name.split(".")[0])
        if split is None or unpacked_suffix(file) not in READERS or not file.is_file():
            continue
        if split in found:
            told = f"{found[split].name} and {file.name}"
            raise DataError(f"two files are there for one split: {told}", place=folder, mend="Give one as the source.")
        found[split] = file
    if "train" not in found:
        return None
    order = sorted(found, key=SPLIT_ORDER.index)
    parts = [(split, READERS[unpacked_suffix(found[split])](found[split])) for split in order]
    return join(parts, name=folder.resolve().name, base=folder)


def beside(folder: Path) -> Table | None:
    """The table that lies beside the pictures and names them."""
    files = [folder / name for name in BESIDE if (folder / name).is_file()]
    if not files:
        return None
    tables = [READERS[file.suffix](file) for file in files]
    naming = [table for table in tables if names_files(table)]
    if len(naming) > 1:
        told = " and ".join(file.name for file in files)
        raise DataError(f"both {told} name files", place=folder, mend="Give one of them as the source.")
    if naming:
        naming[0].name = folder.resolve().name
        return naming[0]
    if any(entry.is_dir() for entry in folder.iterdir() if not ignored(entry.name)):
        return None  # a list of classes or the like; the class folders tell the rest
    raise DataError("no column names a file that is there", place=files[0], mend="Name files relative to this folder.")


def names_files(table: Table, rows: int = 20) -> bool:
    """Whether one of the first cells of some column names a file."""
    texts = (name for name in table.columns if pa.types.is_string(table[name].type))
    return any(is_file(table.base, cell) for name in texts for cell in table[name].slice(0, rows).to_pylist() if cell)


def is_file(base: Path | None, cell: str) -> bool:
    try:
        return resolve(base, cell).is_file()
    except (DataError, OSError):  # a text too long to be a name is an OSError
        return False


def ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in DROPPINGS


def scan(path: str, prefix: str, root: str) -> Level:
    """List one directory; only links are looked at more closely."""
    level = Level(path, prefix)
    with os.scandir(path) as entries:
        for entry in entries:
            name = entry.name
            if ignored(name):
                continue
            if entry.is_symlink():
                reason = wrong_link(entry, root)
            elif entry.is_dir(follow_symlinks=False):
                level.folders.append(name)
                continue
            else:
                reason = "" if entry.is_file(follow_symlinks=False) else "neither a file nor a folder"
            reason = reason or wrong_name(name)
            if reason:
                level.others.append((name, reason))
            else:
                level.pictures.append(name)
    level.pictures.sort()
    level.folders.sort()
    level.others.sort()
    return level


def wrong_link(entry: os.DirEntry[str], root: str) -> str:
    target = os.path.realpath(entry.path)
    if not os.path.isfile(target):
        return "a symbolic link to a folder, which is not followed" if os.path.isdir(target) else "a broken link"
    return "" if target.startswith(os.path.join(root, "")) else f"a symbolic link out of the folder, to {target}"


def wrong_name(name: str) -> str:
    suffix = os.path.splitext(name)[1]
    if suffix.lower() not in PICTURES:
        return (
            f"not a picture: the suffix {suffix!r} is none of theirs" if suffix else "not a picture: it has no suffix"
        )
    try:
        name.encode()
    except UnicodeEncodeError:
        return "the name is not UTF-8"
    return ""


@dataclass
class Rows:
    """Paths, labels and splits as they are found."""

    root: str
    images: list[str] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, path: str, reason: str) -> None:
        shown = path.encode("utf-8", "backslashreplace").decode()
        self.problems.append(Problem(len(self.images), "image", shown, reason))

    def add(self, level: Level, label: str | None, *, deep: bool) -> None:
        """The pictures of a level, and with ``deep`` those of the folders below it, all of one class."""
        for name, reason in level.others:
            self.problem(os.path.join(level.path, name), reason)
        self.images += [level.prefix + name for name in level.pictures]
        self.labels += [label] * len(level.pictures)
        if deep:
            for folder in level.folders:
                self.add(level.below(folder, self.root), label, deep=True)

    def add_classes(self, level: Level) -> None:
        """A level whose folders are classes; pictures beside those have none."""
        if not level.folders:
            self.add(level, None, deep=False)
            return
        for name in level.pictures:
            self.problem(os.path.join(level.path, name), "lies beside class folders, so it has no class")
        for name, reason in level.others:
            self.problem(os.path.join(level.path, name), reason)
        for folder in level.folders:
            self.add(level.below(folder, self.root), folder, deep=True)


def read_pictures(folder: Path) -> Table:
    """Pictures, in class folders or not, in split folders or not."""
    root = os.path.realpath(folder)
    rows = Rows(root)
    level = descend(scan(str(folder), "", root), rows)
    splits = split_folders(level)
    split_column: list[str] = []
    if splits:
        for name, reason in [*level.others, *((name, "lies beside split folders") for name in level.pictures)]:
            rows.problem(os.path.join(level.path, name), reason)
        for split, name in splits:
            rows.add_classes(level.below(name, root))
            split_column += [split] * (len(rows.images) - len(split_column))
    else:
        rows.add_classes(level)
    if not rows.images:
        raise nothing(folder, level, rows)
    columns = {"image": pa.array(rows.images, pa.string())}
    if any(label is not None for label in rows.labels):
        columns["label"] = pa.array(rows.labels, pa.string())
    if splits:
        columns[SPLIT] = pa.array(split_column, pa.string())
    images = rows.images
    return Table(
        pa.table(columns),
        name=folder.resolve().name,
        base=folder,
        split_column=SPLIT if splits else None,
        place=lambda row: str(folder / images[row]),
        problems=rows.problems,
    )


def descend(level: Level, rows: Rows) -> Level:
    """Pass through folders that hold one folder and no picture, as an unpacked archive does."""
    while len(level.folders) == 1 and not level.pictures:
        lower = level.below(level.folders[0], rows.root)
        if lower.pictures or not lower.folders:
            break
        for name, reason in level.others:
            rows.problem(os.path.join(level.path, name), reason)
        level = lower
    return level


def split_folders(level: Level) -> list[tuple[str, str]]:
    """(split, folder) in the order train, validation, test; none where the folders are classes."""
    found = [(split, name) for name in level.folders if (split := split_of(name))]
    known = [split for split, _ in found]
    if len(found) < 2 or "train" not in known:
        return []
    if len(set(known)) < len(known):
        told = ", ".join(repr(name) for split, name in found if known.count(split) > 1)
        raise DataError(f"two folders are there for one split: {told}", place=level.path, mend="Keep one of them.")
    others = [name for name in level.folders if not split_of(name)]
    if others:
        raise DataError(
            f"beside split folders lie others: {', '.join(map(repr, others[:5]))}",
            place=level.path,
            mend="Move them away, or rename the split folders if they are classes.",
        )
    return sorted(found, key=lambda pair: SPLIT_ORDER.index(pair[0]))


def nothing(folder: Path, level: Level, rows: Rows) -> DataError:
    tables = [name for name, _ in level.others if Path(name).suffix.lower() in READERS]
    if tables:
        return DataError(
            "the folder holds no picture", place=folder, mend=f"For the table give {level.prefix}{tables[0]}."
        )
    seen = f"; the first thing that is none: {rows.problems[0].place}" if rows.problems else ""
    return DataError(f"the folder holds no picture{seen}", place=folder)
