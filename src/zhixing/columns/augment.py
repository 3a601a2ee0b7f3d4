"""Random changes to pictures while training: on whole batches, on their device, a function of (seed, step, row).

Shape legend: B rows, C channels, H height, W width, K kinds of change. Values run from 0 to 255.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ..randomness import fold, uniform_rows
from .augment_audio import AUDIO_AUGMENTS

__all__ = ["AUGMENTS", "Augment", "Blend"]

Share = Annotated[float, Field(ge=0, le=1)]

# Kinds of change, and how far each goes at strength 1 when drawn by ``operations``.
KINDS = ("shift_x", "shift_y", "rotate", "scale", "shear", "brightness", "contrast", "saturation")
REACH = (0.3, 0.3, 30.0, 0.3, 20.0, 0.6, 0.6, 0.9)
GREY = (0.299, 0.587, 0.114)  # what red, green and blue add to brightness (ITU-R BT.601)


class Blend(NamedTuple):
    """Each row's partner in the batch [B], and how much of the row is still itself [B]."""

    partner: Tensor
    share: Tensor


class Augment:
    """Shift, flip, turn, scale, shear, crop, colour, cutout, mixup (Zhang et al., 2018), cutmix (Yun et al., 2019), and
    a random choice of changes (after Cubuk et al., "RandAugment", 2020).

    All geometric changes are one bilinear resampling; what comes in from outside is mirrored.

    >>> augment = Augment(shift=0.1, flip=True)
    >>> changed, blend = augment(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.arange(4), 0, 0)
    >>> changed.shape, blend
    (torch.Size([4, 3, 8, 8]), None)
    """

    def __init__(
        self,
        *,
        shift: Annotated[float, Field(ge=0, le=1, description="largest shift, as a share of the side")] = 0.0,
        rotate: Annotated[float, Field(ge=0, le=180, description="largest turn, in degrees")] = 0.0,
        scale: Annotated[float, Field(ge=0, lt=1, description="largest change of size, as a share")] = 0.0,
        shear: Annotated[float, Field(ge=0, lt=90, description="largest shear, in degrees")] = 0.0,
        crop: Annotated[float, Field(gt=0, le=1, description="least share of the area that a crop keeps")] = 1.0,
        flip: Annotated[bool, Field(description="left to right, half of the time")] = False,
        flip_vertical: Annotated[bool, Field(description="upside down, half of the time")] = False,
        brightness: Annotated[float, Field(ge=0, le=1, description="largest change, as a share")] = 0.0,
        contrast: Annotated[float, Field(ge=0, le=1, description="largest change, as a share")] = 0.0,
        saturation: Annotated[float, Field(ge=0, le=1, description="largest change, as a share")] = 0.0,
        cutout: Annotated[float, Field(ge=0, lt=1, description="side of the square blanked out, as a share")] = 0.0,
        mixup: Annotated[float, Field(ge=0, description="alpha of the Beta distribution of shares; 0: off")] = 0.0,
        cutmix: Annotated[float, Field(ge=0, description="alpha of the Beta distribution of shares; 0: off")] = 0.0,
        operations: Annotated[int, Field(ge=0, le=len(KINDS), description="changes drawn for each picture")] = 0,
        magnitude: Annotated[float, Field(ge=0, le=1, description="how strong the drawn changes are")] = 0.5,
    ) -> None:
        self.constants: dict[torch.device, dict[str, Tensor]] = {}
        self.limits = (shift, shift, rotate, scale, shear, brightness, contrast, saturation)
        self.crop, self.flips, self.cutout = crop, (flip, flip_vertical), cutout
        self.operations, self.magnitude = operations, magnitude
        drawn = operations > 0 and magnitude > 0
        self.geometric = any(self.limits[:5]) or crop < 1 or any(self.flips) or drawn
        self.coloured = any(self.limits[5:]) or drawn
        self.mixes = [(name, alpha) for name, alpha in (("mixup", mixup), ("cutmix", cutmix)) if alpha]
        self.active = self.geometric or self.coloured or cutout > 0 or bool(self.mixes)

    def __call__(self, values: Tensor, rows: Tensor, seed: int, step: int) -> tuple[Tensor, Blend | None]:
        """Pictures [B, C, H, W] of these rows, changed; and how rows were blended, if they were."""
        if not self.active:
            return values, None
        u = uniform_rows(rows, 2 * len(KINDS) + 12, seed, step, "augment")
        amounts = self.amounts(u[:, : 2 * len(KINDS)])
        u = u[:, 2 * len(KINDS) :]
        x = values.float()
        if self.geometric:
            x = self.move(x, amounts, u)
        if self.coloured:
            x = recolour(x, amounts[:, 5:], self.on(x.device)["grey"])
        if self.cutout:
            x = blank(x, u[:, 4], u[:, 5], self.cutout)
        if self.mixes:
            name, _ = self.mixes[fold(seed, step, "mix") % len(self.mixes)]
            return (mixup if name == "mixup" else cutmix)(x, u, self.on(x.device)[name])
        return x, None

    def on(self, device: torch.device) -> dict[str, Tensor]:
        """Constants on a device, sent once: to send them in each step would make the host wait."""
        if device not in self.constants:
            made = {"limits": torch.tensor(self.limits), "reach": torch.tensor(REACH), "grey": torch.tensor(GREY)}
            made |= {name: beta_table(alpha) for name, alpha in self.mixes}
            self.constants[device] = {name: tensor.to(device) for name, tensor in made.items()}
        return self.constants[device]

    def amounts(self, u: Tensor) -> Tensor:
        """How much of each kind of change each row gets, [B, K]: always those set, and some drawn by chance."""
        kinds = len(KINDS)
        constants = self.on(u.device)
        out = (2 * u[:, :kinds] - 1) * constants["limits"]
        if self.operations:
            rank = u[:, kinds:].argsort(dim=1, stable=True).argsort(dim=1)
            sign = torch.where(u[:, :kinds] < 0.5, -1.0, 1.0)
            out = out + (rank < self.operations) * sign * self.magnitude * constants["reach"]
        return out

    def move(self, x: Tensor, amounts: Tensor, u: Tensor) -> Tensor:
        """One resampling for all geometric changes.

        A point of the result, seen from the middle, is flipped, leant, turned, zoomed and shifted, in pixels: that is
        where in the picture it comes from.
        """
        height, width = x.shape[-2:]
        shift_x, shift_y, turn, scale, shear = amounts[:, :5].unbind(1)
        zoom = 1 / (1 + scale).clamp(min=0.1)
        if self.crop < 1:
            side = (self.crop + (1 - self.crop) * u[:, 0]).sqrt()
            zoom = zoom * side
            shift_x, shift_y = shift_x + (u[:, 1] - 0.5) * (1 - side), shift_y + (u[:, 2] - 0.5) * (1 - side)
        flip_x = torch.where(u[:, 3] < 0.5, -1.0, 1.0) if self.flips[0] else torch.ones_like(turn)
        flip_y = torch.where(u[:, 6] < 0.5, -1.0, 1.0) if self.flips[1] else torch.ones_like(turn)
        cos, sin = turn.deg2rad().cos(), turn.deg2rad().sin()
        lean = shear.clamp(-85, 85).deg2rad().tan()
        # zoom * turn @ lean @ flip: [[cos, -sin], [sin, cos]] @ [[1, lean], [0, 1]] @ [[flip_x, 0], [0, flip_y]]
        x_of_x, x_of_y = zoom * cos * flip_x, zoom * (cos * lean - sin) * flip_y
        y_of_x, y_of_y = zoom * sin * flip_x, zoom * (sin * lean + cos) * flip_y
        # The grid counts each side from -1 to 1, however many pixels it has; a share of a side is thus twice as much.
        theta = torch.stack(
            [
                torch.stack([x_of_x, x_of_y * (height / width), 2 * shift_x], 1),
                torch.stack([y_of_x * (width / height), y_of_y, 2 * shift_y], 1),
            ],
            1,
        )
        across, down = (self.middles(side, x.device) for side in (width, height))
        # torch's affine_grid, which multiplies matrices row by row, takes seven times as long.
        from_across = theta[:, :, 0:1] * across
        from_down = theta[:, :, 1:2] * down + theta[:, :, 2:3]
        grid = (from_down[:, :, :, None] + from_across[:, :, None, :]).permute(0, 2, 3, 1)
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    def middles(self, side: int, device: torch.device) -> Tensor:
        """The middle of each pixel of a side that counts from -1 to 1, kept."""
        constants, key = self.on(device), f"middles of {side}"
        if key not in constants:
            constants[key] = (2 * torch.arange(side, device=device) + 1) / side - 1
        return constants[key]


