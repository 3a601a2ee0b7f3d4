"""``image``: a picture, from a file, from bytes or from an array.

Shape legend: N pictures, C channels, H height, W width. Pictures are stored as uint8 [N, C, H, W].
"""

from __future__ import annotations

import errno
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from pydantic import Field
from torch import Tensor

from ..errors import DataError
from ..settings import Settings
from .column import (
    Claim,
    Column,
    Finding,
    Locate,
    Spec,
    Stem,
    Stored,
    Tensorized,
    Wire,
    files_of,
    is_text,
    path_of,
    sample,
)
from .picture import (
    GREY,
    array_layout,
    array_shape,
    describe_failure,
    frames,
    looks_like_picture,
    moments,
    odd_suffix,
    open_picture,
    picture_uri,
    pictures_of_arrays,
    read_picture,
    squeeze,
    sums_of,
    top_of,
)  # fmt: skip
from .wire import file_of

__all__ = ["Image", "picture_uri", "read_picture"]

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".bmp", ".tif", ".tiff"}
    | {".webp", ".ppm", ".pgm", ".pbm", ".pnm", ".ico", ".tga", ".jp2", ".avif"}
)
LARGEST = 224
CHUNK_BYTES = 4 << 20
Bytes = NDArray[np.uint8]
Side = Annotated[int, Field(ge=1, le=8192)]


class Moments(Settings):
    """What is subtracted and divided in each channel, for values from 0 to 255."""

    mean: Annotated[list[float], Field(min_length=1, max_length=3, description="subtracted, a number a channel")]
    std: Annotated[
        list[Annotated[float, Field(gt=0)]], Field(min_length=1, max_length=3, description="divided by, likewise")
    ]


