"""Random changes to sounds while training: on whole batches, on their device, a function of (seed, step, row).

Shape legend: B rows, S samples. Values are in units of int16.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..errors import UsageError
from ..randomness import uniform_rows

__all__ = ["AUDIO_AUGMENTS", "AudioAugment"]

OCTAVES = 12
BITS = 20  # of the fraction of a sample's place: whole numbers are the same on every device


class AudioAugment:
    """Speed, shift, loudness and noise (speed and noise as in Ko et al., "Audio augmentation for speech recognition",
    2015; speed also changes the pitch, as a tape does).

    What a row becomes does not depend on the rows beside it; one that is slowed down becomes longer.

    Raises:
        UsageError: a lowest signal-to-noise ratio above the highest.

    >>> augment = AudioAugment(speed=0.1, noise=(10, 30))
    >>> values, mask = torch.zeros(2, 100, dtype=torch.int16), torch.ones(2, 100, dtype=torch.bool)
    >>> changed, mask = augment(values, mask, torch.arange(2), 0, 0)
    >>> changed.dtype, changed.shape == mask.shape
    (torch.float32, True)
    """

    def __init__(
        self,
        *,
        noise: Annotated[
            tuple[float, float] | None, Field(description="signal-to-noise ratio in dB, lowest and highest; open: off")
        ] = None,
        colour: Annotated[
            Literal["white", "pink"], Field(description="white: as strong at all frequencies; pink: in all octaves")
        ] = "pink",
        speed: Annotated[float, Field(ge=0, le=0.5, description="largest change of speed, as a share")] = 0.0,
        gain: Annotated[float, Field(ge=0, le=60, description="largest change of loudness, in dB")] = 0.0,
        shift: Annotated[float, Field(ge=0, le=1, description="largest shift, as a share of the clip")] = 0.0,
    ) -> None:
        if noise is not None and noise[0] > noise[1]:
            raise UsageError(
                f"the lowest signal-to-noise ratio {noise[0]:g} dB is above the highest, {noise[1]:g} dB",
                place="augment",
                mend="Swap them.",
            )
        self.noise, self.colour, self.speed, self.gain, self.shift = noise, colour, speed, gain, shift
        self.active = noise is not None or speed > 0 or gain > 0 or shift > 0
        self.mixes: list[tuple[str, float]] = []

    def __call__(self, values: Tensor, mask: Tensor, rows: Tensor, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """Samples [B, S] of these rows, changed, float32, zero in padding; and their mask."""
        if not self.active or not values.shape[1]:
            return values, mask
        u = uniform_rows(rows, 4, seed, step, "sound")
        x = values.float().masked_fill(~mask, 0.0)
        if self.speed or self.shift:
            x, mask = self.move(x, mask, 1 + (2 * u[:, 0] - 1) * self.speed, (2 * u[:, 1] - 1) * self.shift)
        if self.gain:
            x = x * decibels((2 * u[:, 2] - 1) * self.gain)[:, None]
        if self.noise is not None:
            low, high = self.noise
            power = x.square().sum(1) / mask.sum(1).clamp(min=1)
            loudness = power.sqrt() * decibels(-(low + (high - low) * u[:, 3]))
            x = x + loudness[:, None] * self.hiss(rows, x.shape[1], seed, step).masked_fill(~mask, 0.0)
        return x, mask

    def move(self, x: Tensor, mask: Tensor, factor: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """Each row ``factor`` [B] times as fast, then later by ``shift`` [B] of its length; silence comes in."""
        length, before = mask.sum(1), x.shape[1]
        pace = (factor * (1 << BITS)).round().long()
        after = torch.where(length > 0, ((length - 1) << BITS) // pace + 1, 0)
        total = math.ceil((before - 1) / (1 - self.speed)) + 1 if self.speed else before
        later = (shift * after).round().long()
        time = torch.arange(total, device=x.device)
        place = (time - later[:, None]) * pace[:, None]
        inside = (place >= 0) & (place <= (length[:, None] - 1) << BITS)
        whole = (place >> BITS).clamp(0, before - 1)
        part = (place & ((1 << BITS) - 1)).float() / (1 << BITS)
        moved = torch.lerp(x.gather(1, whole), x.gather(1, (whole + 1).clamp(max=before - 1)), part)
        real = time < after[:, None]
        return moved.masked_fill(~(inside & real), 0.0), real

    def hiss(self, rows: Tensor, total: int, seed: int, step: int) -> Tensor:
        """Noise of variance 1, [B, total]; each row's own, however long the others are.

        White noise is normally distributed. Pink noise is a sum of white ones (Voss's method: Gardner 1978), each
        keeping its values for twice as long as the one before.
        """
        if self.colour == "white":
            u = uniform_rows(rows, total, seed, step, "white")
            return math.sqrt(2) * torch.erfinv(2 * u - 1 + 2.0**-24)
        out = torch.zeros(len(rows), total, device=rows.device)
        for octave in range(OCTAVES):
            held = uniform_rows(rows, -(-total >> octave), seed, step, "pink", octave) - 0.5
            out += held.repeat_interleave(1 << octave, dim=1)[:, :total]
        return out * math.sqrt(12 / OCTAVES)


def decibels(amount: Tensor) -> Tensor:
    """What the amplitude is multiplied by."""
    return torch.exp(amount * (math.log(10) / 20))


def none() -> AudioAugment:
    """No change."""
    return AudioAugment()


def light() -> AudioAugment:
    """Other loudness and a small shift."""
    return AudioAugment(gain=6, shift=0.05)


def standard() -> AudioAugment:
    """For speech: other speed and loudness, soft to middling noise. Nothing is pushed out."""
    return AudioAugment(speed=0.1, gain=6, noise=(10, 40))


AUDIO_AUGMENTS: dict[str, Callable[..., Any]] = {
    "none": none,
    "light": light,
    "standard": standard,
    "custom": AudioAugment,
}
