"""What every chart stands on: scales with round ticks, axes, and the few shapes of SVG that the charts use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .markup import esc, shorten

__all__ = ["HEIGHT", "SQUARE", "TINY", "WIDTH", "Scale", "axes", "dot", "empty", "left_of", "stroke", "svg", "words"]

WIDTH, HEIGHT, SQUARE = 360.0, 230.0, 320.0  # of the view box; text is 11 units high
TINY = 1e-30  # what is smaller is drawn as nothing


@dataclass(frozen=True)
class Scale:
    """From values in [low, high] to units of the view box in [start, stop]; what lies outside is put on the edge."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False
    whole: bool = False

    @classmethod
    def around(
        cls,
        values: Sequence[float],
        start: float,
        stop: float,
        *,
        log: bool = False,
        whole: bool = False,
        pad: float = 0.0,
    ) -> Scale:
        """The scale that holds these values; equal ones get some room on both sides."""
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        if log:
            room = max(pad, 1e-3) * math.log10(high / low) if high > low * 1.001 else 0.5
            return cls(low * 10**-room, high * 10**room, start, stop, log=True)
        if high - low <= max(1e-6 * max(abs(low), abs(high)), TINY):
            room = max(0.1 * abs(low), 1.0 if whole or abs(low) <= TINY else 0.0)
        else:
            room = pad * (high - low)
        return cls(low - room, high + room, start, stop, whole=whole)

    def __call__(self, value: float) -> float:
        if self.log:
            value = max(value, self.low)
            share = math.log10(value / self.low) / math.log10(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + min(max(share, 0.0), 1.0) * (self.stop - self.start)

    def ticks(self, count: int = 6) -> list[tuple[float, str]]:
        """About ``count`` round values on the scale (1, 2, 5 times a power of ten) with their labels."""
        if self.log:
            values = _powers(self.low, self.high, count)
            if len(values) >= 2:
                return [(value, f"{value:g}".replace("e-0", "e-").replace("e+0", "e")) for value in values]
        step = _round_step((self.high - self.low) / count)
        if self.whole:
            step = max(step, 1.0)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        values = [index * step for index in range(first, last + 1)]
        return [(value, _label(value, step)) for value in values if not self.log or value > 0]


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next((factor * power for factor in (1, 2, 5) if factor * power >= rough * (1 - 1e-9)), 10 * power)


def _powers(low: float, high: float, count: int) -> list[float]:
    """Powers of ten between two positive values; where these are few, twice and five times them too."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    stride = max(1, math.ceil((last - first) / (count + 2)))
    factors = (1, 2, 5) if math.log10(high / low) < 2 else (1,)
    values = [factor * 10.0**power for power in range(first, last + 1, stride) for factor in factors]
    return [value for value in values if low <= value <= high]


def _label(value: float, step: float) -> str:
    """A tick's value in as many digits as tell it from its neighbours."""
    size = abs(value)
    if size < step / 2:
        return "0"
    if 1e6 <= size < 1e9 and step >= 1e4:
        return f"{value / 1e6:.{_decimals(step / 1e6)}f}M"
    if 1e4 <= size < 1e6 and step >= 1e2:
        return f"{value / 1e3:.{_decimals(step / 1e3)}f}k"
    if 1e-4 <= size < 1e9:
        return f"{value:.{_decimals(step)}f}"
    digits = max(1, math.floor(math.log10(size) + 1e-9) - math.floor(math.log10(step) + 1e-9) + 1)
    return f"{value:.{digits}g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def _decimals(step: float) -> int:
    return max(0, -math.floor(math.log10(step) + 1e-9))


def svg(title: str, parts: Sequence[str], height: float) -> str:
    # Width and height say the shape where the style sheet is not obeyed.
    size = f'viewBox="0 0 {WIDTH:g} {height:g}" width="{WIDTH:g}" height="{height:g}"'
    return f'<svg class="chart" role="img" {size}><title>{esc(shorten(title, 200))}</title>{"".join(parts)}</svg>'


def empty(title: str, height: float = HEIGHT) -> str:
    frame = f'<rect class="frame" x="1" y="1" width="{WIDTH - 2:g}" height="{height - 2:g}"/>'
    return svg(title, [frame, words(WIDTH / 2, height / 2, "nothing to draw", "middle")], height)


def words(x: float, y: float, text: str, anchor: str = "start", turn: bool = False) -> str:
    turned = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turn else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turned}>{esc(shorten(text, 44))}</text>'


def stroke(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def dot(kind: str, x: float, y: float, radius: float, title: str = "") -> str:
    told = f"<title>{esc(title)}</title>" if title else ""
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}">{told}</circle>'


def axes(x: Scale, y: Scale, x_label: str, y_label: str, height: float) -> list[str]:
    """Grid, ticks and labels of both axes."""
    left, right, bottom, top = x.start, x.stop, y.start, y.stop
    parts = []
    for value, label in y.ticks():
        parts += [stroke("grid", left, y(value), right, y(value)), words(left - 5, y(value) + 4, label, "end")]
    for value, label in x.ticks():
        parts += [stroke("tick", x(value), bottom, x(value), bottom + 4), words(x(value), bottom + 16, label, "middle")]
    parts.append(stroke("axis", left, bottom, right, bottom))
    parts.append(words((left + right) / 2, height - 5, x_label, "middle"))
    parts.append(words(12, (top + bottom) / 2, y_label, "middle", turn=True))
    return parts


def left_of(y: Scale) -> float:
    """Room on the left for the tick labels and the name of the axis."""
    return 26 + 6.2 * min(max((len(label) for _, label in y.ticks()), default=1), 10)
