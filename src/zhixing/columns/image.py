"""``image``: a picture, from a file, from bytes or from an array.

Shape legend: N pictures, C channels, H height, W width. Pictures are stored as uint8 [N, C, H, W].
"""

from __future__ import annotations

import base64
import io
import os
import struct
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError
from pydantic import Field
from torch import Tensor, nn

from ..errors import DataError
from .column import Claim, Column, Finding, Locate, Spec, Tensorized, is_text, sample, shorten

__all__ = ["Image", "picture_uri", "read_picture"]

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".bmp", ".tif", ".tiff"}
    | {".webp", ".ppm", ".pgm", ".pbm", ".pnm", ".ico", ".tga", ".jp2", ".avif"}
)
FORMAT_SUFFIXES = {"PNG": {".png"}, "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"}, "GIF": {".gif"}, "WEBP": {".webp"}}
LARGEST = 224
UNREADABLE = (
    DataError,
    OSError,
    ValueError,
    SyntaxError,
    MemoryError,
    EOFError,
    struct.error,
    Pillow.DecompressionBombError,
)
Bytes = NDArray[np.uint8]
Side = Annotated[int, Field(ge=1, le=8192)]


class Standardise(nn.Module):
    """(x - mean) / std a channel, for x in 0 … 255, uint8 or float [B, C, H, W]."""

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        scale = 1 / torch.tensor(std, dtype=torch.float64)
        self.register_buffer("scale", scale.float().view(1, -1, 1, 1))
        self.register_buffer("shift", (-torch.tensor(mean).double() * scale).float().view(1, -1, 1, 1))
        self.scale: Tensor
        self.shift: Tensor
        self.memory_format = torch.contiguous_format

    def forward(self, values: Tensor) -> Tensor:
        return torch.addcmul(self.shift, values.to(self.scale.dtype, memory_format=self.memory_format), self.scale)


