"""The page at ``GET /``: a form made from the columns of the models that are served, and what they answer.

Its files are static: a document, a style sheet, ES modules and nothing from anywhere else. All that depends on a run
comes from ``GET /v1/models``, so the page needs no access token; what it then asks for does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import APIRouter, Request, Response

__all__ = ["FILES", "POLICY", "router"]

FILES = {
    "page.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    **{
        f"{name}.js": "text/javascript; charset=utf-8"
        for name in (
            "answer", "chat", "dom", "draw", "explain", "fields", "files", "media", "page", "plot", "request", "sound",
            "tables", "words",
        )
    },
}  # fmt: skip
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # keep it, but ask whether it has changed
}


def router() -> APIRouter:
    """The routes of the page: ``/`` and ``/page/NAME`` of each of its files, which are read once, here.

    Raises:
        MissingExtraError: FastAPI is not installed.

    Example::

        app = FastAPI()
        app.include_router(router())
    """
    try:
        from fastapi import APIRouter
    except ModuleNotFoundError as error:
        from ...errors import MissingExtraError

        raise MissingExtraError("fastapi", "serve", purpose="the page of the server") from error
    routes = APIRouter()
    for name, media in FILES.items():
        content = (files(__name__) / name).read_bytes()
        address = "/" if name == "page.html" else f"/page/{name}"
        routes.add_route(address, answering(content, media), methods=["GET"], include_in_schema=False)
    return routes


def answering(content: bytes, media: str) -> Callable[[Request], Awaitable[Response]]:
    """What answers with one file, or says that the browser's copy of it is still good."""
    from fastapi import Response

    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'

    async def answer(request: Request) -> Response:
        headers = HEADERS | {"ETag": tag}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=media, headers=headers)

    return answer
