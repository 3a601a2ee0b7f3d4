"""Pictures: opening, decoding, arrays to pixels. What of it a column uses is in :mod:`zhixing.columns.image`.

Shape legend: N pictures, C channels, H height, W width.
"""

from __future__ import annotations

import base64
import io
import math
import os
import threading
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from ..errors import DataError
from .column import Finding, Locate, existing_file, shorten

__all__ = ["open_picture", "picture_uri", "read_picture"]

FORMAT_SUFFIXES = {"PNG": {".png"}, "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"}, "GIF": {".gif"}, "WEBP": {".webp"}}
LARGE = 1 << 24  # pixels; pictures of more are decoded one at a time, so that memory does not grow with threads
ONE_LARGE = threading.Lock()
AT_ONCE = 1 << 16  # files of fewer bytes are read by one call: Pillow makes dozens, at each of which threads may wait
Bytes = NDArray[np.uint8]

GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")


def open_picture(cell: Any, locate: Locate, max_pixels: int) -> Pillow.Image:
    """A picture whose head has been read and whose size is within bounds. Raises ValueError or OSError."""
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if cell is None or cell == "":
        raise ValueError("the cell is empty")
    if isinstance(cell, Pillow.Image):
        picture = cell.copy()  # it is the user's: neither to be closed nor to be changed
        picture.format = cell.format
    else:
        picture = Pillow.open(source_of(cell, locate))
    if picture.width * picture.height > max_pixels:
        size = f"{picture.width} x {picture.height}"
        picture.close()
        raise ValueError(f"{size} pixels, more than {max_pixels:,} (a decompression bomb?)")
    return picture


def source_of(cell: Any, locate: Locate) -> Path | io.BytesIO:
    """What Pillow opens: a file that is there, or bytes. Raises ValueError."""
    if isinstance(cell, bytes):
        if not cell:
            raise ValueError("the picture is empty: it has no bytes")
        return io.BytesIO(cell)
    if not isinstance(cell, str):
        raise ValueError(f"not a path, bytes or an array: {shorten(cell)}")
    path = existing_file(cell, locate)
    with path.open("rb", buffering=0) as stream:
        start = stream.read(AT_ONCE)
    return io.BytesIO(start) if len(start) < AT_ONCE else path


def read_picture(picture: Pillow.Image, channels: int, size: tuple[int, int], fit: str) -> Bytes:
    """Decode, turn, bring to channels and size: uint8 [C, H, W]."""
    height, width = size
    mode = "L" if channels == 1 else "RGB"
    if picture.format == "JPEG":
        # The codec can decode at 1/2, 1/4 or 1/8; twice the longer side is kept both ways, so that the resize still
        # filters and a picture that is turned afterwards has no fewer pixels.
        picture.draft(mode, (2 * max(size), 2 * max(size)))
    alone: AbstractContextManager[Any] = ONE_LARGE if picture.width * picture.height > LARGE else nullcontext()
    with alone:
        picture.load()
        ImageOps.exif_transpose(picture, in_place=True)
        flat = to_mode(picture, mode)
    flat = resized(flat, (width, height), fit)
    array = np.asarray(flat, np.uint8)
    return array[None] if channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))


def resized(picture: Pillow.Image, size: tuple[int, int], fit: str) -> Pillow.Image:
    """Bring to ``size``, (width, height)."""
    if picture.size == size:
        return picture
    if fit == "crop":
        return ImageOps.fit(picture, size, Pillow.Resampling.BICUBIC)
    if fit == "pad":
        share = min(size[0] / picture.width, size[1] / picture.height)
        # A picture that is all length would be left without a pixel across.
        inner = max(1, round(picture.width * share)), max(1, round(picture.height * share))
        out = Pillow.new(picture.mode, size)
        place = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
        out.paste(picture.resize(inner, Pillow.Resampling.BICUBIC), place)
        return out
    return picture.resize(size, Pillow.Resampling.BICUBIC)


def to_mode(picture: Pillow.Image, mode: str) -> Pillow.Image:
    if picture.mode == mode:
        return picture
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        # Pillow would clip these at 255; 16-bit pictures are scaled down, floats of 0 … 1 up, other values kept.
        deep = np.asarray(picture).astype(np.float32)
        low, high = float(deep.min()), float(deep.max())
        if not (low >= 0 and high <= 65535):  # also where one is NaN
            raise ValueError(f"grey values from {low:g} to {high:g}, outside 0 … 65535")
        if picture.mode.startswith("I;16") or high > 255:
            deep /= 257
        elif picture.mode == "F" and high <= 1:
            deep *= 255
        picture = Pillow.fromarray(np.rint(deep).astype(np.uint8))
    if picture.mode in ("RGBa", "La"):  # Pillow takes these back to what they were made of alone
        picture = picture.convert({"RGBa": "RGBA", "La": "LA"}[picture.mode])
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        picture = Pillow.alpha_composite(Pillow.new("RGBA", layer.size, "white"), layer)
    return picture.convert(mode)


