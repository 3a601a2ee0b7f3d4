"""Pieces of HTML. Text becomes :class:`Html` only by being escaped, so nothing from a file can be markup."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Sequence

from .files import number

__all__ = [
    "Html",
    "bar",
    "cut_table",
    "esc",
    "figure",
    "figure_text",
    "join",
    "name",
    "note",
    "picture",
    "shorten",
    "table",
]

CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
PICTURE = re.compile(r"data:image/(?:png|jpeg|webp|gif);base64,[A-Za-z0-9+/]+={0,2}")
FOLDED = 1000  # rows behind a <details>; more would make the page heavy and nobody reads them there


class Html(str):
    """Markup that is safe to put in the page as it stands."""

    __slots__ = ()


def clean(text: object) -> str:
    """Text that UTF-8 and HTML can hold: lone surrogates and control characters become U+FFFD."""
    whole = str(text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return CONTROL.sub("\ufffd", whole)


def esc(text: object) -> Html:
    """Any text as markup.

    >>> esc('<script>"')
    '&lt;script&gt;&quot;'
    """
    return text if isinstance(text, Html) else Html(html.escape(clean(text)))


def join(parts: Iterable[Html], between: str = "") -> Html:
    return Html(between.join(parts))


def shorten(text: object, limit: int = 60) -> str:
    """The text on one line of at most ``limit`` characters."""
    line = " ".join(clean(text).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def name(text: object, limit: int = 60) -> Html:
    """A name of a user's, kept apart from the direction of the text around it; a long one is cut, whole on hover."""
    line, short = " ".join(clean(text).split()), shorten(text, limit)
    if not line:
        return Html('<span class="none">(empty)</span>')
    title = f' title="{esc(line)}"' if short != line else ""
    return Html(f"<bdi{title}>{esc(short)}</bdi>")


def figure_text(value: object) -> str:
    """A measured number for reading.

    >>> [figure_text(v) for v in (55000, 0.97312, 13.5, 0.0000123, 123456.7, None)]
    ['55,000', '0.9731', '13.50', '1.2e-05', '123,457', '–']
    """
    found = number(value)
    if found is None:
        return "–"
    size = abs(found)
    if isinstance(value, int):
        return f"{value:,}" if size < 1e15 else f"{found:.4g}"
    if found == 0:
        return "0"
    if size < 5e-4 or size >= 1e15:
        return f"{found:.2g}" if size < 1 else f"{found:.4g}"
    return f"{found:.4f}" if size < 10 else f"{found:.2f}" if size < 1000 else f"{found:,.0f}"


def cell(value: object) -> Html:
    if isinstance(value, Html):
        return value
    return name(value, 200) if isinstance(value, str) else esc(figure_text(value))


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str = "") -> Html:
    """A table whose first column names its rows. Cells are :class:`Html`, text or numbers (None is a dash)."""
    listed = [list(row) for row in rows]
    kind = [
        ' class="n"' if listed and not any(isinstance(row[i], str) for row in listed) else "" for i in range(len(heads))
    ]
    head = join(Html(f'<th scope="col"{k}>{esc(text)}</th>') for text, k in zip(heads, kind, strict=True))
    lines = []
    for first, *others in listed:
        cells = join(Html(f"<td{k}>{cell(value)}</td>") for value, k in zip(others, kind[1:], strict=True))
        lines.append(Html(f'<tr><th scope="row">{cell(first)}</th>{cells}</tr>'))
    body = join(lines)
    label = f"<caption>{esc(caption)}</caption>" if caption else ""
    return scrolling(Html(f"<table>{label}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"), caption)


def scrolling(content: Html, label: str) -> Html:
    """Content that may be wider than the page and then scrolls by itself; the keyboard reaches it."""
    return Html(f'<div class="wide" role="region" tabindex="0" aria-label="{esc(label or "table")}">{content}</div>')


def cut_table(heads: Sequence[str], rows: Sequence[Sequence[object]], *, limit: int, what: str, caption: str) -> Html:
    """A table of the first ``limit`` rows, the rest folded away under their count."""
    shown = table(heads, rows[:limit], caption=caption)
    rest = rows[limit:]
    if not rest:
        return shown
    left = len(rest) - FOLDED
    more = note(f"{left:,} more {what} are in the run's files.") if left > 0 else Html("")
    folded = table(heads, rest[:FOLDED], caption=f"{caption}: the rest")
    return Html(f"{shown}<details><summary>{len(rest):,} more {esc(what)}</summary>{folded}{more}</details>")


def note(text: object) -> Html:
    return Html(f'<p class="note">{esc(text)}</p>')


def bar(value: object, largest: float) -> Html:
    """A number with a bar behind it, its length in proportion to the largest."""
    found = number(value)
    width = 0.0 if found is None or largest <= 0 else 100 * min(max(found / largest, 0.0), 1.0)
    behind = f'<i style="width:{width:.1f}%"></i>' if width else ""
    return Html(f'<span class="bar">{behind}<b>{figure_text(value)}</b></span>')


def figure(title: str, drawing: str, *, text: object = "") -> Html:
    """A chart under its title, with a remark below it."""
    remark = f'<p class="note">{esc(text)}</p>' if text else ""
    return Html(
        f'<figure class="plot"><figcaption><bdi>{esc(shorten(title, 90))}</bdi></figcaption>{drawing}{remark}</figure>'
    )


def picture(uri: object, alt: str) -> Html:
    """A picture from a data URI of a raster format; anything else is refused, and the page says so."""
    if not isinstance(uri, str) or not PICTURE.fullmatch(uri):
        return Html('<span class="none">(picture cannot be shown)</span>')
    small = ' class="small"' if 0 < _png_width(uri) <= 64 else ""
    return Html(f'<img{small} src="{uri}" alt="{esc(alt)}">')


def _png_width(uri: str) -> int:
    """Width of a PNG in pixels from its header, 0 for other formats: small pictures are enlarged without blur."""
    kind, _, data = uri.partition(",")
    if "png" not in kind or len(data) < 32:
        return 0
    return int.from_bytes(base64.b64decode(data[:32])[16:20], "big")