class Standardise(Stem):
    """(x - mean) / std a channel, for x in 0 … 255, uint8 or float [B, C, H, W]."""

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        scale = 1 / torch.tensor(std, dtype=torch.float64)
        self.register_buffer("scale", scale.float().view(1, -1, 1, 1))
        self.register_buffer("shift", (-torch.tensor(mean).double() * scale).float().view(1, -1, 1, 1))
        self.scale: Tensor
        self.shift: Tensor
        self.memory_format = torch.contiguous_format

    def forward(self, values: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        return (values * self.scale).add_(self.shift).contiguous(memory_format=self.memory_format), mask


class Image(Column):
    """A picture of any format that Pillow reads, turned as its EXIF data say, transparent parts on white.

    ``size`` and ``channels`` that are left open are taken from training rows: pictures of one size up to 224 keep it,
    others are brought to the middle of their sizes, 224 at most.
    """

    type = "image"
    kind = "image"

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
            Literal["fitted", "imagenet", "unit"] | Moments,
            Field(
                description="what is subtracted and divided: of training rows, ImageNet's, to -1 … 1, or mean and std"
            ),
        ] = "fitted",
        max_pixels: Annotated[int, Field(ge=1, description="a larger picture is refused as broken")] = 50_000_000,
    ) -> None:
        self.size = (size, size) if isinstance(size, int) else size
        self.channels: int | None = channels
        self.resize, self.statistics, self.max_pixels = fit, statistics, max_pixels
        self.top = 255
        self.mean, self.std = [0.0], [1.0]

    @property
    def chunk(self) -> int:
        assert self.size is not None
        assert self.channels is not None
        return max(1, min(128, CHUNK_BYTES // (self.channels * self.size[0] * self.size[1])))

    @classmethod
    def claims(cls, values: pa.ChunkedArray, name: str) -> Claim | None:
        kind = values.type
        if isinstance(kind, pa.FixedShapeTensorType) and array_layout(kind.shape):
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
        arrays = isinstance(values.type, pa.FixedShapeTensorType)
        if arrays:
            shape = array_shape(values.type.shape)
            self.top = top_of(values)
        if self.size is not None and self.channels is not None:
            return
        shapes = [shape] if arrays else self.sampled_shapes(values, locate)
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

    def sampled_shapes(self, values: pa.ChunkedArray, locate: Locate) -> list[tuple[int, int, int]]:
        """[C, H, W] of some pictures, as they are when turned upright."""
        shapes = []
        for cell in sample(values, 256):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    with open_picture(cell, locate, self.max_pixels) as picture:
                        turned = picture.getexif().get(0x0112, 1) >= 5  # orientations that swap height and width
                        width, height = picture.size[::-1] if turned else picture.size
                        shapes.append((1 if picture.mode in GREY else 3, height, width))
            except Exception:  # noqa: S112  (decoders raise nearly anything; tensorize tells of it)
                continue
        return shapes

    def tensorize(self, values: pa.Array, locate: Locate) -> Tensorized:
        assert self.size is not None
        assert self.channels is not None
        shape = (self.channels, *self.size)
        arrays, findings = isinstance(values.type, pa.FixedShapeTensorType), list[Finding]()
        cells: list[Any]
        if arrays:
            cells, findings = pictures_of_arrays(values, self.top)
        else:
            cells = values.to_pylist()
        out, present = np.zeros((len(cells), *shape), np.uint8), np.zeros(len(cells), bool)
        known = {finding.index for finding in findings}
        for index, cell in enumerate(cells):
            if index in known:
                continue
            if arrays and cell.shape == shape:
                out[index], present[index] = cell, True
                continue
            try:
                out[index], remark = self.read(Pillow.fromarray(squeeze(cell)) if arrays else cell, locate)
                present[index] = True
                if remark:
                    findings.append(Finding(index, remark, "suspect"))
            except Exception as error:  # a damaged file makes decoders raise nearly anything
                if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                    raise  # no fault of the file
                findings.append(Finding(index, describe_failure(error)))
        return Tensorized(out, present, findings, sums_of(out))

    def read(self, cell: Any, locate: Locate) -> tuple[Bytes, str]:
        """One picture as uint8 [C, H, W], and a remark where something about it is odd."""
        assert self.size is not None
        assert self.channels is not None
        with open_picture(cell, locate, self.max_pixels) as picture:
            remark = "; ".join(filter(None, (odd_suffix(cell, picture.format), frames(picture))))
            pixels = read_picture(picture, self.channels, self.size, self.resize)
        return pixels, remark

    def files(self, values: pa.Array, locate: Locate) -> bytes:
        return files_of(values, locate)

    def place(self, cell: Any, locate: Locate) -> str | None:
        return path_of(cell, locate)

    def stored_as(self) -> dict[str, Any]:
        learned = {key: value for key, value in self.state().items() if key not in ("mean", "std")}
        return {"settings": {**self.settings(), "statistics": None}, "state": learned}

    def calibrate(self, stored: Stored, rows: NDArray[np.int64], sums: NDArray[np.int64] | None = None) -> None:
        assert self.channels is not None
        assert isinstance(stored, Tensor)
        if isinstance(self.statistics, Moments):
            self.mean, self.std = self.statistics.mean, self.statistics.std
            if {len(self.mean), len(self.std)} != {self.channels}:
                raise DataError(
                    f"statistics of {len(self.mean)} and {len(self.std)} channels for pictures of {self.channels}",
                    place="a column of type image",
                    mend="Give a mean and a std for each channel.",
                )
        elif self.statistics == "imagenet":
            mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
            self.mean, self.std = (mean, std) if self.channels == 3 else ([116.28], [57.12])
        elif self.statistics == "unit":
            self.mean, self.std = [127.5] * self.channels, [127.5] * self.channels
        else:
            pixels = stored.shape[2] * stored.shape[3]
            if sums is None:
                parts = [sums_of(stored[torch.from_numpy(rows[i : i + 64])].numpy()) for i in range(0, len(rows), 64)]
                sums, rows = np.concatenate(parts), np.arange(len(rows))
            self.mean, self.std = moments(sums[rows], pixels)

    def spec(self) -> Spec:
        assert self.size is not None
        assert self.channels is not None
        return Spec("image", (self.channels, *self.size))

    def stem(self) -> Stem:
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
            "statistics": self.statistics.model_dump() if isinstance(self.statistics, Moments) else self.statistics,
            "max_pixels": self.max_pixels,
        }

    def state(self) -> dict[str, Any]:
        assert self.size is not None
        learned = {"size": list(self.size), "channels": self.channels, "top": self.top}
        return {**learned, "mean": self.mean, "std": self.std}

    def load_state(self, state: dict[str, Any]) -> None:
        self.size, self.channels = (int(state["size"][0]), int(state["size"][1])), int(state["channels"])
        self.top = int(state["top"])
        self.mean, self.std = [float(x) for x in state["mean"]], [float(x) for x in state["std"]]

    def wire(self) -> Wire:
        assert self.size is not None
        assert self.channels is not None
        blank = Pillow.new("L" if self.channels == 1 else "RGB", self.size[::-1])
        facts = {"size": list(self.size), "channels": self.channels, "mean": self.mean, "max_pixels": self.max_pixels}
        return Wire(file_of("image/*"), {"base64": picture_uri(blank).partition(",")[2]}, facts)

    def bound(self, *, pixels: int, seconds: float) -> None:
        self.max_pixels = min(self.max_pixels, pixels)

    def summary(self) -> dict[str, Any]:
        assert self.size is not None
        return {
            "size": f"{self.size[0]} x {self.size[1]}",
            "channels": self.channels,
            "mean of 0 … 255": [round(x, 2) for x in self.mean],
            "standard deviation": [round(x, 2) for x in self.std],
        }
