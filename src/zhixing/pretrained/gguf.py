"""GGUF, the file format of llama.cpp: settings, then tensors, some of them quantised in blocks.

A file is a head (magic, version, counts), key-value pairs, a directory of tensors and, aligned, their data. Dimensions
stand with the fastest first, here they are reversed: rows before columns. Blocks hold 32 or 256 numbers as small whole
numbers with a scale; a number is ``scale x quant``, less a block's own minimum where the kind has one. All multi-byte
values are little-endian.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

__all__ = ["GGUF", "KINDS", "Entry", "Kind", "dequantise"]

Blocks = NDArray[np.uint8]  # [N, bytes of a block]
Floats = NDArray[np.float32]  # [N, numbers of a block]
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
MOST = 1 << 28  # entries of a list, or bytes of a string, beyond which a head is damaged


class Kind(NamedTuple):
    """A way to store numbers: how many a block has, how many bytes it takes, and how they are found."""

    name: str
    numbers: int
    bytes: int
    decode: Callable[[Blocks], Floats]


def half(blocks: Blocks, start: int) -> Floats:
    """The half-precision number at this byte of each block, [N, 1]."""
    return np.ascontiguousarray(blocks[:, start : start + 2]).view("<f2").astype(np.float32)


def nibbles(packed: Blocks) -> NDArray[np.uint8]:
    """Low halves of all bytes, then high halves: [N, B] to [N, 2B]."""
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def fifth_bits(blocks: Blocks, start: int) -> NDArray[np.uint8]:
    """32 bits from this byte on, as 0 or 16, [N, 32]."""
    return np.unpackbits(blocks[:, start : start + 4], axis=1, bitorder="little") << np.uint8(4)


def plain(kind: str) -> Callable[[Blocks], Floats]:
    def decode(blocks: Blocks) -> Floats:
        return np.array(np.ascontiguousarray(blocks).view(kind), np.float32)  # a copy: the file cannot be written to

    return decode


def bf16(blocks: Blocks) -> Floats:
    wide: NDArray[np.uint32] = np.ascontiguousarray(blocks).view("<u2").astype(np.uint32) << np.uint32(16)
    found: Floats = wide.view(np.float32)
    return found


def q4_0(blocks: Blocks) -> Floats:
    return half(blocks, 0) * (nibbles(blocks[:, 2:]).astype(np.float32) - 8)


def q4_1(blocks: Blocks) -> Floats:
    return half(blocks, 0) * nibbles(blocks[:, 4:]).astype(np.float32) + half(blocks, 2)


def q5_0(blocks: Blocks) -> Floats:
    quants = nibbles(blocks[:, 6:]) | fifth_bits(blocks, 2)
    return half(blocks, 0) * (quants.astype(np.float32) - 16)


def q5_1(blocks: Blocks) -> Floats:
    quants = nibbles(blocks[:, 8:]) | fifth_bits(blocks, 4)
    return half(blocks, 0) * quants.astype(np.float32) + half(blocks, 2)


def q8_0(blocks: Blocks) -> Floats:
    return half(blocks, 0) * blocks[:, 2:].view(np.int8).astype(np.float32)


def six_bit_pairs(packed: Blocks) -> tuple[Floats, Floats]:
    """Eight scales and eight minima of 6 bits each, packed into 12 bytes: [N, 8, 1] each."""
    first, second, rest = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate([first & 63, (rest & 15) | (first >> 6 << 4)], axis=1)
    minima = np.concatenate([second & 63, (rest >> 4) | (second >> 6 << 4)], axis=1)
    return scales.astype(np.float32)[:, :, None], minima.astype(np.float32)[:, :, None]


def q4_k(blocks: Blocks) -> Floats:
    """Four stretches of 32 bytes, whose low halves are one group of 32 numbers and whose high halves the next."""
    scales, minima = six_bit_pairs(blocks[:, 4:16])
    packed = blocks[:, 16:144].reshape(-1, 4, 1, 32)
    quants = np.concatenate([packed & 15, packed >> 4], axis=2).reshape(-1, 8, 32).astype(np.float32)
    out = half(blocks, 0)[:, :, None] * scales * quants - half(blocks, 2)[:, :, None] * minima
    return out.reshape(len(blocks), 256)


def q5_k(blocks: Blocks) -> Floats:
    """As :func:`q4_k`; bit g of byte i of the high bits belongs to number i of group g."""
    scales, minima = six_bit_pairs(blocks[:, 4:16])
    high = blocks[:, 16:48].reshape(-1, 1, 32) >> np.arange(8, dtype=np.uint8)[None, :, None] & 1
    packed = blocks[:, 48:176].reshape(-1, 4, 1, 32)
    low = np.concatenate([packed & 15, packed >> 4], axis=2).reshape(-1, 8, 32)
    quants = (low | high << 4).astype(np.float32)
    out: Floats = half(blocks, 0)[:, :, None] * scales * quants - half(blocks, 2)[:, :, None] * minima
    return out.reshape(len(blocks), 256)


def q6_k(blocks: Blocks) -> Floats:
    """Two halves of 128 numbers: 64 bytes of low bits (four each), 32 bytes of high bits (two each), a scale of 8 bits
    for each 16 numbers, and one for all."""
    low = blocks[:, :128].reshape(-1, 2, 2, 32)
    low = np.stack([low[:, :, 0] & 15, low[:, :, 1] & 15, low[:, :, 0] >> 4, low[:, :, 1] >> 4], axis=2)
    shifts = np.array([0, 2, 4, 6], np.uint8)[None, None, :, None]
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> shifts & 3
    quants = (low | high << 4).astype(np.float32).reshape(-1, 16, 16) - 32
    scales = blocks[:, 192:208].view(np.int8).astype(np.float32)[:, :, None]
    return (half(blocks, 208)[:, :, None] * scales * quants).reshape(len(blocks), 256)


KINDS: dict[int, Kind] = {
    0: Kind("F32", 1, 4, plain("<f4")),
    1: Kind("F16", 1, 2, plain("<f2")),
    2: Kind("Q4_0", 32, 18, q4_0),
    3: Kind("Q4_1", 32, 20, q4_1),
    6: Kind("Q5_0", 32, 22, q5_0),
    7: Kind("Q5_1", 32, 24, q5_1),
    8: Kind("Q8_0", 32, 34, q8_0),
    12: Kind("Q4_K", 256, 144, q4_k),
    13: Kind("Q5_K", 256, 176, q5_k),
    14: Kind("Q6_K", 256, 210, q6_k),
    28: Kind("F64", 1, 8, plain("<f8")),
    30: Kind("BF16", 1, 2, bf16),
}


def dequantise(raw: NDArray[np.uint8], kind: Kind) -> NDArray[np.float32]:
    """The numbers of some whole blocks, [S] float32.

    >>> dequantise(np.array([0, 60, *range(32)], np.uint8), KINDS[8])[:4]  # a scale of 1 and 32 small numbers
    array([0., 1., 2., 3.], dtype=float32)
    """
    return kind.decode(raw.reshape(-1, kind.bytes)).reshape(-1)


class Entry(NamedTuple):
    """Where a tensor lies."""

    shape: tuple[int, ...]
    kind: int
    offset: int


class GGUF:
    """The settings and the directory of a file; tensors are read and dequantised one by one.

    Raises:
        DataError: it is no GGUF file, or is cut short.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place = 0
        self.settings: dict[str, Any] = {}
        self.tensors: dict[str, Entry] = {}
        try:
            with path.open("rb") as file:
                self.memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self.read_head()
        except (struct.error, ValueError, OverflowError, UnicodeDecodeError, KeyError) as error:
            raise self.damaged(f"its head cannot be read ({type(error).__name__}: {error})") from error
        for name, entry in self.tensors.items():
            if entry.kind in KINDS and self.start + entry.offset + self.size(entry) > len(self.memory):
                raise self.damaged(f"it ends before the tensor {name}")

    def damaged(self, what: str) -> DataError:
        told = "this is no GGUF file, or it is cut short or damaged"
        return DataError(f"{told}: {what}", place=self.path, mend="Fetch it again.")

    def take(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self.memory, self.place)
        self.place += struct.calcsize(form)
        return value

    def text(self) -> str:
        size = self.take("<Q")
        if size > MOST or self.place + size > len(self.memory):
            raise ValueError(f"a string of {size} bytes")
        self.place += size
        return self.memory[self.place - size : self.place].decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            return self.take(SCALARS[kind])
        inner, count = self.take("<I"), self.take("<Q")
        if count > MOST or inner == ARRAY:
            raise ValueError(f"a list of {count} entries of kind {inner}")
        if inner == STRING:
            return [self.text() for _ in range(count)]
        form = np.dtype(SCALARS[inner])
        found = np.frombuffer(self.memory, form, count, self.place).tolist()
        self.place += count * form.itemsize
        return found

    def read_head(self) -> None:
        if self.memory[:4] != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        self.place = 4
        version, tensors, pairs = self.take("<I"), self.take("<Q"), self.take("<Q")
        if version not in (2, 3):
            raise ValueError(f"version {version}; 2 and 3 are read")
        for _ in range(pairs):
            key = self.text()
            self.settings[key] = self.value(self.take("<I"))
        for _ in range(tensors):
            name, dimensions = self.text(), self.take("<I")
            if dimensions > 8:
                raise ValueError(f"{dimensions} dimensions")
            shape = tuple(self.take("<Q") for _ in range(dimensions))[::-1]
            self.tensors[name] = Entry(shape, self.take("<I"), self.take("<Q"))
        step = int(self.settings.get("general.alignment", 32))
        self.start = -(-self.place // step) * step

    def size(self, entry: Entry) -> int:
        kind = KINDS[entry.kind]
        return math.prod(entry.shape) // kind.numbers * kind.bytes

    def read(self, name: str) -> NDArray[np.float32]:
        """One tensor.

        Raises:
            DataError: it is quantised in a way that is not known here.
        """
        entry = self.tensors[name]
        if entry.kind not in KINDS:
            raise DataError(
                f"the tensor {name} is quantised in a way that is not read (number {entry.kind})",
                place=self.path,
                mend=f"Take a file in one of {', '.join(kind.name for kind in KINDS.values())}.",
            )
        raw = np.frombuffer(self.memory, np.uint8, self.size(entry), self.start + entry.offset)
        return dequantise(raw, KINDS[entry.kind]).reshape(entry.shape)