class Image(Column):
    """A picture of any format that Pillow reads, turned as its EXIF data say, transparent parts on white.

    ``size`` and ``channels`` that are left open are taken from training rows: pictures of one size up to 224 keep it,
    others are brought to the middle of their sizes, 224 at most.
    """

    type = "image"
    kind = "image"
    chunk = 128

    def __init__(
        self,
        *,
        size: Annotated[
            Side | tuple[Side, Side] | None, Field(description="side or [height, width] in pixels; open: from the data")
        ] = None,
        channels: Annotated[Literal[1, 3] | None, Field(description="1 grey, 3 colour; open: from the data")] = None,
        fit: Annotated[
            Literal["crop", "stretch", "pad"],
            Field(description="how another shape comes to the size: cut the middle, distort, or add a border"),
        ] = "crop",
        statistics: Annotated[
            Literal["fitted", "imagenet", "unit"],
            Field(description="what is subtracted and divided: of training rows, ImageNet's, or to -1 … 1"),
        ] = "fitted",
        max_pixels: Annotated[int, Field(ge=1, description="a larger picture is refused as broken")] = 50_000_000,
    ) -> None:
        self.size = (size, size) if isinstance(size, int) else tuple(size) if size else None
        self.channels: int | None = channels
        self.resize, self.statistics, self.max_pixels = fit, statistics, max_pixels
        self.mean, self.std = [0.0], [1.0]

    @classmethod
    def claims(cls, values: pa.ChunkedArray, name: str) -> Claim | None:
        kind = values.type
        if isinstance(kind, pa.FixedShapeTensorType) and len(kind.shape) in (2, 3):
            return Claim(0.9, f"arrays of shape {tuple(kind.shape)} in each cell")
        if pa.types.is_struct(kind) and {field.name for field in kind} >= {"bytes"}:
            return Claim(0.9, "pictures stored as bytes in each cell")
        cells = sample(values, 200)
        if cells and is_text(kind):
            good = sum(Path(cell).suffix.lower() in SUFFIXES for cell in cells)
            if good >= 0.8 * len(cells):
                return Claim(0.95, f"{good} of {len(cells)} sampled cells name picture files")
        if cells and pa.types.is_binary(kind):
            good = sum(looks_like_picture(cell) for cell in cells)
            if good >= 0.8 * len(cells):
                return Claim(0.95, f"{good} of {len(cells)} sampled cells hold pictures as bytes")
        return None

    def fit(self, values: pa.ChunkedArray, locate: Locate) -> None:
        if self.size is not None and self.channels is not None:
            return
        shapes: list[tuple[int, int, int]] = []
        if isinstance(values.type, pa.FixedShapeTensorType):
            shapes = [array_shape(values.type.shape)]
        for cell in [] if shapes else sample(values, 256):
            try:
                with open_picture(cell, locate, self.max_pixels) as picture:
                    turned = picture.getexif().get(0x0112, 1) >= 5  # orientations that swap height and width
                    width, height = picture.size[::-1] if turned else picture.size
                    shapes.append((1 if picture.mode in GREY else 3, height, width))
            except UNREADABLE:
                continue
        if not shapes:
            raise DataError("none of the sampled training rows holds a picture", place="a column of type image")
        if self.channels is None:
            self.channels = max(shape[0] for shape in shapes)
        if self.size is None:
            sizes = {shape[1:] for shape in shapes}
            if len(sizes) == 1 and max(next(iter(sizes))) <= LARGEST:
                self.size = next(iter(sizes))
            else:
                middle = int(np.median([min(shape[1:]) for shape in shapes]))
                side = min(LARGEST, max(16, middle // 16 * 16))
                self.size = (side, side)

    def tensorize(self, values: pa.Array, locate: Locate) -> Tensorized:
        assert self.size is not None
        assert self.channels is not None
        shape = (len(values), self.channels, *self.size)
        if isinstance(values.type, pa.FixedShapeTensorType):
            arrays, findings = bytes_of_arrays(values.to_numpy_ndarray())
            if arrays.shape == shape:
                return Tensorized(arrays, np.ones(len(values), bool), findings)
            cells: list[Any] = [Pillow.fromarray(squeeze(array)) for array in arrays]
        else:
            cells, findings = values.to_pylist(), []
        out, present = np.zeros(shape, np.uint8), np.zeros(len(cells), bool)
        for index, cell in enumerate(cells):
            try:
                out[index], remark = self.read(cell, locate)
                present[index] = True
                if remark:
                    findings.append(Finding(index, remark, "suspect"))
            except UNREADABLE as error:
                findings.append(Finding(index, describe_failure(error)))
        return Tensorized(out, present, findings)

    def read(self, cell: Any, locate: Locate) -> tuple[Bytes, str]:
        """One picture as uint8 [C, H, W], and a remark where something about it is odd."""
        assert self.size is not None
        assert self.channels is not None
        with open_picture(cell, locate, self.max_pixels) as picture:
            remark = odd_suffix(cell, picture.format)
            pixels = read_picture(picture, self.channels, self.size, self.resize)
        return pixels, remark

    def files(self, values: pa.Array, locate: Locate) -> bytes:
        if not is_text(values.type):
            return b""
        seen = []
        for cell in values.to_pylist():
            try:
                stat = os.stat(locate(cell or ""))
                seen.append(f"{stat.st_size}:{stat.st_mtime_ns}")
            except (DataError, OSError, ValueError):
                seen.append("missing")
        return ",".join(seen).encode()

    def place(self, cell: Any, locate: Locate) -> str | None:
        cell = cell.get("path") if isinstance(cell, dict) else cell
        try:
            return str(locate(cell)) if isinstance(cell, str) and cell else None
        except DataError:
            return None

    def calibrate(self, stored: Tensor, rows: NDArray[np.int64]) -> None:
        assert self.channels is not None
        if self.statistics == "imagenet":
            mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
            self.mean, self.std = (mean, std) if self.channels == 3 else ([116.28], [57.12])
        elif self.statistics == "unit":
            self.mean, self.std = [127.5] * self.channels, [127.5] * self.channels
        else:
            self.mean, self.std = moments(stored, rows)

    def spec(self) -> Spec:
        assert self.size is not None
        assert self.channels is not None
        return Spec("image", (self.channels, *self.size))

    def stem(self) -> nn.Module:
        return Standardise(self.mean, self.std)

    def restore(self, values: Tensor) -> list[Any]:
        return [Pillow.fromarray(squeeze(array)) for array in values.clamp(0, 255).to(torch.uint8).cpu().numpy()]

    def show(self, value: Tensor) -> dict[str, str]:
        return {"picture": picture_uri(self.restore(value[None])[0])}

    def settings(self) -> dict[str, Any]:
        size = self.size
        return {
            "size": None if size is None else size[0] if size[0] == size[1] else list(size),
            "channels": self.channels,
            "fit": self.resize,
            "statistics": self.statistics,
            "max_pixels": self.max_pixels,
        }

    def state(self) -> dict[str, Any]:
        assert self.size is not None
        return {"size": list(self.size), "channels": self.channels, "mean": self.mean, "std": self.std}

    def load_state(self, state: dict[str, Any]) -> None:
        self.size, self.channels = (int(state["size"][0]), int(state["size"][1])), int(state["channels"])
        self.mean, self.std = [float(x) for x in state["mean"]], [float(x) for x in state["std"]]

    def summary(self) -> dict[str, Any]:
        assert self.size is not None
        return {
            "size": f"{self.size[0]} x {self.size[1]}",
            "channels": self.channels,
            "mean of 0 … 255": [round(x, 2) for x in self.mean],
            "standard deviation": [round(x, 2) for x in self.std],
        }


GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")


def open_picture(cell: Any, locate: Locate, max_pixels: int) -> Pillow.Image:
    """A picture whose head has been read and whose size is within bounds. Raises ValueError or OSError."""
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, Pillow.Image):
        return cell
    if cell is None or cell == "":
        raise ValueError("the cell is empty")
    if isinstance(cell, str):
        path = locate(cell)
        if not path.is_file():
            raise ValueError(f"the file is missing: {path}")
        source: Any = path
        empty = path.stat().st_size == 0
    elif isinstance(cell, bytes):
        source, empty = io.BytesIO(cell), not cell
    else:
        raise ValueError(f"not a path, bytes or an array: {shorten(cell)}")
    if empty:
        raise ValueError("the file is empty")
    picture = Pillow.open(source)
    if picture.width * picture.height > max_pixels:
        size = f"{picture.width} x {picture.height}"
        picture.close()
        raise ValueError(f"{size} pixels, more than {max_pixels:,} (a decompression bomb?)")
    return picture


def read_picture(picture: Pillow.Image, channels: int, size: tuple[int, int], fit: str) -> Bytes:
    """Decode, turn, bring to channels and size: uint8 [C, H, W]."""
    height, width = size
    if picture.format == "JPEG" and fit != "pad":
        # The codec can decode at 1/2, 1/4 or 1/8; twice the size is kept so that the resize still filters.
        picture.draft("L" if channels == 1 else "RGB", (2 * width, 2 * height))
    picture.load()
    turned = ImageOps.exif_transpose(picture) or picture
    flat = to_mode(turned, "L" if channels == 1 else "RGB")
    if flat.size != (width, height):
        if fit == "crop":
            flat = ImageOps.fit(flat, (width, height), Pillow.Resampling.BICUBIC)
        elif fit == "pad":
            flat = ImageOps.pad(flat, (width, height), Pillow.Resampling.BICUBIC)
        else:
            flat = flat.resize((width, height), Pillow.Resampling.BICUBIC)
    array = np.asarray(flat, np.uint8)
    return array[None] if channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))