def recolour(x: Tensor, amounts: Tensor, weights: Tensor) -> Tensor:
    """Brightness, contrast about the picture's mean, and, in colour, saturation about its greys."""
    bright, contrast, saturation = ((1 + amounts[:, k]).view(-1, 1, 1, 1) for k in range(3))
    x = x * bright
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + (x - mean) * contrast
    if x.shape[1] == 3:
        grey = (x * weights.view(1, 3, 1, 1)).sum(1, keepdim=True)
        x = grey + (x - grey) * saturation
    return x.clamp(0, 255)


def inside(x: Tensor, centre_x: Tensor, centre_y: Tensor, side_x: Tensor, side_y: Tensor) -> Tensor:
    """Which points lie in a box a row, [B, 1, H, W]; centres and sides are shares of the picture's."""
    height, width = x.shape[-2:]
    across = (torch.arange(width, device=x.device) + 0.5) / width
    down = (torch.arange(height, device=x.device) + 0.5) / height
    in_x = (across - centre_x[:, None]).abs() * 2 < side_x[:, None]
    in_y = (down - centre_y[:, None]).abs() * 2 < side_y[:, None]
    return (in_y[:, :, None] & in_x[:, None, :])[:, None]


def blank(x: Tensor, centre_x: Tensor, centre_y: Tensor, side: float) -> Tensor:
    """A square of each picture's mean (DeVries and Taylor, "Cutout", 2017)."""
    size = torch.full_like(centre_x, side)
    return torch.where(inside(x, centre_x, centre_y, size, size), x.mean((1, 2, 3), keepdim=True), x)


