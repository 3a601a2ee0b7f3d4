"""What every page has around it: one HTML file that opens anywhere, offline, without scripts."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

from .markup import Html, esc, join, name

__all__ = ["whole_page"]

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
NOTHING = Html("")


def whole_page(
    kind: str,
    title: str,
    top: Html,
    sections: Mapping[str, Html] | None = None,
    *,
    facts: Html = NOTHING,
    style: str = "",
) -> Html:
    """A page of a ``kind``, such as "training report": its title with ``facts`` under it, links to the sections, what
    stands at the top, the sections. ``style`` follows the style that all pages share."""
    shared = (files(__package__) / "style.css").read_text(encoding="utf-8")
    sections = sections or {}
    links = join(Html(f'<a href="#{key.lower()}">{key}</a>') for key in sections)
    nav = Html(f'<nav aria-label="Sections">{links}</nav>\n') if sections else NOTHING
    body = join(Html(f'<section id="{key.lower()}"><h2>{key}</h2>{part}</section>') for key, part in sections.items())
    return Html(f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{esc(title)} – {kind}</title>
<style>
{shared}{style}</style>
</head>
<body>
<header><p class="brand">Zhixing · {kind}</p><h1>{name(title, 80)}</h1>{facts}</header>
{nav}<main>
{top}
{body}
</main>
</body>
</html>
""")
