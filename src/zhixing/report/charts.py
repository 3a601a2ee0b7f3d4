"""Charts as SVG, made by hand: lines, bars, points. Colours are classes that ``style.css`` fills in, light and dark.

Every function takes plain lists, in which None stands for a value that was not a number, and gives a whole ``<svg>``
that lies inside its view box whatever the values are; with nothing to draw it says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from .axes import HEIGHT, SQUARE, TINY, WIDTH, Scale, axes, dot, empty, left_of, stroke, svg, words
from .files import number
from .markup import shorten

__all__ = ["Line", "histogram", "line_chart", "reliability", "scatter", "thin"]

MOST_POINTS = 500  # a line with more is thinned; the eye cannot tell
MOST_DOTS = 1500
LOG_FROM = 100.0  # largest over smallest value from which an axis is better logarithmic

Value = float | None
Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One line of a chart. ``style`` a is thin and for many points, b is bold with a marker at each point."""

    name: str
    x: Sequence[Value]
    y: Sequence[Value]
    style: str = "a"


def _pairs(x: Sequence[object], y: Sequence[object]) -> list[Point | None]:
    """Points that can be drawn, None in the place of others."""
    pairs: list[Point | None] = []
    for a, b in zip(x, y, strict=False):
        left, right = number(a), number(b)
        pairs.append(None if left is None or right is None else (left, right))
    return pairs