def mixup(x: Tensor, u: Tensor, table: Tensor) -> tuple[Tensor, Blend]:
    partner, share = u[:, 7].argsort(stable=True), quantile(table, u[:, 8])
    part = share.view(-1, 1, 1, 1)
    return part * x + (1 - part) * x[partner], Blend(partner, share)


def cutmix(x: Tensor, u: Tensor, table: Tensor) -> tuple[Tensor, Blend]:
    partner, share = u[:, 7].argsort(stable=True), quantile(table, u[:, 8])
    side = (1 - share).sqrt()
    box = inside(x, u[:, 9], u[:, 10], side, side)
    return torch.where(box, x[partner], x), Blend(partner, 1 - box.float().mean((1, 2, 3)))


def beta_table(alpha: float, knots: int = 1025) -> Tensor:
    """Quantiles of Beta(alpha, alpha) at equal steps of probability, by numeric integration.

    The lower half is summed over w = x^min(alpha, 1), which has no pole at 0; the upper half is its mirror image.
    """
    power = min(alpha, 1.0)
    edges = np.linspace(0, 0.5**power, 200_001)
    x = ((edges[:-1] + edges[1:]) / 2) ** (1 / power)
    density = (2 * x) ** (alpha - power) * (2 * (1 - x)) ** (alpha - 1)
    total = np.concatenate([[0.0], np.cumsum(density)])
    lower = np.interp(np.linspace(0, 1, knots // 2 + 1), total / total[-1], edges) ** (1 / power)
    return torch.from_numpy(np.concatenate([lower, 1 - lower[-2::-1]])).float()


def quantile(table: Tensor, u: Tensor) -> Tensor:
    place = u * (len(table) - 1)
    low = place.long().clamp(max=len(table) - 2)
    return torch.lerp(table[low], table[low + 1], place - low)


def none() -> Augment:
    """No change."""
    return Augment()


def light() -> Augment:
    """Small shifts, turns and changes of size: safe where left and right matter, as in writing."""
    return Augment(shift=0.08, rotate=8, scale=0.08)


def standard() -> Augment:
    """For photographs: crops, flips, small turns and changes of colour."""
    return Augment(crop=0.6, rotate=8, flip=True, brightness=0.2, contrast=0.2, saturation=0.2)


def strong() -> Augment:
    """For photographs and long training: two drawn changes, cutout, mixup and cutmix beside crops and flips."""
    return Augment(crop=0.4, flip=True, operations=2, magnitude=0.5, cutout=0.25, mixup=0.2, cutmix=1.0)


AUGMENTS: dict[str, dict[str, Callable[..., Any]]] = {
    "audio": AUDIO_AUGMENTS,
    "image": {"none": none, "light": light, "standard": standard, "strong": strong, "custom": Augment},
}
