"""Bounds on connections: heads, chunks and times, which HTTP libraries leave open."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .metrics import Metrics
from .settings import Limits

__all__ = ["Guarded"]

PIECE = 16384  # bytes that the parser is given at a time


class Fault(Exception):  # noqa: N818
    """Raised where the parser calls back, to stop it: the request breaks a bound."""


class Lingering:
    """A transport that, closed before the request was read to its end, throws the rest away for a while.

    Closed at once, the kernel would tell the client of a reset, which may be all that it sees of the refusal.
    """

    def __init__(self, transport: asyncio.Transport, protocol: Guarded) -> None:
        self.inner, self.protocol = transport, protocol

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def close(self) -> None:
        protocol = self.protocol
        if protocol.lingers or self.inner.is_closing():
            return
        if protocol.stage != "body" and not protocol.faulty:
            self.inner.close()
            return
        protocol.lingers = True
        with contextlib.suppress(OSError, RuntimeError):
            self.inner.write_eof()
            self.inner.resume_reading()
        asyncio.get_running_loop().call_later(protocol.limits.linger_time, self.inner.abort)


class Guarded(HttpToolsProtocol):
    """uvicorn's connection, with bounds; the server calls :meth:`check` several times a second.

    ``stage`` says what the client is to send next: ``idle`` (a request), ``head`` or ``body`` (the rest of it).
    """

    def __init__(self, *given: Any, limits: Limits, metrics: Metrics, **named: Any) -> None:
        super().__init__(*given, **named)
        self.limits, self.metrics = limits, metrics
        self.stage, self.requests = "idle", 0
        self.head_size = self.chunks = 0  # of the present request
        self.fault = (400, "this is not HTTP")
        self.faulty = self.lingers = False
        self.last = self.head_since = self.body_since = 0.0
        self.unread: tuple[int, float] = (0, 0.0)  # bytes that the client has not fetched, and since when

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(Lingering(transport, self))  # type: ignore[arg-type]
        self.last = self.head_since = time.monotonic()
        if len(self.connections) > self.limits.connections:
            self.refuse(503, "too many connections are open", after=1)

    def data_received(self, data: bytes) -> None:
        self.last = time.monotonic()
        self._unset_keepalive_if_required()
        for start in range(0, len(data), PIECE):
            if self.lingers or self.transport.is_closing():
                return
            self.feed(data[start : start + PIECE])

    def feed(self, piece: bytes) -> None:
        stage, requests = self.stage, self.requests
        try:
            self.parser.feed_data(piece)
            if stage == self.stage == "head" and requests == self.requests:
                self.count(len(piece))  # the parser keeps what is not whole, however long it gets
        except httptools.HttpParserUpgrade:  # answered as what it is beside that; what follows is no HTTP
            self.cycle.keep_alive = False
        except (httptools.HttpParserError, Fault):
            self.faulty = True
            self.refuse(*self.fault)
            return
        if self.stage == "idle" and requests == self.requests and not self.head_since:
            self.head_since = self.last  # empty lines before a request count to its head

    # Called by the parser. What is raised here stops it. -------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.stage, self.head_since = "head", self.last
        self.head_size = self.chunks = 0
        self.requests += 1

    def on_url(self, url: bytes) -> None:
        self.count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.count(len(name) + len(value) + 4)
        if self.stage == "body":  # trailers: nobody reads them
            return
        super().on_header(name, value)
        if len(self.headers) > self.limits.headers:
            self.stop(431, f"the head has more than {self.limits.headers} headers")

    def on_headers_complete(self) -> None:
        if sum(name == b"host" for name, _ in self.headers) != 1:
            self.stop(400, "a request has one Host")
        try:
            super().on_headers_complete()
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
            self.stop(400, "this is no path")
        self.stage, self.head_since, self.body_since = "body", 0.0, self.last

    def on_chunk_header(self) -> None:
        self.chunks += 1
        if self.chunks > self.limits.chunks:
            self.stop(413, f"the body has more than {self.limits.chunks:,} chunks")

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.stage, self.body_since = "idle", 0.0

    def count(self, size: int) -> None:
        self.head_size += size
        if self.head_size > self.limits.head:
            self.stop(431, f"the head has more than {self.limits.head:,} bytes")

    def stop(self, status: int, message: str) -> None:
        self.fault = (status, message)
        raise Fault

    # Called by the server --------------------------------------------------------------------------------------------

    @property
    def answers(self) -> bool:
        """Whether a request was read that is not answered to its end."""
        return self.cycle is not None and not self.cycle.response_complete

    def heard(self) -> bool:
        """Whether a request has begun that is not answered yet; one that the kernel holds for us counts."""
        if self.lingers or self.transport.is_closing():
            return False
        if self.stage == "head" or self.answers:
            return True
        own = self.transport.get_extra_info("socket")
        with contextlib.suppress(OSError), socket.socket(fileno=own.dup().detach()) as peek:
            return bool(peek.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        return False

    def check(self, now: float) -> bool:
        """Refuse a connection that takes too long; whether it did."""
        limits, left = self.limits, self.transport.get_write_buffer_size()
        if self.lingers or self.transport.is_closing():
            return False
        if not left or left != self.unread[0]:
            self.unread = (left, now)
        elif now - self.unread[1] > limits.idle_time:
            self.transport.abort()
        if self.head_since and now - self.head_since > limits.head_time and not self.answers:
            self.refuse(408, f"the head took more than {limits.head_time:g} s")
        elif self.body_since and now - self.body_since > limits.body_time:
            self.refuse(408, f"the body took more than {limits.body_time:g} s")
        elif self.body_since and not self.flow.read_paused and now - self.last > limits.idle_time:
            self.refuse(408, f"nothing came for {limits.idle_time:g} s")
        return self.lingers or self.transport.is_closing()

    def refuse(self, status: int, message: str, *, after: int | None = None) -> None:
        """Answer with a refusal, where no answer has begun, and close."""
        self.metrics.refused.labels(f"connection {status}").inc()
        if self.answers and (self.cycle.response_started or self.pipeline):
            self.transport.abort()
            return
        content = json.dumps({"error": {"message": message}}).encode()
        headers = {"content-type": "application/json", "content-length": str(len(content)), "connection": "close"}
        headers |= {} if after is None else {"retry-after": str(after)}
        lines = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            *(f"{key}: {value}" for key, value in headers.items()),
        ]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + content)
        if self.cycle is not None:  # the application is not to answer any more
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()
