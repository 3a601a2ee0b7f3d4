"""Sounds: opening, decoding, mixing, resampling. What of it a column uses is in :mod:`zhixing.columns.audio`.

Shape legend: S samples. Samples are int16, as on a compact disc: 32768 stands for 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, MissingExtraError
from .column import Locate, existing_file, shorten

__all__ = ["FULL", "SUFFIXES", "Clip", "describe_failure", "looks_like_sound", "read_sound", "require", "seconds_of"]

SUFFIXES = frozenset(
    {".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc"}
    | {".au", ".snd", ".caf", ".w64", ".rf64"}
)
FULL = 32768
FASTEST = 1_000_000  # samples a second; a head that states more is damaged, or made to fill the memory
BLOCK = 1 << 18  # numbers that are decoded at a time, over all channels
MARGIN = 0.1  # seconds decoded beyond a cut, so that the filter of the resampling does not see it
LOST = 0.02  # share of a sound that may be missing without a remark: the length of an MP3 is an estimate

Samples = NDArray[np.int16]
Wave = NDArray[np.float32]


class Clip(NamedTuple):
    """One sound: its first samples [S], how long the whole is in seconds, and what is odd about it."""

    samples: Samples
    seconds: float
    remark: str = ""


def require() -> tuple[Any, Any]:
    """The modules soundfile and soxr.

    Raises:
        MissingExtraError: one of them is not installed.
    """
    try:
        import soundfile
        import soxr
    except ImportError as error:
        raise MissingExtraError(error.name or "soundfile", "audio", purpose="reading sound") from error
    return soundfile, soxr


def read_sound(cell: Any, locate: Locate, rate: int, *, most: int | None, max_seconds: float) -> Clip:
    """One sound, mixed to one channel, at ``rate`` samples a second; no more than the first ``most`` samples.

    Args:
        cell: a path, bytes of a file, a mapping with ``bytes`` or ``path``, or samples at ``rate``: floats of -1 … 1
            or whole numbers of 16 bits.
        max_seconds: a sound that states to be longer is refused before it is decoded.

    Raises:
        ValueError: the cell is empty or holds no sound that can be used.
        DataError: a path that no file can have.
        OSError, RuntimeError: the file cannot be opened or decoded (see :func:`describe_failure`).
    """
    if isinstance(cell, np.ndarray | list | tuple):
        return clip_of_array(np.asarray(cell), rate, most, max_seconds)
    _, soxr = require()
    with opened(cell, locate, max_seconds) as file:
        own, stated = int(file.samplerate), int(file.frames)
        wanted = stated if most is None else min(stated, math.ceil((most / rate + MARGIN) * own))
        wave = decode(file, wanted)
    if not len(wave):
        raise ValueError("the sound is empty: it has no samples")
    remark = ""
    if len(wave) < wanted * (1 - LOST):
        remark = f"ends after {len(wave) / own:.2f} s of the {stated / own:.2f} s that its head states"
        stated = len(wave)
    if own != rate:
        wave = soxr.resample(wave, own, rate)
    return Clip(as_samples(wave)[:most], stated / own, remark)


def seconds_of(cell: Any, locate: Locate, rate: int, max_seconds: float) -> float:
    """How long a sound is by its head, without decoding it. Raises as :func:`read_sound` does."""
    if isinstance(cell, np.ndarray | list | tuple):
        return len(cell) / rate
    with opened(cell, locate, max_seconds) as file:
        return float(file.frames / file.samplerate)


class Memory(BytesIO):
    """Bytes as a file. A damaged head may send the decoder to before its start; the decoder asks through C, through
    which no exception passes: it finds itself where it was."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


@contextmanager
def opened(cell: Any, locate: Locate, max_seconds: float) -> Iterator[Any]:
    """A sound file whose head has been read and whose length is within bounds."""
    soundfile, _ = require()
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if cell is None or cell == "":
        raise ValueError("the cell is empty")
    if isinstance(cell, bytes):
        if not cell:
            raise ValueError("the sound is empty: it has no bytes")
        with soundfile.SoundFile(Memory(cell)) as file:
            yield within(file, max_seconds)
        return
    if not isinstance(cell, str):
        raise ValueError(f"not a path, bytes or samples: {shorten(cell)}")
    path = existing_file(cell, locate)
    # Opened here, since the library tells of a file that may not be read, and of too many, as "system error" alone.
    with path.open("rb") as stream, soundfile.SoundFile(stream.fileno(), closefd=False) as file:
        yield within(file, max_seconds)