def to_mode(picture: Pillow.Image, mode: str) -> Pillow.Image:
    if picture.mode == mode:
        return picture
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        # Pillow would clip these at 255; 16-bit pictures are scaled down, smaller values kept.
        deep = np.asarray(picture).astype(np.float64)
        if not np.isfinite(deep).all() or deep.min() < 0 or deep.max() > 65535:
            raise ValueError(f"grey values from {deep.min():g} to {deep.max():g}, outside 0 … 65535")
        if picture.mode.startswith("I;16") or deep.max() > 255:
            deep = deep / 257
        picture = Pillow.fromarray(np.rint(deep).astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        picture = Pillow.alpha_composite(Pillow.new("RGBA", layer.size, "white"), layer)
    return picture.convert(mode)


def describe_failure(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not a picture in any known format"
    if isinstance(error, MemoryError):
        return "too large for memory"
    return str(error) if type(error) in (ValueError, DataError) else f"cannot be decoded: {error}"


def odd_suffix(cell: Any, form: str | None) -> str:
    suffix = Path(cell).suffix.lower() if isinstance(cell, str) else ""
    expected = FORMAT_SUFFIXES.get(form or "")
    foreign = expected and suffix not in expected and any(suffix in others for others in FORMAT_SUFFIXES.values())
    return f"called {suffix} but holds {form}" if foreign else ""


def looks_like_picture(cell: bytes) -> bool:
    try:
        Pillow.open(io.BytesIO(cell)).close()
    except UNREADABLE:
        return False
    return True


def array_shape(shape: list[int]) -> tuple[int, int, int]:
    """(C, H, W) of cells shaped [H, W], [H, W, C] or [C, H, W]."""
    if len(shape) == 2:
        return 1, shape[0], shape[1]
    if shape[2] in (1, 3, 4):
        return (1 if shape[2] == 1 else 3), shape[0], shape[1]
    if shape[0] in (1, 3, 4):
        return (1 if shape[0] == 1 else 3), shape[1], shape[2]
    raise DataError(f"arrays of shape {tuple(shape)} are not pictures", mend="Give [H, W], [H, W, 3] or [3, H, W].")


def bytes_of_arrays(arrays: NDArray[Any]) -> tuple[Bytes, list[Finding]]:
    """Arrays [N, …] as uint8 [N, C, H, W]. Floats must lie in 0 … 1 or 0 … 255, judged over the run."""
    findings: list[Finding] = []
    if arrays.dtype != np.uint8:
        flat = arrays.reshape(len(arrays), -1).astype(np.float64)
        bad = ~np.isfinite(flat).all(axis=1) | (flat.min(axis=1) < 0) | (flat.max(axis=1) > 255)
        findings = [Finding(int(i), "values outside 0 … 255") for i in np.flatnonzero(bad)]
        unit = np.issubdtype(arrays.dtype, np.floating) and flat[~bad].max(initial=0.0) <= 1.0
        flat[bad] = 0
        arrays = np.rint(flat * (255 if unit else 1)).astype(np.uint8).reshape(arrays.shape)
    if arrays.ndim == 3:
        return arrays[:, None], findings
    if arrays.shape[3] in (1, 3, 4):
        arrays = arrays.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(arrays[:, :3]), findings


def squeeze(array: Bytes) -> Bytes:
    """[C, H, W] as Pillow wants it."""
    return array[0] if array.shape[0] == 1 else np.ascontiguousarray(array.transpose(1, 2, 0))


def moments(stored: Tensor, rows: NDArray[np.int64], block: int = 1024) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over training rows, exact, in one pass of bounded memory."""
    channels, pixels = stored.shape[1], stored.shape[2] * stored.shape[3]
    total, squares = np.zeros(channels), np.zeros(channels)
    levels = np.arange(256.0)
    for start in range(0, len(rows), block):
        part = stored[torch.from_numpy(rows[start : start + block])].numpy()
        for channel in range(channels):
            count = np.bincount(part[:, channel].reshape(-1), minlength=256)
            total[channel] += count @ levels
            squares[channel] += count @ levels**2
    count = max(1, len(rows) * pixels)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return mean.tolist(), np.where(std > 1e-6, std, 1.0).tolist()


def picture_uri(picture: Pillow.Image, most: int = 160) -> str:
    """A small PNG as a data URI."""
    small = picture.copy()
    small.thumbnail((most, most))
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
