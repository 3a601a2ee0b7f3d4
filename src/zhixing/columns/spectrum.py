"""From samples to what a network hears: frames, mel spectra, cepstra; and masks over them while training.

Shape legend: B rows, S samples, T frames, W samples of a frame, F features of a frame.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..settings import Settings
from .column import Stem
from .sound import FULL

__all__ = ["Features", "SpecAugment", "Spectrum", "SpectrumStem", "WhisperSpectrum", "dct_matrix", "mel_filters"]

Features = Literal["log_mel", "mfcc", "wave", "whisper"]
FLOOR = 1e-10  # of the energy in a band: a hundred decibels below a full tone; the logarithm needs one
# The mel scale of Slaney's Auditory Toolbox (1998): linear up to a corner, logarithmic above.
HERTZ_PER_MEL, CORNER, LOG_STEP = 200 / 3, 1000.0, math.log(6.4) / 27


def to_mel(hertz: Tensor) -> Tensor:
    above = CORNER / HERTZ_PER_MEL + (hertz / CORNER).clamp(min=1).log() / LOG_STEP
    return torch.where(hertz < CORNER, hertz / HERTZ_PER_MEL, above)


def to_hertz(mel: Tensor) -> Tensor:
    corner = CORNER / HERTZ_PER_MEL
    return torch.where(mel < corner, mel * HERTZ_PER_MEL, CORNER * ((mel - corner) * LOG_STEP).exp())


def mel_filters(rate: int, size: int, bands: int) -> Tensor:
    """Triangles of equal area, evenly spaced in mel from 0 to half the rate, [bands, size // 2 + 1] float32.

    Args:
        rate: samples a second.
        size: samples of the Fourier transform.

    >>> mel_filters(16000, 512, 80).shape
    torch.Size([80, 257])
    """
    bins = torch.linspace(0, rate / 2, size // 2 + 1, dtype=torch.float64)
    top = to_mel(torch.tensor(rate / 2, dtype=torch.float64)).item()
    edges = to_hertz(torch.linspace(0, top, bands + 2, dtype=torch.float64))
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = torch.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)).clamp(min=0)
    return (triangles * 2 / (high - low)).float()


def dct_matrix(coefficients: int, bands: int) -> Tensor:
    """The first rows of the orthonormal discrete cosine transform (type 2), [coefficients, bands] float32."""
    places = torch.arange(bands, dtype=torch.float64) + 0.5
    rows = torch.arange(coefficients, dtype=torch.float64)[:, None]
    matrix = (rows * places * math.pi / bands).cos() * math.sqrt(2 / bands)
    matrix[0] /= math.sqrt(2)
    return matrix.float()


class Spectrum(nn.Module):
    """Frames of samples, and their spectra.

    =========== =============================================================================================
    features    a frame's F numbers
    =========== =============================================================================================
    ``log_mel`` natural logarithm of the power in each of the mel ``bands`` (Hann window)
    ``mfcc``    the first ``coefficients`` of the cosine transform of those bands in decibels
    ``wave``    its W samples
    =========== =============================================================================================

    Frame t stands on samples t x hop to t x hop + window and is real where all of these are, so that what follows a
    row in a batch never changes it. Only the first frame of a row is real in any case, and silence fills what it
    lacks: a row that was sped up to less than a window keeps one. The Fourier transform is over the next power of two.

    Shape: values [B, S] in units of int16, mask [B, S] to [B, T, F] float32, mask [B, T], with T = 1 + (S - window) //
    hop, at least 1.

    >>> spectrum = Spectrum("log_mel", rate=16000, window=400, hop=160, bands=80, coefficients=13)
    >>> features, mask = spectrum(torch.zeros(2, 1000, dtype=torch.int16), torch.ones(2, 1000, dtype=torch.bool))
    >>> features.shape, mask.shape
    (torch.Size([2, 4, 80]), torch.Size([2, 4]))
    """

    shape: Tensor
    filters: Tensor
    cosines: Tensor

    def __init__(self, features: Features, *, rate: int, window: int, hop: int, bands: int, coefficients: int) -> None:
        super().__init__()
        self.features, self.window, self.hop = features, window, hop
        self.size = 1 << (window - 1).bit_length()
        self.width = {"log_mel": bands, "mfcc": coefficients, "wave": window}[features]
        decibels = 10 / math.log(10)
        # All three follow from the settings: nothing of them has to be kept with the weights.
        self.register_buffer("shape", torch.hann_window(window, dtype=torch.float64).float(), persistent=False)
        self.register_buffer("filters", mel_filters(rate, self.size, bands), persistent=False)
        self.register_buffer("cosines", decibels * dct_matrix(coefficients, bands), persistent=False)

    def extra_repr(self) -> str:
        return f"{self.features}, window={self.window}, hop={self.hop}"

    def forward(self, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x = values.float().masked_fill(~mask, 0.0) / FULL
        lacking = self.window - x.shape[1]
        if lacking > 0:
            x, mask = F.pad(x, (0, lacking)), F.pad(mask, (0, lacking))
        frames = x.unfold(1, self.window, self.hop)
        # Rows are padded behind: a window whose last sample is real is real.
        real = torch.cat([mask[:, :1], mask[:, self.window - 1 + self.hop :: self.hop]], dim=1)
        if self.features == "wave":
            return frames, real
        with torch.autocast(x.device.type, enabled=False):  # half precision would drown what is soft
            spectrum = torch.view_as_real(torch.fft.rfft(frames * self.shape, n=self.size))
            out = (spectrum.square().sum(-1) @ self.filters.T).clamp(min=FLOOR).log()
            if self.features == "mfcc":
                out = out @ self.cosines.T
        return out, real


class WhisperSpectrum(nn.Module):
    """What Whisper hears (Radford et al. 2022, arXiv:2212.04356): decimal logarithms of the power in mel bands, of
    which what lies more than eighty decibels below the loudest of the clip is lost, brought to about -1 … 1.

    A clip is filled with silence up to ``most`` samples and cut there. Frame t is centred on sample t x hop, with the
    sound mirrored at both ends; all frames are real. The Fourier transform is over the window itself.

    Shape: values [B, S] in units of int16, mask [B, S] to [B, most // hop, F] float32, mask of the same steps.
    """

    shape: Tensor
    filters: Tensor

    def __init__(self, *, rate: int, window: int, hop: int, bands: int, most: int) -> None:
        super().__init__()
        self.window, self.hop, self.most, self.width = window, hop, most, bands
        self.features: Features = "whisper"
        self.register_buffer("shape", torch.hann_window(window, dtype=torch.float64).float(), persistent=False)
        self.register_buffer("filters", mel_filters(rate, window, bands), persistent=False)

    def extra_repr(self) -> str:
        return f"window={self.window}, hop={self.hop}, most={self.most}"

    def forward(self, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x = values.float().masked_fill(~mask, 0.0) / FULL
        x = F.pad(x[:, : self.most], (0, max(0, self.most - x.shape[1])))
        x = F.pad(x.unsqueeze(1), (self.window // 2, self.window // 2), mode="reflect").squeeze(1)
        frames = x.unfold(1, self.window, self.hop)[:, : self.most // self.hop]
        with torch.autocast(x.device.type, enabled=False):
            spectrum = torch.view_as_real(torch.fft.rfft(frames * self.shape))
            out = (spectrum.square().sum(-1) @ self.filters.T).clamp(min=FLOOR).log10()
            out = (torch.maximum(out, out.amax((1, 2), keepdim=True) - 8) + 4) / 4
        return out, torch.ones(out.shape[:2], dtype=torch.bool, device=out.device)


class SpecAugment(Settings):
    """Stretches of time and bands of frequency that are blanked out while training (Park et al. 2019,
    arXiv:1904.08779; without its time warping). A mask over time also has a largest share of the clip, so that short
    clips are not blanked whole."""

    frequency_masks: Annotated[int, Field(ge=0, description="masks over bands; of log_mel alone")] = 2
    frequency_width: Annotated[int, Field(ge=0, description="most bands of one")] = 27
    time_masks: Annotated[int, Field(ge=0, description="masks over time")] = 2
    time_width: Annotated[int, Field(ge=0, description="most frames of one")] = 100
    time_share: Annotated[float, Field(ge=0, le=1, description="most of a clip that one takes")] = 0.2


def masked(length: Tensor, most: Tensor, total: int, masks: int) -> Tensor:
    """Where ``masks`` random stretches a row lie, [B, total]: each of 0 to ``most`` [B] places among the first
    ``length`` [B]. Numbers come from torch's own generator."""
    draws = torch.rand(2, len(length), masks, 1, device=length.device)
    width = (draws[0] * (most[:, None, None] + 1)).floor()
    start = (draws[1] * (length[:, None, None] - width + 1)).floor()
    place = torch.arange(total, device=length.device)
    return ((place >= start) & (place < start + width)).any(1)


class SpectrumStem(Stem):
    """Samples of the first ``most`` places to standardised features; padding is zero, as is what is masked out.

    Args:
        mean, std: one number for each feature, or one for all.
        most: samples that are listened to: of those that were slowed down, not all are.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        spectrum: Spectrum | WhisperSpectrum,
        mean: list[float],
        std: list[float],
        most: int,
        augment: SpecAugment | None = None,
    ) -> None:
        super().__init__()
        self.spectrum, self.most, self.augment = spectrum, most, augment
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("scale", 1 / torch.tensor(std))

    def forward(self, values: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        assert mask is not None, "sounds come with a mask"
        x_BTF, real_BT = self.spectrum(values[:, : self.most], mask[:, : self.most])
        hidden = ~real_BT.unsqueeze(-1)
        if self.training and self.augment is not None:
            hidden = hidden | self.blanks(real_BT)
        return ((x_BTF - self.mean) * self.scale).masked_fill(hidden, 0.0), real_BT

    def blanks(self, real_BT: Tensor) -> Tensor:
        """What is blanked out, [B, T, 1 or F]."""
        chosen, width = self.augment, self.spectrum.width
        assert chosen is not None
        length = real_BT.sum(1).float()
        most = (chosen.time_share * length).clamp(max=chosen.time_width).floor()
        blanks = masked(length, most, real_BT.shape[1], chosen.time_masks).unsqueeze(-1)
        if self.spectrum.features not in ("log_mel", "whisper"):
            return blanks
        bands = torch.full_like(length, width)
        most = torch.full_like(length, min(chosen.frequency_width, width))
        return blanks | masked(bands, most, width, chosen.frequency_masks).unsqueeze(1)
