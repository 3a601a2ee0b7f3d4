"""``audio``: a sound, from a file, from bytes or from samples.

Shape legend: N clips, S samples. Clips are stored as int16 samples behind each other, and become features in the model.
"""

from __future__ import annotations

import base64
import errno
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from ..errors import DataError, UsageError
from ..randomness import permutation
from .column import (
    Claim,
    Column,
    Finding,
    Locate,
    Ragged,
    Spec,
    Stored,
    Tensorized,
    Wire,
    files_of,
    is_bytes,
    is_list,
    is_text,
    path_of,
    sample,
)
from .sound import FULL, SUFFIXES, Clip, describe_failure, looks_like_sound, read_sound, require, seconds_of
from .spectrum import Features, SpecAugment, Spectrum, SpectrumStem, WhisperSpectrum
from .wire import file_of, silence

__all__ = ["SUFFIXES", "Audio"]

LONGEST = 30.0  # seconds, where it is left open
CALIBRATED = 500  # clips that mean and deviation are taken of
PIECE = 1000  # frames whose spectra are held at a time
CHUNK_BYTES = 4 << 20
SLACK = 0.01  # seconds that are cut off without a remark


class Audio(Column):
    """A sound of any format that libsndfile reads (WAV, FLAC, Ogg, MP3, …), mixed to one channel and resampled.

    Cells are paths, bytes of files, or lists of samples at ``rate``: floats of -1 … 1, or whole numbers of 16 bits.

    Each feature is standardised by its mean and deviation in training rows. ``longest`` that is left open is the
    longest training clip, 30 s at most; of a longer clip the beginning is taken.

    Raises:
        UsageError: settings that contradict each other.

    >>> column = Audio(longest=1.0)
    >>> column.spec()
    Spec(kind='sequence', shape=(98, 80), vocabulary=0)
    """

    type = "audio"
    kind = "sequence"

    def __init__(
        self,
        *,
        rate: Annotated[int, Field(ge=1000, le=384_000, description="samples a second")] = 16_000,
        features: Annotated[
            Features,
            Field(description="power in mel bands, their cepstrum, the samples of each frame, or as Whisper hears"),
        ] = "log_mel",
        bands: Annotated[int, Field(ge=1, le=1024, description="mel bands")] = 80,
        coefficients: Annotated[int, Field(ge=1, description="numbers of an mfcc; no more than bands")] = 13,
        window: Annotated[float, Field(gt=0, le=1000, description="length of a frame in milliseconds")] = 25.0,
        hop: Annotated[float, Field(gt=0, le=1000, description="from one frame to the next, in milliseconds")] = 10.0,
        longest: Annotated[
            float | None, Field(gt=0, description="seconds that are listened to; open: the longest clip, 30 at most")
        ] = None,
        spec_augment: Annotated[
            bool | SpecAugment, Field(description="blank out random times and frequencies while training")
        ] = False,
        max_seconds: Annotated[float, Field(gt=0, description="a longer sound is refused as broken")] = 600.0,
    ) -> None:
        self.rate, self.features, self.bands, self.coefficients = rate, features, bands, coefficients
        self.window, self.hop = window, hop
        self.frame, self.step = round(rate * window / 1000), max(1, round(rate * hop / 1000))
        self.longest, self.max_seconds = longest, max_seconds
        self.spec_augment: SpecAugment | None = SpecAugment() if spec_augment is True else spec_augment or None
        self.mean, self.std = [0.0], [1.0]
        self.check()

    def check(self) -> None:
        if self.frame < 2:
            raise UsageError(
                f"a window of {self.window:g} ms has less than two samples at {self.rate} a second",
                place="audio",
                mend="Choose a longer window.",
            )
        if self.features == "mfcc" and self.coefficients > self.bands:
            raise UsageError(
                f"{self.coefficients} coefficients of {self.bands} bands: there are no more than bands",
                place="audio",
                mend="Lower coefficients or raise bands.",
            )
        if self.longest is not None and self.most < self.frame:
            raise UsageError(
                f"longest {self.longest:g} s is shorter than a window of {self.window:g} ms",
                place="audio",
                mend="longest is in seconds, window in milliseconds.",
            )

    @property
    def most(self) -> int:
        """Samples of the longest clip."""
        assert self.longest is not None
        return round(self.longest * self.rate)

    @property
    def chunk(self) -> int:
        return max(1, min(128, CHUNK_BYTES // (2 * self.most)))

    @classmethod
    def claims(cls, values: pa.ChunkedArray, name: str) -> Claim | None:
        kind = values.type
        struct = pa.types.is_struct(kind) and {field.name for field in kind} >= {"bytes", "path"}
        if not (struct or is_text(kind) or is_bytes(kind)):
            return None
        cells = sample(values, 200)
        good = sum(holds_sound(cell) for cell in cells)
        if not cells or good < 0.8 * len(cells):
            return None
        if struct:  # more than a picture claims, which asks for no more than that there be bytes
            return Claim(0.95, f"{good} of {len(cells)} sampled cells hold sound files with their paths")
        what = "name sound files" if is_text(kind) else "hold sound files as bytes"
        return Claim(0.9, f"{good} of {len(cells)} sampled cells {what}")

    def fit(self, values: pa.ChunkedArray, locate: Locate) -> None:
        require()
        if self.longest is None and self.features == "whisper":
            self.longest = LONGEST
        if self.longest is not None:
            return
        longest = 0.0
        for cell in cells_of(values):
            try:
                longest = max(longest, seconds_of(cell, locate, self.rate, self.max_seconds))
            except Exception:  # noqa: S112  (decoders raise nearly anything; tensorize tells of it)
                continue
            if longest >= LONGEST:
                break
        if not longest:
            raise DataError("no training row holds a sound", place="a column of type audio")
        samples = math.ceil(min(longest, LONGEST) * self.rate)
        self.longest = max(samples, self.frame) / self.rate

    def tensorize(self, values: pa.Array, locate: Locate) -> Tensorized:
        require()
        parts, findings = [np.zeros(0, np.int16)], list[Finding]()
        lengths = np.zeros(len(values), np.int64)
        for index, cell in enumerate(cells_of(values)):
            try:
                samples, remark = self.read(cell, locate)
            except Exception as error:  # a damaged file makes decoders raise nearly anything
                if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                    raise  # no fault of the file
                findings.append(Finding(index, describe_failure(error)))
                continue
            parts.append(samples)
            lengths[index] = len(samples)
            if remark:
                findings.append(Finding(index, remark, "suspect"))
        return Tensorized(np.concatenate(parts), lengths > 0, findings, lengths=lengths)

    def read(self, cell: Any, locate: Locate) -> tuple[NDArray[np.int16], str]:
        """One clip's samples, and a remark where something about it is odd."""
        clip: Clip = read_sound(cell, locate, self.rate, most=self.most, max_seconds=self.max_seconds)
        samples = clip.samples
        if len(samples) < self.frame:
            raise ValueError(f"{1000 * clip.seconds:.3g} ms long, shorter than one window of {self.window:g} ms")
        remarks = [clip.remark]
        if clip.seconds > self.most / self.rate + SLACK:
            remarks.append(f"{clip.seconds:.2f} s long, cut to the first {self.most / self.rate:.2f} s")
        if samples.min() == samples.max():
            remarks.append("silence: all samples are equal")
        return samples, "; ".join(filter(None, remarks))

    def files(self, values: pa.Array, locate: Locate) -> bytes:
        return files_of(values, locate)

    def place(self, cell: Any, locate: Locate) -> str | None:
        return path_of(cell, locate)

    def stored_as(self) -> dict[str, Any]:
        kept = ("rate", "window", "longest", "max_seconds")
        return {"settings": {name: getattr(self, name) for name in kept}, "state": {}}

    def calibrate(self, stored: Stored, rows: NDArray[np.int64], sums: NDArray[np.int64] | None = None) -> None:
        assert isinstance(stored, Ragged)
        if self.features == "whisper":  # which are standardised
            return
        spectrum = self.spectrum()
        assert isinstance(spectrum, Spectrum)
        shape = 1 if self.features == "wave" else spectrum.width  # samples of a frame are all alike
        count, total, squares = 0, torch.zeros(shape).double(), torch.zeros(shape).double()
        rows = np.sort(rows)
        for row in np.sort(rows[permutation(len(rows), "audio")[:CALIBRATED]]):
            for piece in self.pieces(stored.row(int(row))):
                found, _ = spectrum(piece[None], torch.ones(1, len(piece), dtype=torch.bool))
                found = found[0].double().reshape(-1, shape)
                count, total, squares = count + len(found), total + found.sum(0), squares + found.square().sum(0)
        mean = total / max(count, 1)
        std = (squares / max(count, 1) - mean.square()).clamp(min=0).sqrt()
        self.mean = mean.tolist()
        self.std = torch.where(std > 1e-5, std, 1.0).tolist()  # of a band that never changes: leave it at zero

    def pieces(self, samples: Tensor) -> Iterator[Tensor]:
        """A clip in stretches of no more than so many frames, which together are its frames."""
        frames = self.frames(len(samples)) if len(samples) >= self.frame else 0
        for first in range(0, frames, PIECE):
            last = min(first + PIECE, frames) - 1
            yield samples[first * self.step : last * self.step + self.frame]

    def frames(self, samples: int) -> int:
        if self.features == "whisper":
            return self.most // self.step
        return 1 + (samples - self.frame) // self.step

    def steps_of(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.array([self.frames(int(samples)) if samples else 0 for samples in lengths], np.int64)

    def spectrum(self) -> Spectrum | WhisperSpectrum:
        if self.features == "whisper":
            return WhisperSpectrum(rate=self.rate, window=self.frame, hop=self.step, bands=self.bands, most=self.most)
        return Spectrum(
            self.features,
            rate=self.rate,
            window=self.frame,
            hop=self.step,
            bands=self.bands,
            coefficients=self.coefficients,
        )

    def spec(self) -> Spec:
        width = {"log_mel": self.bands, "whisper": self.bands, "mfcc": self.coefficients, "wave": self.frame}[
            self.features
        ]
        return Spec("sequence", (self.frames(self.most), width))

    def stem(self) -> SpectrumStem:
        return SpectrumStem(self.spectrum(), self.mean, self.std, self.most, self.spec_augment)

    def blank(self, rows: int) -> tuple[Tensor, Tensor | None]:
        shape = (rows, self.most)
        return torch.zeros(shape, dtype=torch.int16), torch.ones(shape, dtype=torch.bool)

    def restore(self, values: Tensor) -> list[Any]:
        return list((values.detach().cpu().float() / FULL).numpy())

    def show(self, value: Tensor) -> dict[str, str]:
        return {"text": f"{len(value) / self.rate:.2f} s"}

    def settings(self) -> dict[str, Any]:
        return {
            "rate": self.rate,
            "features": self.features,
            "bands": self.bands,
            "coefficients": self.coefficients,
            "window": self.window,
            "hop": self.hop,
            "longest": self.longest,
            "spec_augment": self.spec_augment.model_dump() if self.spec_augment else False,
            "max_seconds": self.max_seconds,
        }

    def state(self) -> dict[str, Any]:
        return {"longest": self.longest, "mean": self.mean, "std": self.std}

    def load_state(self, state: dict[str, Any]) -> None:
        self.longest = float(state["longest"])
        self.mean, self.std = [float(x) for x in state["mean"]], [float(x) for x in state["std"]]

    def wire(self) -> Wire:
        example = base64.b64encode(silence(self.rate, 2 * self.window / 1000)).decode()
        facts = {"sample_rate": self.rate, "seconds": self.longest, "max_seconds": self.max_seconds}
        return Wire(file_of("audio/*"), {"base64": example}, facts)

    def bound(self, *, pixels: int, seconds: float) -> None:
        self.max_seconds = min(self.max_seconds, seconds)

    def summary(self) -> dict[str, Any]:
        frames, width = self.spec().shape
        return {
            "samples a second": self.rate,
            "longest": f"{self.longest:.2f} s",
            "features": f"{self.features}, {width} in each of {frames} frames",
        }


def holds_sound(cell: Any) -> bool:
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes):
        return looks_like_sound(cell)
    return isinstance(cell, str) and Path(cell).suffix.lower() in SUFFIXES


def cells_of(values: pa.Array | pa.ChunkedArray) -> Iterator[Any]:
    """Cell by cell, since all of a column of bytes may not fit in memory; lists as arrays."""
    kind = values.type
    flat = isinstance(kind, pa.FixedShapeTensorType)
    for scalar in values:
        if flat:
            yield scalar.to_numpy() if scalar.is_valid else None
        elif is_list(kind):
            yield scalar.values.to_numpy(zero_copy_only=False) if scalar.is_valid else None
        else:
            yield scalar.as_py()
