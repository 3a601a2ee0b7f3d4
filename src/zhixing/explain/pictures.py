"""Attributions as pictures: orange speaks for the answer, blue against it, and where there is nothing, nothing is seen.

Shape legend: H height, W width, T steps, F features.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = [
    "as_uri",
    "curve_picture",
    "enlarged",
    "heat",
    "overlay",
    "parts_picture",
    "spectrogram",
    "tokens_picture",
    "uri_picture",
]

Array = NDArray[Any]
FOR, AGAINST = (222, 100, 0), (0, 114, 178)
SEEN = 0.85  # of what lies under the strongest colour is hidden
LARGEST = 320  # pixels of a picture in a page
WIDE = 640  # pixels of a drawn one


def scale_of(values: Array) -> float:
    """What is drawn at full strength: the largest but for one cell in two hundred, so that one does not hide all."""
    size = np.abs(values[np.isfinite(values)])
    return max(float(np.quantile(size, 0.995)) if size.size else 0.0, 0.5 * float(size.max(initial=0.0)), 1e-30)


def heat(values: Array, scale: float | None = None) -> Image.Image:
    """An attribution [H, W] as RGBA, transparent where it is zero."""
    share = np.clip(np.nan_to_num(values) / (scale or scale_of(values)), -1, 1)
    out = np.empty((*share.shape, 4), np.uint8)
    out[..., :3] = np.where(share[..., None] >= 0, FOR, AGAINST)
    out[..., 3] = np.rint(255 * SEEN * np.sqrt(np.abs(share)))
    return Image.fromarray(out)


def overlay(values: Array, picture: Image.Image, scale: float | None = None) -> Image.Image:
    """An attribution [H, W] over a picture of the same size, which is made grey and pale."""
    grey = np.asarray(picture.convert("L"), np.float32)
    pale = Image.fromarray(np.rint(90 + grey * (165 / 255)).astype(np.uint8))
    return Image.alpha_composite(pale.convert("RGBA"), heat(values, scale)).convert("RGB")


def spectrogram(features: Array, values: Array) -> Image.Image:
    """Bands over time [T, F] with their attribution, the lowest band below, time to the right."""
    low, high = np.quantile(features, [0.02, 0.98]) if features.size else (0.0, 1.0)
    shades = np.clip((features - low) / max(float(high - low), 1e-9), 0, 1)
    grey = Image.fromarray(np.rint(255 * (1 - shades)).astype(np.uint8).T[::-1].copy())
    return overlay(np.ascontiguousarray(values.T[::-1]), grey)


def enlarged(picture: Image.Image, least: int = 256) -> Image.Image:
    """A small picture with larger pixels."""
    times = -(-least // max(1, max(picture.size)))
    if times <= 1:
        return picture
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)


def as_uri(picture: Image.Image, most: int = LARGEST) -> str:
    """A PNG as a data URI."""
    small = picture.copy()
    small.thumbnail((most, most))
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def font(size: int = 16) -> Any:
    """A font of this machine that has the letters of many scripts, else Pillow's own."""
    for name in ("NotoSansCJK-Regular.ttc", "DroidSansFallbackFull.ttf", "wqy-microhei.ttc", "DejaVuSans.ttf"):
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def tint(value: float, scale: float) -> tuple[int, int, int]:
    """White, coloured by an attribution."""
    share = SEEN * 0.8 * min(abs(value) / scale, 1.0)
    colour = FOR if value >= 0 else AGAINST
    red, green, blue = (round(255 + share * (part - 255)) for part in colour)
    return red, green, blue


def tokens_picture(pieces: list[tuple[str, float | None]]) -> Image.Image:
    """A text with coloured tokens, wrapped to lines."""
    letters, line, margin = font(), 24, 10
    scale = max([abs(value) for _, value in pieces if value is not None], default=0.0) or 1.0
    picture = Image.new("RGB", (WIDE, 20_000 if len(pieces) > 2000 else 8000), "white")
    draw, x, y = ImageDraw.Draw(picture), margin, margin
    for text, value in pieces:
        for part in text.replace("\t", " ").split("\n") if value is None else [text]:
            width = draw.textlength(part, letters)
            if x + width > WIDE - margin or part != text:
                x, y = margin, y + line
            if y + line > picture.height:
                return picture
            if value is not None:
                draw.rectangle((x, y, x + width, y + line - 3), fill=tint(value, scale))
            draw.text((x, y), part, fill="black", font=letters)
            x += int(width)
    return picture.crop((0, 0, WIDE, y + line + margin))


def parts_picture(parts: list[tuple[str, float]]) -> Image.Image:
    """Bars to the right for what speaks for the answer, to the left for what speaks against it."""
    letters, line, middle = font(), 28, WIDE * 0.68
    scale = max([abs(value) for _, value in parts], default=0.0) or 1.0
    picture = Image.new("RGB", (WIDE, line * len(parts) + 20), "white")
    draw = ImageDraw.Draw(picture)
    for number, (name, value) in enumerate(parts):
        y = 10 + number * line
        draw.text((10, y + 2), name if len(name) <= 36 else name[:35] + "…", fill="black", font=letters)
        reach = middle + value / scale * WIDE * 0.18
        box = (min(middle, reach), y + 4, max(middle, reach), y + line - 4)
        draw.rectangle(box, fill=FOR if value >= 0 else AGAINST)
        draw.text((WIDE - 76, y + 2), f"{value:+.3g}", fill="black", font=letters)
    draw.line((middle, 5, middle, picture.height - 5), fill=(120, 120, 120))
    return picture


def curve_picture(features: list[dict[str, Any]]) -> Image.Image:
    """Of each feature its values as a line, and its attribution as bars under it."""
    tall = 150
    picture = Image.new("RGB", (WIDE, tall * len(features) + 10), "white")
    draw, letters = ImageDraw.Draw(picture), font(13)
    scale = max([abs(v) for one in features for v in one["attribution"]], default=0.0) or 1.0
    for number, one in enumerate(features):
        top = number * tall + 8
        values = np.array([np.nan if v is None else v for v in one["values"]], float)
        count = max(1, len(values))
        x = 10 + (np.arange(count) + 0.5) * (WIDE - 20) / count
        known = np.isfinite(values)
        low, high = (values[known].min(), values[known].max()) if known.any() else (0.0, 1.0)
        y = top + 18 + 70 * (1 - (values - low) / max(high - low, 1e-12))
        points = [(float(a), float(b)) for a, b in zip(x[known], y[known], strict=True)]
        if len(points) > 1:
            draw.line(points, fill=(60, 60, 60), width=2)
        base = top + 118
        for a, value in zip(x, one["attribution"], strict=False):
            half, reach = max((WIDE - 20) / count / 2 - 0.5, 0.5), base - 24 * value / scale
            box = (a - half, min(base, reach), a + half, max(base, reach))
            draw.rectangle(box, fill=FOR if value >= 0 else AGAINST)
        draw.line((10, base, WIDE - 10, base), fill=(160, 160, 160))
        draw.text((10, top), str(one["name"]), fill="black", font=letters)
    return picture


def uri_picture(uri: str) -> Image.Image:
    """The picture of a data URI that :func:`as_uri` made."""
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
