"""Bounds on connections: heads, chunks and times, which HTTP libraries leave open."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .metrics import Metrics
from .settings import Limits

__all__ = ["Guarded"]

PIECE = 16384  # bytes that the parser is given at a time


class Bounded(h11.Connection):
    """The parser, with bounds on heads and chunks. ``fault`` says why it refused, as status and message."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(h11.SERVER, limits.head)
        self.limits, self.chunks = limits, 0
        self.fault = (400, "this is not HTTP")

    def next_event(self) -> Any:
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == 431:
                self.fault = (431, f"the head has more than {self.limits.head:,} bytes")
            raise
        if isinstance(event, h11.Request):
            self.chunks = 0
            self.check_head(event)
        elif isinstance(event, h11.Data) and event.chunk_start:
            self.chunks += 1
            if self.chunks > self.limits.chunks:
                self.refuse(413, f"the body has more than {self.limits.chunks:,} chunks")
        return event

    def check_head(self, event: h11.Request) -> None:
        headers = list(event.headers)
        size = len(event.target) + sum(len(name) + len(value) + 4 for name, value in headers)
        if len(headers) > self.limits.headers:
            self.refuse(431, f"the head has more than {self.limits.headers} headers")
        if size > self.limits.head:
            self.refuse(431, f"the head has more than {self.limits.head:,} bytes")

    def refuse(self, status: int, message: str) -> None:
        self.fault = (status, message)
        raise h11.RemoteProtocolError(message, error_status_hint=status)


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
        if protocol.conn.their_state not in (h11.SEND_BODY, h11.ERROR):
            self.inner.close()
            return
        protocol.lingers = True
        with contextlib.suppress(OSError, RuntimeError):
            self.inner.write_eof()
            self.inner.resume_reading()
        asyncio.get_running_loop().call_later(protocol.limits.linger_time, self.inner.abort)


class Guarded(H11Protocol):
    """uvicorn's connection, with bounds; the server calls :meth:`check` several times a second."""

    conn: Bounded

    def __init__(self, *given: Any, limits: Limits, metrics: Metrics, **named: Any) -> None:
        super().__init__(*given, **named)
        self.limits, self.metrics = limits, metrics
        self.conn = Bounded(limits)
        self.lingers = False
        self.last = self.head_since = self.body_since = 0.0
        self.unread: tuple[int, float] = (0, 0.0)  # bytes that the client has not fetched, and since when

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(Lingering(transport, self))  # type: ignore[arg-type]
        self.last = self.head_since = time.monotonic()
        if len(self.connections) > self.limits.connections:
            self.refuse(503, "too many connections are open", after=1)

    def data_received(self, data: bytes) -> None:
        self.last = now = time.monotonic()
        self._unset_keepalive_if_required()
        for start in range(0, len(data), PIECE):
            if self.lingers or self.transport.is_closing():
                return
            self.conn.receive_data(data[start : start + PIECE])
            self.handle_events()
        waits = self.conn.their_state is h11.IDLE and (self.cycle is None or self.cycle.response_complete)
        if not waits:
            self.head_since = 0.0
        elif not self.head_since and self.conn.trailing_data[0]:
            self.head_since = now
        if self.conn.their_state is not h11.SEND_BODY:
            self.body_since = 0.0
        elif not self.body_since:
            self.body_since = now

    def heard(self) -> bool:
        """Whether a request has begun that is not answered yet; one that the kernel holds for us counts."""
        if self.lingers or self.transport.is_closing():
            return False
        if self.head_since or (self.cycle is not None and not self.cycle.response_complete):
            return bool(self.cycle is not None and not self.cycle.response_complete) or bool(self.conn.trailing_data[0])
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
        if self.head_since and now - self.head_since > limits.head_time:
            self.refuse(408, f"the head took more than {limits.head_time:g} s")
        elif self.body_since and now - self.body_since > limits.body_time:
            self.refuse(408, f"the body took more than {limits.body_time:g} s")
        elif self.body_since and not self.flow.read_paused and now - self.last > limits.idle_time:
            self.refuse(408, f"nothing came for {limits.idle_time:g} s")
        return self.lingers or self.transport.is_closing()

    def send_400_response(self, msg: str) -> None:
        self.refuse(*self.conn.fault)

    def refuse(self, status: int, message: str, *, after: int | None = None) -> None:
        """Answer with a refusal, where no answer has begun, and close."""
        self.metrics.refused.labels(f"connection {status}").inc()
        begun = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if begun or self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        content = json.dumps({"error": {"message": message}}).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(content))), ("connection", "close")]
        headers += [] if after is None else [("retry-after", str(after))]
        events = (h11.Response(status_code=status, headers=headers), h11.Data(data=content), h11.EndOfMessage())
        with contextlib.suppress(h11.LocalProtocolError):
            self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        if self.cycle is not None:  # the application is not to answer any more
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()
