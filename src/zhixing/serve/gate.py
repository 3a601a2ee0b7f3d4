"""The gate: who may ask, from where, and how much, before anything is read.

A plain ASGI application around another. What it refuses costs next to nothing, which is what keeps a server answering
when it is asked far more than it can do.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from .metrics import Metrics
from .refusal import Refusal
from .settings import Settings

__all__ = ["Gate"]

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SMALL = 65536  # bytes of a refused body that are read, so that its connection can go on
OPEN = ("/health", "/ready")  # for whoever watches over the server
GUARDED = ("/v1/", "/metrics", "/openapi.json")  # what a token is asked for; the page asks its user for it
PREDICT = "/v1/predict"
PATHS = frozenset(
    {PREDICT, "/v1/models", "/v1/completions", "/v1/chat/completions", *OPEN, "/metrics", "/openapi.json", "/"}
)
SAFE = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))  # the page has its own policy


class Gate:
    """Checks Host, Origin, token, encoding and sizes of each request, counts it, and bounds its time.

    ``peek`` raises Refusal where there is no room for a row of a client.
    """

    def __init__(
        self, app: App, settings: Settings, metrics: Metrics, peek: Callable[[str], None] = lambda client: None
    ) -> None:
        self.app, self.settings, self.metrics, self.peek = app, settings, metrics, peek
        self.limits = settings.limits
        self.tokens = [token.encode() for token in settings.tokens]
        self.buffered = 0  # bytes of bodies that are being read
        self.draining = False
        self.active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        visit = Visit(self, scope, receive, send)
        self.active += 1
        try:
            try:
                visit.headers = headers_of(scope)
                self.admit(scope, visit)
            except Refusal as refusal:
                await visit.refuse(refusal)
                return
            await visit.run()
        finally:
            self.active -= 1
            self.buffered -= visit.read
            path = scope["path"] if scope["path"] in PATHS else "other"
            self.metrics.request(path, visit.status, time.perf_counter() - visit.started)

    def admit(self, scope: Scope, visit: Visit) -> None:
        """Raises Refusal where the head of a request is enough to."""
        headers = visit.headers
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if bare(host) not in self.settings.names:
            raise Refusal(
                403, "this server is not called by that name", reason="host", place="Host",
                mend="It is told of further names by --allow-host.",
            )  # fmt: skip
        self.check_origin(headers, host)
        scope["client_key"] = self.client(scope, headers)
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise Refusal(415, "packed bodies are not taken", place="Content-Encoding", mend="Send it unpacked.")
        visit.length = length_of(headers)
        if visit.length is not None and visit.length > self.limits.body:
            raise Refusal(413, f"the body has {visit.length:,} bytes, more than {self.limits.body:,}", reason="body")
        if scope["path"] == PREDICT:
            self.peek(scope["client_key"])

    def check_origin(self, headers: dict[bytes, bytes], host: str) -> None:
        """A page of another server must not ask in its visitor's name."""
        origin = headers.get(b"origin")
        if origin is not None and urlsplit(origin.decode("latin-1")).netloc.lower() != host:
            raise Refusal(403, "pages of other origins may not ask", reason="origin", place="Origin")
        if origin is None and headers.get(b"sec-fetch-site", b"none") not in (b"none", b"same-origin"):
            raise Refusal(403, "pages of other sites may not ask", reason="origin", place="Sec-Fetch-Site")

    def client(self, scope: Scope, headers: dict[bytes, bytes]) -> str:
        """Who asks: a token's number, or an address. Raises Refusal without a token where one is needed."""
        address = (scope.get("client") or ("", 0))[0]
        if not self.tokens or not scope["path"].startswith(GUARDED):
            return str(address)
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        # Each is compared, in a time that does not depend on where it differs.
        found = [hmac.compare_digest(given.strip(), token) for token in self.tokens]
        if kind.lower() != b"bearer" or not any(found):
            raise Refusal(401, "a token is needed", reason="token", mend="Send Authorization: Bearer TOKEN.")
        return f"token {found.index(True)}"


class Visit:
    """One request on its way through the gate."""

    def __init__(self, gate: Gate, scope: Scope, receive: Receive, send: Send) -> None:
        self.gate, self.scope, self.inner_receive, self.inner_send = gate, scope, receive, send
        self.headers: dict[bytes, bytes] = {}
        self.length: int | None = None
        self.read = 0
        self.whole = False  # the body was read to its end
        self.status = 0
        self.started = time.perf_counter()

    async def run(self) -> None:
        limit = self.gate.limits.total_time
        try:
            async with asyncio.timeout(limit):
                await self.gate.app(self.scope, self.receive, self.send)
        except TimeoutError:
            if not self.status:
                await self.refuse(Refusal(503, f"there is no answer after {limit:g} s", reason="time", after=5))
            else:  # the answer had begun: all that is left is to break it off
                raise

    async def receive(self) -> Message:
        message = await self.inner_receive()
        if message["type"] == "http.request":
            size, gate = len(message.get("body", b"")), self.gate
            self.read += size
            gate.buffered += size
            self.whole = not message.get("more_body", False)
            if self.read > gate.limits.body:
                raise Refusal(413, f"the body has more than {gate.limits.body:,} bytes", reason="body")
            if gate.buffered > gate.limits.buffered:
                raise Refusal(503, "too much is being sent at once", reason="buffered", after=1)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", []))
            given = {name.lower() for name, _ in headers}
            headers += [pair for pair in SAFE if pair[0] not in given]
            if self.gate.draining or not (self.whole or self.small):
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
            if self.status >= 400:
                self.gate.metrics.refused.labels(str(self.status)).inc()
        await self.inner_send(message)

    @property
    def small(self) -> bool:
        """Whether what is left of the body may be read, so that the connection can go on."""
        return self.length is not None and self.length <= SMALL

    async def refuse(self, refusal: Refusal) -> None:
        content = refusal.content()
        headers = {"content-type": "application/json", "content-length": str(len(content))} | refusal.headers()
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": pairs})
        await self.send({"type": "http.response.body", "body": content})


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """Headers by name. Raises Refusal where one that decides comes twice."""
    out: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in out and name in (b"host", b"authorization", b"content-type", b"origin", b"content-encoding"):
            raise Refusal(400, f"the header {name.decode('latin-1')} stands twice", reason="header")
        out[name] = value
    return out


def length_of(headers: dict[bytes, bytes]) -> int | None:
    """How long the body is to be; None where it comes in chunks."""
    if b"transfer-encoding" in headers:
        return None
    given = headers.get(b"content-length", b"0")
    return int(given) if given.isdigit() and len(given) < 19 else 1 << 62


def bare(host: str) -> str:
    """A host without its port.

    >>> bare("localhost:8000"), bare("[::1]:8000")
    ('localhost', '[::1]')
    """
    name, colon, port = host.rpartition(":")
    return name if colon and (port.isdigit() or not port) and not name.endswith(":") else host