def thin(points: Sequence[Point], limit: int = MOST_POINTS) -> list[Point]:
    """At most ``limit`` of the points, in order, ends included. Of each stretch its lowest and highest point stay, so
    that a spike is not lost.

    >>> len(thin([(float(i), 0.0) for i in range(9999)]))
    500
    """
    assert limit >= 4, limit
    if len(points) <= limit:
        return list(points)
    inner, stretches = points[1:-1], (limit - 2) // 2
    kept = [points[0]]
    for index in range(stretches):
        stretch = range(index * len(inner) // stretches, (index + 1) * len(inner) // stretches)
        lowest, highest = min(stretch, key=lambda i: inner[i][1]), max(stretch, key=lambda i: inner[i][1])
        if lowest == highest:  # a level stretch: its first and last point
            lowest, highest = stretch[0], stretch[-1]
        kept += [inner[i] for i in sorted((lowest, highest))]
    return [*kept, points[-1]]


def _stretches(pairs: Sequence[Point | None]) -> list[list[Point]]:
    """The unbroken stretches of a line, thinned; a line with very many gaps is drawn through them."""
    parts: list[list[Point]] = [[]]
    for point in pairs:
        if point is not None:
            parts[-1].append(point)
        elif parts[-1]:
            parts.append([])
    parts = [part for part in parts if part]
    total = sum(map(len, parts))
    if total <= MOST_POINTS:
        return parts
    if len(parts) > MOST_POINTS // 10:
        return [thin([point for part in parts for point in part])]
    return [thin(part, max(4, MOST_POINTS * len(part) // total)) for part in parts]


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    log: bool | None = None,
    epochs: float | None = None,
    zero: bool = False,
) -> str:
    """Lines over steps.

    Args:
        title: what it shows, for those who cannot see it.
        lines: at most two are told apart by colour, weight and markers.
        x_label: name and unit of the x axis.
        y_label: name and unit of the y axis.
        log: whether y is logarithmic; None: where all values are positive and span more than a hundredfold.
        epochs: how many epochs the largest x is, for a second axis on top.
        zero: whether a linear y axis starts at zero, for values that are compared as lengths.
    """
    pairs = [_pairs(line.x, line.y) for line in lines]
    points = [point for line in pairs for point in line if point is not None]
    if not points:
        return empty(title)
    heights, note = _heights([y for _, y in points], log)
    top = 47.0 if epochs else 26.0
    if len(lines) < 2:
        top -= 14
    y = Scale.around(heights, HEIGHT - 40, top, log=bool(note), pad=0.05)
    if zero and not note and min(heights) >= 0:
        y = Scale(0.0, 1.05 * max(heights) if max(heights) > TINY else 1.0, HEIGHT - 40, top)
    x = Scale.around([x for x, _ in points], left_of(y), WIDTH - 16, whole=all(a.is_integer() for a, _ in points))
    parts = axes(x, y, x_label, y_label + note, HEIGHT)
    last = max(a for a, _ in points)
    if epochs and last > 0:
        parts += _epoch_axis(x, y, epochs / last)
    for line, found in zip(lines, pairs, strict=True):
        parts += _drawn(line, found, x, y)
    return svg(title, parts + (_legend(lines, x.start) if len(lines) > 1 else []), HEIGHT)


def _heights(heights: list[float], log: bool | None) -> tuple[list[float], str]:
    """The values that the y axis must hold and what to say of it: nothing where it is linear."""
    positive = [y for y in heights if y > TINY]
    if log is None:
        log = bool(positive) and max(positive) / min(positive) > LOG_FROM
    if not log or not positive or min(heights) < 0:
        return heights, ""
    return positive, " (log)" if len(positive) == len(heights) else " (log; 0 at the foot)"


def _epoch_axis(x: Scale, y: Scale, ratio: float) -> list[str]:
    """Ticks of epochs on top; ``ratio`` is how many epochs a step is."""
    if not 1e-12 < ratio * (x.high - x.low) < 1e12:
        return []
    scale = Scale(x.low * ratio, x.high * ratio, x.start, x.stop)
    parts = [stroke("axis", x.start, y.stop, x.stop, y.stop), words(x.start - 10, y.stop - 9, "epoch", "end")]
    for value, label in scale.ticks():
        parts.append(stroke("tick", scale(value), y.stop - 4, scale(value), y.stop))
        parts.append(words(scale(value), y.stop - 9, label, "middle"))
    return parts


def _drawn(line: Line, pairs: Sequence[Point | None], x: Scale, y: Scale) -> list[str]:
    parts = []
    for stretch in _stretches(pairs):
        where = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in stretch)
        if len(stretch) > 1:
            parts.append(f'<polyline class="line {line.style}" points="{where}"/>')
        if len(stretch) == 1 or (line.style == "b" and len(stretch) <= 60):
            parts += [dot(f"dot {line.style}", x(a), y(b), 2.6, f"{line.name}, {a:g}: {b:.5g}") for a, b in stretch]
    return parts


def _legend(lines: Sequence[Line], left: float) -> list[str]:
    parts, at = [], left
    for line in lines[:4]:
        text = shorten(line.name, 18)
        parts += [stroke(f"line {line.style}", at, 10, at + 18, 10), words(at + 23, 14, text)]
        if line.style == "b":
            parts.append(dot("dot b", at + 9, 10, 2.6))
        at = min(at + 36 + 6.2 * len(text), WIDTH - 30)
    return parts


def histogram(title: str, edges: Sequence[object], rows: Sequence[object], *, x_label: str) -> str:
    """Bars of how many rows fall between neighbouring edges; edges that do not grow give an empty chart."""
    bounds = [edge for edge in map(number, edges) if edge is not None]
    counts = [max(number(count) or 0.0, 0.0) for count in rows]
    grows = all(a < b for a, b in pairwise(bounds))
    if not counts or len(bounds) != len(edges) or len(bounds) != len(counts) + 1 or not grows:
        return empty(title)
    y = Scale(0.0, max(max(counts), 1.0) * 1.05, HEIGHT - 40, 12.0, whole=max(counts) < 1e12)
    x = Scale.around(bounds, left_of(y), WIDTH - 16)
    bars = []
    for (a, b), count in zip(pairwise(bounds), counts, strict=True):
        start, width = x(a) + 0.5, max(x(b) - x(a) - 1, 0.4)
        told = f"<title>{a:.5g} to {b:.5g}: {count:,.0f} rows</title>"
        where = f'x="{min(start, x.stop - 0.4):.2f}" y="{y(count):.1f}"'
        size = f'width="{width:.2f}" height="{y.start - y(count):.1f}"'
        bars.append(f'<rect class="bar" {where} {size}>{told}</rect>')
    return svg(title, [*axes(x, y, x_label, "rows", HEIGHT), *bars], HEIGHT)


def scatter(title: str, truth: Sequence[object], prediction: Sequence[object]) -> str:
    """Predictions against the truth, with the line on which they are equal. Of very many points, evenly spread ones."""
    points = [point for point in _pairs(truth, prediction) if point is not None]
    if not points:
        return empty(title, SQUARE)
    shown = (
        [points[index * len(points) // MOST_DOTS] for index in range(MOST_DOTS)] if len(points) > MOST_DOTS else points
    )
    y = Scale.around([value for point in points for value in point], SQUARE - 40, 12.0, pad=0.03)
    x = Scale(y.low, y.high, left_of(y), WIDTH - 16)
    parts = axes(x, y, "truth", "prediction", SQUARE)
    parts.append(stroke("guide", x(x.low), y(y.low), x(x.high), y(y.high)))
    parts += [dot("cloud", x(a), y(b), 2.2) for a, b in shown]
    return svg(title, parts, SQUARE)


def reliability(title: str, confidence: Sequence[object], accuracy: Sequence[object], rows: Sequence[object]) -> str:
    """Accuracy against stated confidence, a dot for each bin, its area in proportion to the bin's rows.

    A model whose probabilities can be taken at their word has its dots on the diagonal.
    """
    points = _pairs(confidence, accuracy)
    counts = [max(number(count) or 0.0, 0.0) for count in rows]
    counts += [1.0] * (len(points) - len(counts))
    bins = sorted((*point, count) for point, count in zip(points, counts, strict=False) if point and count > 0)
    if not bins:
        return empty(title, SQUARE)
    y = Scale(0.0, 1.0, SQUARE - 40, 12.0)
    x = Scale(0.0, 1.0, left_of(y), WIDTH - 16)
    largest = max(count for _, _, count in bins)
    parts = [*axes(x, y, "confidence", "accuracy", SQUARE), stroke("guide", x(0), y(0), x(1), y(1))]
    parts += [stroke("gap", x(said), y(said), x(said), y(was)) for said, was, _ in bins]
    where = " ".join(f"{x(said):.1f},{y(was):.1f}" for said, was, _ in bins)
    parts.append(f'<polyline class="line b" points="{where}"/>')
    for said, was, count in bins:
        told = f"confidence {said:.3f}, accuracy {was:.3f}, {count:,.0f} rows"
        parts.append(dot("dot b", x(said), y(was), 2.0 + 7.0 * math.sqrt(count / largest), told))
    return svg(title, parts, SQUARE)
