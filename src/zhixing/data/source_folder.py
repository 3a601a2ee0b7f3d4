"""Folders: of class folders with pictures, sounds or texts, of such files with a table beside them, of tables.

A folder may hold a million pictures: each directory is listed once, and no file is asked about by itself.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from ..errors import DataError
from .source_arrow import join, read_arrow_folder, read_saved
from .source_cells import SPLIT, SPLIT_ORDER, split_of
from .source_csv import read_csv
from .source_idx import read_idx_folder
from .source_json import read_json_lines
from .source_lines import read_text
from .source_series import read_series_folder
from .source_text import not_utf8, read_utf8, unpacked_suffix
from .table import Problem, Table, resolve

__all__ = ["PICTURES", "SOUNDS", "read_folder"]

PICTURES = frozenset(
    [".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"]
)
SOUNDS = frozenset(
    [".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64"]
)
TEXTS = frozenset([".txt"])
DROPPINGS = frozenset(("thumbs.db", "desktop.ini", "__macosx", "ehthumbs.db", "icon\r"))
BESIDE = ("metadata.csv", "metadata.jsonl", "labels.csv", "metadata.tsv", "labels.tsv", "labels.jsonl")
READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": read_csv, ".tsv": read_csv, ".jsonl": read_json_lines, ".ndjson": read_json_lines,
}  # fmt: skip


class Kind(NamedTuple):
    """What the files of a folder may be: the name of their column, what one is called, and how its name may end."""

    column: str
    word: str
    suffixes: frozenset[str]


KINDS = (Kind("image", "picture", PICTURES), Kind("audio", "sound", SOUNDS), Kind("text", "text", TEXTS))
KIND_OF = {suffix: kind for kind in KINDS for suffix in kind.suffixes}


@dataclass
class Level:
    """One directory: its files, those of the kind that is read, what else lies there and why it is not read, and the
    directories in it; all sorted by code point."""

    path: str
    prefix: str
    name: str = ""
    files: list[str] = field(default_factory=list)
    media: list[str] = field(default_factory=list)
    folders: list[Level] = field(default_factory=list)
    others: list[tuple[str, str]] = field(default_factory=list)

    def count(self) -> Counter[Kind]:
        """How many files of each kind lie here and below."""
        found = Counter(kind for name in self.files if (kind := kind_of(name)))
        for folder in self.folders:
            found += folder.count()
        return found

    def choose(self, kind: Kind) -> None:
        """Take the files of one kind; the others are told of."""
        self.media = [name for name in self.files if kind_of(name) is kind]
        self.others += [(name, f"not a {kind.word}: {ending(name)}") for name in self.files if kind_of(name) != kind]
        self.others.sort()
        for folder in self.folders:
            folder.choose(kind)


def kind_of(name: str) -> Kind | None:
    return KIND_OF.get(os.path.splitext(name)[1].lower())


def ending(name: str) -> str:
    suffix = os.path.splitext(name)[1]
    return f"the suffix {suffix!r} is none of theirs" if suffix else "it has no suffix"


def read_folder(folder: Path) -> Table:
    """A table from a folder, by what lies in it; the first of these that fits:

    - what ``save_to_disk`` of the ``datasets`` library wrote; idx files; Parquet or Arrow files, also in folders below;
    - ``train.csv`` and ``test.csv`` (or ``.tsv``, ``.jsonl``; ``validation`` too): one table with a split column;
    - ``NAME_TRAIN.ts`` and ``NAME_TEST.ts`` (or ``.arff``), time series: one table with a split column;
    - ``metadata.csv``, ``labels.csv`` (or ``.tsv``, ``.jsonl``) that names files beside it: that table;
    - class folders of pictures, sounds or texts: a column ``image`` or ``audio`` (paths relative to the folder) or
      ``text`` (what the ``.txt`` files say), and ``label`` (the name of the class folder; folders within it belong to
      it). ``train``, ``val`` or ``valid`` or ``validation``, and ``test`` above the classes make a split column; files
      right in a split folder have no label;
    - pictures, sounds or texts: that one column. ``train.txt`` and ``test.txt`` alone, or a single ``.txt`` file, are
      read as such a file is (:func:`zhixing.data.source_lines.read_text`).

    Of several kinds the commonest is read, on equal numbers the one that is named first above. A single folder without
    such files of its own around all the rest is passed through. Hidden files and the droppings of operating systems
    are ignored. Whatever else lies there is told of in ``problems``. So is a symbolic link that leads to a folder or
    out of the source: a link is followed only to a file within it, lest a data set read what its owner did not put
    there, or go in circles.

    Raises:
        DataError: nothing to read, or a folder that can be read in two ways.
    """
    try:
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            return read_saved(folder)
        found = read_idx_folder(folder) or read_arrow_folder(folder) or split_files(folder, READERS)
        return found or read_series_folder(folder) or beside(folder) or read_media(folder)
    except OSError as error:
        raise DataError(f"the folder cannot be read: {error.strerror}", place=error.filename or folder) from error


def split_files(folder: Path, readers: Mapping[str, Callable[[Path], Table]]) -> Table | None:
    """``train.csv``, ``test.csv`` and the like."""
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        split = split_of(file.name.split(".")[0])
        if split is None or unpacked_suffix(file) not in readers or not file.is_file():
            continue
        if split in found:
            told = f"{found[split].name} and {file.name}"
            raise DataError(f"two files are there for one split: {told}", place=folder, mend="Give one as the source.")
        found[split] = file
    if "train" not in found:
        return None
    order = sorted(found, key=SPLIT_ORDER.index)
    parts = [(split, readers[unpacked_suffix(found[split])](found[split])) for split in order]
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


def scan(path: str, prefix: str, root: str, name: str = "") -> Level:
    """List a directory and those in it; only links are looked at more closely."""
    level = Level(path, prefix, name)
    below: list[str] = []
    with os.scandir(path) as entries:
        for entry in entries:
            name = entry.name
            if ignored(name):
                continue
            if entry.is_symlink():
                reason = wrong_link(entry, root)
            elif entry.is_dir(follow_symlinks=False):
                below.append(name)
                continue
            else:
                reason = "" if entry.is_file(follow_symlinks=False) else "neither a file nor a folder"
            reason = reason or wrong_name(name)
            if reason:
                level.others.append((name, reason))
            else:
                level.files.append(name)
    level.files.sort()
    level.folders = [scan(os.path.join(path, name), f"{prefix}{name}/", root, name) for name in sorted(below)]
    return level


def wrong_link(entry: os.DirEntry[str], root: str) -> str:
    target = os.path.realpath(entry.path)
    if not os.path.isfile(target):
        return "a symbolic link to a folder, which is not followed" if os.path.isdir(target) else "a broken link"
    return "" if target.startswith(os.path.join(root, "")) else f"a symbolic link out of the folder, to {target}"


def wrong_name(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        return "the name is not UTF-8"
    return ""


@dataclass
class Rows:
    """Paths, labels and splits as they are found."""

    kind: Kind
    files: list[str] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, level: Level, name: str, reason: str) -> None:
        shown = os.path.join(level.path, name).encode("utf-8", "backslashreplace").decode()
        self.problems.append(Problem(len(self.files), self.kind.column, shown, reason))

    def tell_others(self, level: Level) -> None:
        for name, reason in level.others:
            self.problem(level, name, reason)

    def add(self, level: Level, label: str | None, *, deep: bool) -> None:
        """The files of a level, and with ``deep`` those of the folders below it, all of one class."""
        self.tell_others(level)
        self.files += [level.prefix + name for name in level.media]
        self.labels += [label] * len(level.media)
        if deep:
            for folder in level.folders:
                self.add(folder, label, deep=True)

    def add_classes(self, level: Level) -> None:
        """A level whose folders are classes; files beside those have none."""
        if not level.folders:
            self.add(level, None, deep=False)
            return
        for name in level.media:
            self.problem(level, name, "lies beside class folders, so it has no class")
        self.tell_others(level)
        for folder in level.folders:
            self.add(folder, folder.name, deep=True)


def read_media(folder: Path) -> Table:
    """Pictures, sounds or texts, in class folders or not, in split folders or not."""
    level = scan(str(folder), "", os.path.realpath(folder))
    count = level.count()
    kind = max(KINDS, key=lambda kind: count[kind])  # the first of equals
    level.choose(kind)
    rows = Rows(kind)
    if kind.column == "text" and not level.folders and (found := read_flat(folder, level, rows)):
        return found
    level = descend(level, rows)
    splits = split_folders(level)
    split_column: list[str] = []
    if splits:
        rows.tell_others(level)
        for name in level.media:
            rows.problem(level, name, "lies beside split folders")
        for split, below in splits:
            rows.add_classes(below)
            split_column += [split] * (len(rows.files) - len(split_column))
    else:
        rows.add_classes(level)
    if not rows.files:
        raise nothing(folder, level, rows)
    return table_of(folder, rows, split_column)


def read_flat(folder: Path, level: Level, rows: Rows) -> Table | None:
    """A single text, or those of the splits; None where each of several is a row. A table beside texts goes first."""
    if any(Path(name).suffix.lower() in READERS for name, _ in level.others):
        raise nothing(folder, level, rows)
    found = read_text(folder / level.media[0]) if len(level.media) == 1 else split_files(folder, {".txt": read_text})
    if found:
        rows.tell_others(level)
        found.problems = [*rows.problems, *found.problems]
    return found


def table_of(folder: Path, rows: Rows, split_column: list[str]) -> Table:
    files, kind = rows.files, rows.kind
    cells: list[str | None] = read_contents(folder, rows) if kind.column == "text" else [*files]
    columns = {kind.column: pa.array(cells, pa.string())}
    if any(label is not None for label in rows.labels):
        columns["label"] = pa.array(rows.labels, pa.string())
    if split_column:
        columns[SPLIT] = pa.array(split_column, pa.string())
    return Table(
        pa.table(columns),
        name=folder.resolve().name,
        base=folder,
        split_column=SPLIT if split_column else None,
        place=lambda row: str(folder / files[row]),
        problems=sorted(rows.problems, key=lambda problem: problem.row),
    )


def read_contents(folder: Path, rows: Rows) -> list[str | None]:
    """What each file says, missing and told of where it cannot be read or is not UTF-8."""
    texts: list[str | None] = []
    undecoded: list[tuple[Path, bytes]] = []
    for row, name in enumerate(rows.files):
        path, text, reason = folder / name, None, ""
        try:
            content = read_utf8(path)
            text = content.decode("utf-8").replace("\r\n", "\n").strip() or None
        except DataError as error:
            reason = error.what
        except UnicodeDecodeError:
            reason = "the text is not UTF-8"
            undecoded.append((path, content))
        if reason:
            rows.problems.append(Problem(row, "text", str(path), reason, fatal=False))
        texts.append(text)
    if len(undecoded) * 2 > len(texts):
        raise not_utf8(*undecoded[0])
    return texts


def descend(level: Level, rows: Rows) -> Level:
    """Pass through folders that hold one folder and no file of the kind, as an unpacked archive does."""
    while len(level.folders) == 1 and not level.media:
        lower = level.folders[0]
        if lower.media or not lower.folders:
            break
        rows.tell_others(level)
        level = lower
    return level


def split_folders(level: Level) -> list[tuple[str, Level]]:
    """(split, folder) in the order train, validation, test; none where the folders are classes."""
    found = [(split, folder) for folder in level.folders if (split := split_of(folder.name))]
    known = [split for split, _ in found]
    if len(found) < 2 or "train" not in known:
        return []
    if len(set(known)) < len(known):
        told = ", ".join(repr(folder.name) for split, folder in found if known.count(split) > 1)
        raise DataError(f"two folders are there for one split: {told}", place=level.path, mend="Keep one of them.")
    others = [folder.name for folder in level.folders if not split_of(folder.name)]
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
        mend = f"For the table give {level.prefix}{tables[0]}."
        return DataError(f"the folder holds no {rows.kind.word} that a row could be", place=folder, mend=mend)
    what = "the folder holds no picture, sound or text"
    seen = f"; the first thing that is none: {rows.problems[0].place}" if rows.problems else ""
    return DataError(f"{what}{seen}", place=folder)
