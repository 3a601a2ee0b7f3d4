"""The idx format of MNIST and its kin: a header of big-endian sizes, then the numbers.

Byte 2 of the header is the type, byte 3 the number of dimensions; see http://yann.lecun.com/exdb/mnist/.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import DataError
from .source_arrow import join
from .source_cells import from_mapping
from .table import Table

__all__ = ["is_idx", "read_idx", "read_idx_array", "read_idx_folder"]

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
NAME = re.compile(r"(?P<part>.*?)[-_.]?(?P<what>images|labels)[-_.]idx(?P<dims>\d)(-[a-z]+)?(\.gz)?", re.IGNORECASE)
DEFLATE = 1032  # deflate never shrinks more than this many times
PIECE = 1 << 24


def is_idx(path: Path) -> bool:
    """Whether the file is called as idx files are: ``train-images-idx3-ubyte``, with or without ``.gz``."""
    return NAME.fullmatch(path.name) is not None


def read_idx_array(path: Path) -> np.ndarray[Any, Any]:
    """The array in one idx file, plain or gzip, in the machine's byte order.

    No more is unpacked than the header declares, and the header may not declare more than the file can hold.

    Raises:
        DataError: a file that is not idx, is cut short, or goes on after its end.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            size = path.stat().st_size * (DEFLATE if packed else 1)
            if packed:
                with gzip.open(raw) as unpacked:
                    return parse(unpacked, size, path)  # type: ignore[arg-type]
            return parse(raw, size, path)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"the file cannot be read: {error}", place=path, mend="Fetch it again.") from error


def parse(stream: IO[bytes], limit: int, path: Path) -> np.ndarray[Any, Any]:
    head = stream.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in TYPES or head[3] == 0:
        raise DataError(f"the file is not idx: it starts with {head!r}", place=path)
    sizes = stream.read(4 * head[3])
    if len(sizes) < 4 * head[3]:
        raise DataError("the file ends within its header", place=path, mend="Fetch it again.")
    shape = struct.unpack(f">{head[3]}I", sizes)
    kind = np.dtype(TYPES[head[2]])
    declared = math.prod(shape) * kind.itemsize
    if declared > limit:
        raise DataError(
            f"the header declares {declared} bytes ({' x '.join(map(str, shape))}), more than the file can hold",
            place=path,
            mend="Fetch it again.",
        )
    content = bytearray()
    while len(content) < declared and (piece := stream.read(min(PIECE, declared - len(content)))):
        content += piece
    if len(content) < declared:
        raise DataError(
            f"the file ends after {len(content)} of the {declared} bytes that its header declares",
            place=path,
            mend="Fetch it again.",
        )
    if stream.read(1):
        raise DataError(f"the file goes on after the {declared} bytes that its header declares", place=path)
    return np.frombuffer(content, kind).reshape(shape).astype(kind.newbyteorder("="), copy=False)


def read_idx(path: Path) -> Table:
    """A table from one idx file, with the labels (or the pictures) that lie beside it under the matching name."""
    match = NAME.fullmatch(path.name)
    if match is None:
        return table(path, {"value": path})
    files = find(path.parent, match["part"])
    files[match["what"].lower()] = path
    return table(path, files)


def read_idx_folder(folder: Path) -> Table | None:
    """The idx files of a folder; None where there are none.

    Names that hold ``train``, and ``test`` or ``t10k``, make a split column. A file that lies there both plain and
    packed is read plain.

    Raises:
        DataError: labels without pictures, different numbers of them, parts that do not make one table.
    """
    matches = [match for file in sorted(folder.iterdir()) if (match := NAME.fullmatch(file.name)) and file.is_file()]
    if not matches:
        return None
    parts: dict[str, Table] = {}
    for part in dict.fromkeys(match["part"] for match in matches):
        files = find(folder, part)
        if "images" not in files:
            raise DataError("there are labels, and no pictures that belong to them", place=files["labels"])
        split = "train" if "train" in part else "test" if "test" in part or "t10k" in part else part
        if split in parts:
            raise DataError(f"there is more than one set of files for {split!r}", place=folder)
        parts[split] = table(files["images"], files)
    if len(parts) == 1:
        (only,) = parts.values()
        only.name = folder.resolve().name
        return only
    if set(parts) != {"train", "test"}:
        raise DataError(
            f"the idx files make parts {', '.join(map(repr, sorted(parts)))}, which are not train and test",
            place=folder,
            mend="Give one of the files as the source, or keep one data set in a folder.",
        )
    return join([(split, parts[split]) for split in ("train", "test")], name=folder.resolve().name, base=folder)


def find(folder: Path, part: str) -> dict[str, Path]:
    """``images`` and ``labels`` of one part of a folder; packed files come last, so that plain ones win."""
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir(), key=lambda file: (file.name.endswith(".gz"), file.name)):
        match = NAME.fullmatch(file.name)
        if match and match["part"] == part:
            found.setdefault(match["what"].lower(), file)
    return found


def table(path: Path, files: dict[str, Path]) -> Table:
    names = {"images": "image", "labels": "label"}
    arrays = {names.get(what, what): read_idx_array(files[what]) for what in sorted(files)}
    data = from_mapping(arrays, place=path)
    name = path.name.split(".")[0]
    return Table(data, name=name, base=path.parent, place=lambda row: f"{path}, row {row}")
