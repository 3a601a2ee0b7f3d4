"""Charts of a study, in the manner of the report's: history, parallel axes, front."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..report.axes import HEIGHT, WIDTH, Scale, axes, dot, empty, left_of, stroke, svg, words
from ..report.markup import Html, esc, figure_text, shorten
from .space import Dimension

__all__ = ["Point", "front_chart", "history", "parallel"]

GAP, TALL = 104.0, 250.0  # between two of the parallel axes; height of their chart


@dataclass(frozen=True)
class Point:
    """One trial in a chart: its values, whether it was trained to the end, its settings by dimension."""

    number: int
    values: tuple[float, ...]
    whole: bool
    settings: tuple[Any, ...] = ()


def history(points: Sequence[Point], label: str, higher: bool) -> str:
    """The first value of each trial in their order, and the best so far of those trained to the end."""
    title = f"{label} by trial"
    if not points:
        return empty(title)
    y = Scale.around([point.values[0] for point in points], HEIGHT - 40, 12.0, pad=0.05)
    x = Scale.around([float(point.number) for point in points], left_of(y), WIDTH - 16, whole=True, pad=0.02)
    parts = axes(x, y, "trial", label, HEIGHT)
    best: float | None = None
    steps: list[str] = []
    for point in points:
        value, at = point.values[0], x(point.number)
        kind = "dot b" if point.whole else "cloud"
        told = f"trial {point.number}: {value:.5g}" + ("" if point.whole else " (stopped before the end)")
        parts.append(dot(kind, at, y(value), 3.2 if point.whole else 2.4, told))
        if point.whole and (best is None or (value > best) == higher):
            steps += [f"{at:.1f},{y(value if best is None else best):.1f}", f"{at:.1f},{y(value):.1f}"]
            best = value
    if best is not None:
        where = " ".join([*steps, f"{x.stop:.1f},{y(best):.1f}"])
        parts.append(f'<polyline class="line a" points="{where}"/>')
    return svg(title, parts, HEIGHT)


def front_chart(points: Sequence[Point], labels: Sequence[str], front: Sequence[int]) -> str:
    """Two objectives against each other, those trials joined that no other beats in both."""
    title = f"{labels[0]} against {labels[1]}"
    if not points:
        return empty(title)
    ups = [point.values[0] for point in points]
    sides = [point.values[1] for point in points]
    wide = min(sides) > 0 and max(sides) / min(sides) > 20
    y = Scale.around(ups, HEIGHT - 40, 12.0, pad=0.05)
    x = Scale.around(sides, left_of(y), WIDTH - 16, log=wide, pad=0.05)
    parts = axes(x, y, labels[1] + (" (log)" if wide else ""), labels[0], HEIGHT)
    best = sorted((point for point in points if point.number in front), key=lambda point: point.values[1])
    where = " ".join(f"{x(point.values[1]):.1f},{y(point.values[0]):.1f}" for point in best)
    parts.append(f'<polyline class="line a" points="{where}"/>')
    for point in points:
        told = f"trial {point.number}: {point.values[0]:.5g}, {point.values[1]:.5g}"
        kind = "dot b" if point.number in front else "cloud"
        parts.append(dot(kind, x(point.values[1]), y(point.values[0]), 3, told))
    return svg(title, parts, HEIGHT)


def parallel(points: Sequence[Point], dimensions: Sequence[Dimension], label: str, best: Sequence[int]) -> Html:
    """A line for each trial through an axis for each setting, the value on the last; the best are bold."""
    if not points:
        return Html(empty("settings and values"))
    tops = [Track.of(one) for one in dimensions]
    values = Scale.around([point.values[0] for point in points], TALL - 30, 40.0, pad=0.02)
    wide = GAP * len(dimensions) + 2 * 50
    parts, names = [], []
    for index, (one, track) in enumerate(zip(dimensions, tops, strict=True)):
        parts.append(stroke("axis", 50 + GAP * index, track.scale.start, 50 + GAP * index, track.scale.stop))
        names += track.named(50 + GAP * index, last_words(one.path), index % 2)
    at = 50 + GAP * len(dimensions)
    parts += [stroke("axis", at, values.start, at, values.stop), words(at, 14, shorten(label, 24), "middle")]
    parts += [words(at + 5, values(value) + 4, text) for value, text in values.ticks(5)]
    for point in sorted(points, key=lambda point: point.number in best):
        spots = [
            (50 + GAP * i, track(value)) for i, (track, value) in enumerate(zip(tops, point.settings, strict=True))
        ]
        known = [f"{x:.1f},{y:.1f}" for x, y in spots if y is not None]
        line = " ".join([*known, f"{at:.1f},{values(point.values[0]):.1f}"])
        kind, faint = ("b", 1.0) if point.number in best else ("a", 0.45 if point.whole else 0.2)
        told = f"<title>trial {point.number}: {point.values[0]:.5g}</title>"
        parts.append(f'<polyline class="line {kind}" opacity="{faint}" points="{line}">{told}</polyline>')
    size = f'viewBox="0 0 {wide:g} {TALL:g}" width="{wide:g}" height="{TALL:g}"'
    return Html(
        f'<svg class="chart" style="width:{wide:g}px;max-width:none" role="img" {size}>'
        f"<title>settings and {esc(label)} of each trial</title>{''.join(parts + names)}</svg>"
    )


def last_words(path: str) -> str:
    """A setting's name with what it belongs to.

    >>> last_words("inputs.photo.encoder.width"), last_words("training.batch_size")
    ('encoder.width', 'batch_size')
    """
    words_ = path.removeprefix("training.").split(".")
    return ".".join(words_[-2:])


@dataclass(frozen=True)
class Track:
    """One axis: where a setting's value stands on it, and what is written beside it."""

    scale: Scale
    choices: tuple[str, ...] = ()

    @classmethod
    def of(cls, one: Dimension) -> Track:
        if one.kind == "choices":
            return cls(Scale(0, max(1, len(one.choices) - 1), TALL - 30, 40), tuple(map(json.dumps, one.choices)))
        return cls(Scale(one.low, one.high, TALL - 30, 40, log=one.log))

    def __call__(self, value: Any) -> float | None:
        if self.choices:
            text = json.dumps(value)
            return self.scale(self.choices.index(text)) if text in self.choices else None
        usable = isinstance(value, int | float) and math.isfinite(value) and (value > 0 or not self.scale.log)
        return self.scale(value) if usable else None

    def named(self, at: float, name: str, lower: int) -> list[str]:
        parts = [words(at, 14 + 14 * lower, shorten(name, 26), "middle")]
        if self.choices:
            marks = [(self.scale(index), text.strip('"')) for index, text in enumerate(self.choices)]
        else:
            marks = [(self.scale(value), figure_text(float(value))) for value in (self.scale.low, self.scale.high)]
        return parts + [words(at + 5, y + 4, shorten(text, 14)) for y, text in marks]