def describe_failure(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not a picture in any known format"
    if isinstance(error, MemoryError):
        return "too large for memory"
    if isinstance(error, PermissionError):
        return "the file may not be read (permission denied)"
    if type(error) in (ValueError, DataError):
        return str(error)
    return f"cannot be decoded: {error or type(error).__name__}"


def frames(picture: Pillow.Image) -> str:
    """A remark where a file holds more than the one picture that is read. (MPO is what some phones call a JPEG.)"""
    moving = picture.format != "MPO" and getattr(picture, "is_animated", False)
    return f"the first of {getattr(picture, 'n_frames', 2)} frames is taken" if moving else ""


def odd_suffix(cell: Any, form: str | None) -> str:
    suffix = os.path.splitext(cell)[1].lower() if isinstance(cell, str) else ""
    expected = FORMAT_SUFFIXES.get(form or "")
    foreign = expected and suffix not in expected and any(suffix in others for others in FORMAT_SUFFIXES.values())
    return f"called {suffix} but holds {form}" if foreign else ""


def looks_like_picture(cell: bytes) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Pillow.open(io.BytesIO(cell)).close()
    except Exception:
        return False
    return True


def array_layout(shape: Sequence[int]) -> str:
    """``HW``, ``HWC`` or ``CHW``; empty where the shape is no picture's."""
    if len(shape) == 2:
        return "HW"
    if len(shape) == 3 and shape[2] in (1, 3, 4):
        return "HWC"
    return "CHW" if len(shape) == 3 and shape[0] in (1, 3, 4) else ""


def array_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """(C, H, W) of cells shaped [H, W], [H, W, C] or [C, H, W]."""
    layout = array_layout(shape)
    if not layout:
        raise DataError(f"arrays of shape {tuple(shape)} are not pictures", mend="Give [H, W], [H, W, 3] or [3, H, W].")
    sides = dict(zip(layout, shape, strict=True))
    return (1 if sides.get("C", 1) == 1 else 3), sides["H"], sides["W"]


def top_of(values: pa.ChunkedArray) -> int:
    """The value that is white: 1 or 255 for floats, 255 or 65535 for whole numbers, by the largest there is."""
    kind = values.type.value_type
    if pa.types.is_uint8(kind):
        return 255
    most = 0.0
    for chunk in values.chunks:
        flat = chunk.storage.flatten()
        good = pc.filter(flat, pc.is_finite(flat)) if pa.types.is_floating(kind) else flat
        most = max(most, pc.max(good).as_py() or 0)
    if pa.types.is_floating(kind):
        return 1 if most <= 1 else 255
    return 255 if most <= 255 else 65535


def pictures_of_arrays(values: pa.Array, top: int) -> tuple[list[Any], list[Finding]]:
    """Cells of one shape, their values from 0 to ``top``, as uint8 [C, H, W]; None where a cell is empty or broken."""
    shape, layout = tuple(values.type.shape), array_layout(values.type.shape)
    empty = values.is_null().to_numpy(zero_copy_only=False)
    flat = values.storage.flatten().to_numpy(zero_copy_only=False).reshape(-1, int(np.prod(shape)))
    bad = np.zeros(len(flat), bool)
    if flat.dtype != np.uint8:
        wide = flat.astype(np.float64)
        bad = ~((wide >= 0) & (wide <= top)).all(axis=1)  # NaN is neither
        flat = np.rint(np.where(bad[:, None], 0, wide) * (255 / top)).astype(np.uint8)
    arrays = iter(zip(flat.reshape(-1, *shape), bad, strict=True))
    cells: list[Any] = []
    findings = []
    for index, none in enumerate(empty):
        array, outside = (None, False) if none else next(arrays)
        if array is None or outside:
            cells.append(None)
            findings.append(Finding(index, "the cell is empty" if none else f"values outside 0 … {top}"))
        else:
            cells.append(channels_first(array, layout))
    return cells, findings


def channels_first(array: Bytes, layout: str) -> Bytes:
    """[C, H, W] with one or three channels; what is transparent becomes white."""
    if layout == "HW":
        return array[None]
    array = array.transpose(2, 0, 1) if layout == "HWC" else array
    if array.shape[0] == 4:
        flat = to_mode(Pillow.fromarray(np.ascontiguousarray(array.transpose(1, 2, 0)), "RGBA"), "RGB")
        array = np.asarray(flat).transpose(2, 0, 1)
    return array


def squeeze(array: Bytes) -> Bytes:
    """[C, H, W] as Pillow wants it."""
    return array[0] if array.shape[0] == 1 else np.ascontiguousarray(array.transpose(1, 2, 0))


def sums_of(pictures: Bytes) -> NDArray[np.int64]:
    """The sum of each channel and the sum of its squares, [N, 2 C]."""
    pixels = pictures.reshape(*pictures.shape[:2], math.prod(pictures.shape[2:]))
    out = np.zeros((len(pixels), 2 * pixels.shape[1]), np.int64)
    at_once = max(1, 100_000 // max(1, pixels[0].size)) if len(pixels) else 1  # pictures that stay in the fast memory
    for start in range(0, len(pixels), at_once):
        flat = pixels[start : start + at_once].astype(np.float64)  # whole numbers this small add up without rounding
        squares = np.einsum("ncp,ncp->nc", flat, flat)
        out[start : start + at_once] = np.concatenate([flat.sum(axis=2), squares], axis=1)
    return out


def moments(sums: NDArray[np.int64], pixels: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, from :func:`sums_of` of pictures of so many pixels."""
    count = max(1, len(sums) * pixels)
    totals = [int(total) for total in sums.sum(axis=0)]
    mean, std = [], []
    for total, squares in zip(totals[: len(totals) // 2], totals[len(totals) // 2 :], strict=True):
        mean.append(total / count)
        # In whole numbers, as the difference of two large ones.
        std.append(math.sqrt((squares * count - total * total) / count**2) or 1.0)
    return mean, std


def picture_uri(picture: Pillow.Image, most: int = 160) -> str:
    """A small PNG as a data URI."""
    small = picture.copy()
    small.thumbnail((most, most))
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
