"""Where a token stands: added to it, turned into queries and keys, or laid on the scores of attention.

All of them are :class:`Positions`, which acts in three places and does nothing in those that a subclass leaves out:
``embed`` before the first block, ``rotation`` of queries and keys in each attention, ``bias`` on each attention's
scores. So attention has no case for any of them.

Shape legend: B rows, T tokens that ask, S tokens that are asked, D width, H heads, C width of a head. Places ``at``
are integers, [T] where they are the same in all rows, else [B, T].
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from ..errors import UsageError
from ..settings import Settings

__all__ = [
    "ALiBi",
    "Learned",
    "PositionKind",
    "Positions",
    "RelativeBias",
    "Rotary",
    "Rotation",
    "Sinusoidal",
    "Stretch",
    "alibi_slopes",
    "make_positions",
    "relative_buckets",
    "sinusoids",
    "sinusoids_2d",
]

PositionKind = Literal["none", "sinusoidal", "learned", "rotary", "relative", "alibi"]


class Rotation(NamedTuple):
    """Angles by which pairs of units are turned: ``cosine`` and ``sine`` [T or B x 1 x T, P] of P pairs.

    ``interleaved`` pairs are units (0, 1), (2, 3), ...; otherwise unit i of the first P goes with unit i of the next.
    Units after the first 2P stay as they are.
    """

    cosine: Tensor
    sine: Tensor
    interleaved: bool = False

    def turn(self, x_BHTC: Tensor) -> Tensor:
        """Queries or keys, each pair turned by the angle of its token; the same type as before."""
        pairs = self.cosine.shape[-1]
        turned, rest = x_BHTC[..., : 2 * pairs], x_BHTC[..., 2 * pairs :]
        if self.interleaved:
            first, second = turned[..., ::2], turned[..., 1::2]
        else:
            first, second = turned[..., :pairs], turned[..., pairs:]
        both = (first * self.cosine - second * self.sine, first * self.sine + second * self.cosine)
        out = torch.stack(both, dim=-1 if self.interleaved else -2).flatten(-2).to(x_BHTC.dtype)
        return torch.cat([out, rest], dim=-1) if rest.shape[-1] else out


class Positions(nn.Module):
    """Base of the kinds of position, and itself the one that tells nothing: tokens are a set."""

    def embed(self, x_BTD: Tensor, at: Tensor) -> Tensor:
        """Tokens with what is added to them before the first block."""
        return x_BTD

    def rotation(self, at: Tensor, dtype: torch.dtype) -> Rotation | None:
        """What turns queries and keys of tokens at these places; computed once for all blocks."""
        return None

    def bias(self, at: Tensor, source_at: Tensor) -> Tensor | None:
        """What is added to the scores of attention, [1 or B, H, T, S]; computed once for all blocks."""
        return None


def sinusoids(
    at: Tensor, width: int, dtype: torch.dtype = torch.float32, *, base: float = 10_000.0, interleaved: bool = True
) -> Tensor:
    """Sines (even units) and cosines (odd units) of places, with wave lengths from 2 pi to 2 pi x base.

    Where they are not ``interleaved``, all sines stand before all cosines.

    Shape: at [...] to [..., width].

    >>> sinusoids(torch.tensor([0, 1]), 2)
    tensor([[0.0000, 1.0000],
            [0.8415, 0.5403]])
    """
    dtype = torch.promote_types(dtype, torch.float32)  # bfloat16 does not tell place 256 from 257
    units = torch.arange(0, width, 2, device=at.device, dtype=dtype)
    angles = at[..., None].to(dtype) * base ** (-units / width)
    return torch.stack([angles.sin(), angles.cos()], dim=-1 if interleaved else -2).flatten(-2)[..., :width]


def sinusoids_2d(height: int, width: int, units: int) -> Tensor:
    """:func:`sinusoids` of the row in the first half of the units, of the column in the second: [T, units].

    >>> sinusoids_2d(2, 3, 8).shape
    torch.Size([6, 8])
    """
    rows = sinusoids(torch.arange(height), (units + 1) // 2)[:, None].expand(-1, width, -1)
    columns = sinusoids(torch.arange(width), units // 2)[None].expand(height, -1, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


class Sinusoidal(Positions):
    """Fixed waves added to the tokens (Vaswani et al. 2017, arXiv:1706.03762, section 3.5).

    The published weights of Marian want sines before cosines; so do Whisper's, whose longest wave is moreover 2 pi x
    10,000 itself, which makes the base 10,000^(P / (P - 1)) for P pairs of units. A stack that is trained afresh works
    as well with any order of units.
    """

    def __init__(self, *, base: float = 10_000.0, interleaved: bool = True) -> None:
        super().__init__()
        self.base, self.interleaved = base, interleaved

    def extra_repr(self) -> str:
        return f"base={self.base:g}, interleaved={self.interleaved}"

    def embed(self, x_BTD: Tensor, at: Tensor) -> Tensor:
        waves = sinusoids(at, x_BTD.shape[-1], x_BTD.dtype, base=self.base, interleaved=self.interleaved)
        return x_BTD + waves.to(x_BTD.dtype)


class Learned(Positions):
    """A learned vector for each place, added to the tokens; there are ``length`` places."""

    def __init__(self, width: int, *, length: int) -> None:
        super().__init__()
        self.table = nn.Embedding(length, width)
        nn.init.normal_(self.table.weight, std=0.02)

    def embed(self, x_BTD: Tensor, at: Tensor) -> Tensor:
        out: Tensor = x_BTD + self.table(at)
        return out


class Stretch(Settings):
    """Angles of slow pairs that are made slower, so that texts longer than those that were learned from fit: Llama 3.1
    (Grattafiori et al. 2024, arXiv:2407.21783). Of the ``length`` that was learned from first, pairs that turn less
    than ``slow`` times turn ``factor`` times slower, those that turn more than ``fast`` times stay, others lie between.
    """

    factor: Annotated[float, Field(ge=1, description="how much slower the slow pairs turn")]
    slow: Annotated[float, Field(gt=0, description="turns below which a pair is slow")] = 1.0
    fast: Annotated[float, Field(gt=0, description="turns above which a pair is fast; more than slow")] = 4.0
    length: Annotated[int, Field(ge=1, description="tokens over which turns are counted")] = 8192

    def of(self, rates: Tensor) -> Tensor:
        """The rates of turning [P], in radians a token, as they become."""
        turns = self.length * rates / (2 * math.pi)
        kept = ((turns - self.slow) / (self.fast - self.slow)).clamp(0, 1)
        return rates * (kept + (1 - kept) / self.factor)


class Rotary(Positions):
    """Queries and keys turned by angles that grow with the place (Su et al. 2021, arXiv:2104.09864).

    Pair i of P turns by place x base^(-i / P), so that the product of a query and a key depends on how far apart they
    stand and not on where.

    Args:
        head_width: units of a head, C.
        base: of the geometric row of angles; larger for longer texts.
        part: units of each head that are turned, an even number; None: all of them.
        stretch: for texts longer than those that were learned from.
        interleaved: how units are paired; see :class:`Rotation`. The paper's is True, Llama's published weights False.

    Raises:
        UsageError: an odd number of units to turn, or more than a head has.
    """

    def __init__(
        self,
        head_width: int,
        *,
        base: float = 10_000.0,
        part: int | None = None,
        interleaved: bool = False,
        stretch: Stretch | None = None,
    ) -> None:
        super().__init__()
        self.stretch = stretch
        self.units, self.base, self.interleaved = head_width if part is None else part, base, interleaved
        if self.units % 2 or not 0 < self.units <= head_width:
            raise UsageError(
                f"rotary positions turn pairs of units: {self.units} of a head's {head_width} cannot be paired",
                place="positions",
                mend="Choose width and heads so that width / heads is even.",
            )

    def extra_repr(self) -> str:
        return f"{self.units}, base={self.base:g}, interleaved={self.interleaved}"

    def rotation(self, at: Tensor, dtype: torch.dtype) -> Rotation:
        dtype = torch.promote_types(dtype, torch.float32)
        units = torch.arange(0, self.units, 2, device=at.device, dtype=dtype)
        rates = self.base ** (-units / self.units)
        angles = at[..., None].to(dtype) * (rates if self.stretch is None else self.stretch.of(rates))
        if at.ndim == 2:
            angles = angles.unsqueeze(1)  # the same for all heads of a row
        return Rotation(angles.cos(), angles.sin(), self.interleaved)


def relative_buckets(distance: Tensor, *, buckets: int = 32, most: int = 128, causal: bool = False) -> Tensor:
    """The number of the bucket that a distance (place of the asked token less that of the asking one) falls into.

    Half of the buckets hold one distance each, the rest widen geometrically up to ``most``, and the last holds all
    beyond. Without ``causal`` half of all are for tokens that come after; with it, those share bucket 0.

    >>> relative_buckets(torch.tensor([0, -1, 1, -8, -200]))
    tensor([ 0,  1, 17,  8, 15])
    """
    side = buckets if causal else buckets // 2
    after = torch.zeros_like(distance) if causal else (distance > 0).long() * side
    away = (-distance).clamp(min=0) if causal else distance.abs()
    exact = side // 2
    # Rounding up to 1 keeps the logarithm finite where the exact buckets are taken anyway.
    ratio = (away.clamp(min=1).float() / exact).log() / math.log(most / exact)
    wide = (exact + (ratio * (side - exact)).long()).clamp(max=side - 1)
    return after + torch.where(away < exact, away, wide)


class RelativeBias(Positions):
    """A learned number for each head and bucket of distances, added to the scores (T5: Raffel et al. 2020,
    arXiv:1910.10683). One table serves all blocks, as it does there."""

    def __init__(self, heads: int, *, buckets: int = 32, most: int = 128, causal: bool = False) -> None:
        super().__init__()
        self.buckets, self.most, self.causal = buckets, most, causal
        self.table = nn.Embedding(buckets, heads)
        nn.init.normal_(self.table.weight, std=0.02)

    def bias(self, at: Tensor, source_at: Tensor) -> Tensor:
        between = distances(at, source_at)
        number = relative_buckets(between, buckets=self.buckets, most=self.most, causal=self.causal)
        out: Tensor = self.table(number).movedim(-1, 1)
        return out


def alibi_slopes(heads: int) -> list[float]:
    """The slope of each head: 2^(-8 h / heads) for h from 1, where the number of heads is a power of two.

    Otherwise those of the next lower power of two, then every second one of twice that power (as its authors do).

    >>> alibi_slopes(4)
    [0.25, 0.0625, 0.015625, 0.00390625]
    """
    power = 1 << (heads.bit_length() - 1)
    slopes = [2 ** (-8 * head / power) for head in range(1, power + 1)]
    between = [2 ** (-4 * head / power) for head in range(1, 2 * power + 1, 2)]
    return slopes + between[: heads - power]


class ALiBi(Positions):
    """Scores fall linearly with distance, at a slope of each head's own (Press et al. 2022, arXiv:2108.12409).

    The paper speaks of causal attention; where tokens also look ahead, the distance counts both ways.
    """

    slopes: Tensor

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.register_buffer("slopes", torch.tensor(alibi_slopes(heads)), persistent=False)

    def bias(self, at: Tensor, source_at: Tensor) -> Tensor:
        return -self.slopes[:, None, None] * distances(at, source_at).abs().unsqueeze(1)


def distances(at: Tensor, source_at: Tensor) -> Tensor:
    """Place of each asked token less that of each asking one, [1 or B, T, S]."""
    apart = source_at[..., None, :] - at[..., :, None]
    return apart if apart.ndim == 3 else apart.unsqueeze(0)


def make_positions(
    kind: PositionKind,
    *,
    width: int,
    heads: int,
    length: int,
    causal: bool = False,
    base: float = 10_000.0,
    head_width: int | None = None,
    stretch: Stretch | None = None,
) -> Positions:
    """One kind of positions for tokens of ``width`` in ``heads`` heads; ``length`` is the most that learned ones take,
    ``base`` that of rotary angles.

    >>> make_positions("rotary", width=64, heads=4, length=100)
    Rotary(16, base=10000, interleaved=False)
    """
    if kind == "sinusoidal":
        return Sinusoidal()
    if kind == "learned":
        return Learned(width, length=length)
    if kind == "rotary":
        return Rotary(head_width or width // heads, base=base, stretch=stretch)
    if kind == "relative":
        return RelativeBias(heads, causal=causal)
    return ALiBi(heads) if kind == "alibi" else Positions()