def within(file: Any, max_seconds: float) -> Any:
    if not 0 < file.samplerate <= FASTEST:
        raise ValueError(f"{file.samplerate:,} samples a second, more than {FASTEST:,}")
    check_length(file.frames / file.samplerate, max_seconds)
    return file


def check_length(seconds: float, max_seconds: float) -> None:
    if seconds > max_seconds:
        raise ValueError(f"{seconds:,.1f} s long, more than {max_seconds:,g} s (a decompression bomb?)")


def decode(file: Any, frames: int) -> Wave:
    """The mean of all channels, of the first ``frames``. Memory follows what is there, whatever the head states."""
    block = max(1, BLOCK // file.channels)
    parts, left = [np.zeros(0, np.float32)], frames
    while left > 0:
        part = file.read(min(block, left), dtype="float32", always_2d=True)
        if not len(part):
            break
        parts.append(part.mean(axis=1) if part.shape[1] > 1 else part[:, 0])
        left -= len(part)
    return np.concatenate(parts)


def clip_of_array(array: NDArray[Any], rate: int, most: int | None, max_seconds: float) -> Clip:
    """Samples that a table holds itself."""
    if array.ndim != 1:
        raise ValueError(f"samples of shape {array.shape}, where one row of numbers is a sound")
    if not len(array):
        raise ValueError("the sound is empty: it has no samples")
    if array.dtype.kind not in "iuf":
        raise ValueError(f"not samples but {array.dtype}: {shorten(array[0])}")
    seconds, remark = len(array) / rate, ""
    check_length(seconds, max_seconds)
    if array.dtype.kind in "iu":
        low, high = int(array.min()), int(array.max())
        if low < -FULL or high >= FULL:
            raise ValueError(f"whole numbers from {low} to {high}, outside the {-FULL} … {FULL - 1} of 16 bits")
        return Clip(array[:most].astype(np.int16), seconds)
    samples = as_samples(array)
    if np.abs(array).max() > 2:  # what is little over 1 was recorded too loud, or resampled
        remark = f"samples from {array.min():g} to {array.max():g}, cut off at -1 and 1"
    return Clip(samples[:most], seconds, remark)


def as_samples(wave: NDArray[Any]) -> Samples:
    """Floats of -1 … 1 as int16; what is louder is cut off."""
    good = np.isfinite(wave)
    if not good.all():
        raise ValueError(f"sample {int(np.argmin(good))} is not a finite number")
    return np.rint(wave * np.float32(FULL)).clip(-FULL, FULL - 1).astype(np.int16)


def describe_failure(error: Exception) -> str:
    """Why a sound cannot be read, in words."""
    if isinstance(error, MemoryError):
        return "too large for memory"
    if isinstance(error, PermissionError):
        return "the file may not be read (permission denied)"
    if type(error) in (ValueError, DataError):
        return str(error)
    text = str(getattr(error, "error_string", "") or error).strip().rstrip(".").removeprefix("Error : ")
    if "not recognised" in text:
        return "not a sound in any known format"
    if "does not exist" in text:  # it does: this is what the library says of a head that leads nowhere
        text = "the file is malformed"
    return f"cannot be decoded: {text or type(error).__name__}"


def looks_like_sound(content: bytes) -> bool:
    """Whether bytes start as a sound file does.

    >>> looks_like_sound(b"fLaC" + bytes(8)), looks_like_sound(b"RIFF....WEBP")
    (True, False)
    """
    if content[:4] in (b"RIFF", b"RIFX", b"RF64"):
        return content[8:12] == b"WAVE"
    if content[:4] == b"FORM":
        return content[8:12] in (b"AIFF", b"AIFC")
    if content[:4] in (b"fLaC", b"OggS", b".snd", b"caff") or content[:3] == b"ID3":
        return True
    # A frame of MPEG layer 3: eleven bits that are set, then version and layer.
    return len(content) > 3 and content[0] == 0xFF and content[1] & 0xE6 == 0xE2 and content[2] & 0xF0 != 0xF0
