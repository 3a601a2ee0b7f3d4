"""The server: uvicorn with bounds on every connection, and an end that loses nothing that was accepted."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import uvicorn

from ..errors import UsageError
from .app import Service, make_app
from .gate import Gate
from .limits import Guarded

__all__ = ["Server", "configured", "serve"]

GRACE = 0.5  # seconds in which connections that are open are still heard after the end has begun
AT_ONCE = 50  # connections that are refused in one go
QUEUE = 1024  # connections that the kernel keeps until we take them
TAKEN = 16  # that are taken before others have their turn
SWITCH = 0.0005  # seconds after which Python lets another thread run: the model's must not wait long for the loop's


class Server(uvicorn.Server):
    """uvicorn's server with bounds in time for each connection and an orderly end.

    On SIGTERM or SIGINT no connection is taken any more, but for those that the kernel has taken already. Those that
    are open are heard for half a second longer, with ``Connection: close`` in every answer, and each request that was
    heard is answered. A second SIGINT ends it at once. The exit status is 0.
    """

    def __init__(self, config: uvicorn.Config, service: Service, gate: Gate, told: Callable[[int], None]) -> None:
        super().__init__(config)
        self.service, self.gate, self.told = service, gate, told

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.service.open()
        try:
            await super().startup(sockets)
        except SystemExit:  # it has told of the error that the system gave
            place = f"{self.config.host}:{self.config.port}"
            raise UsageError("the server cannot listen there", place=place, mend="Choose another --port.") from None
        if self.started:
            for listener in self.servers[0].sockets:
                with socket.socket(fileno=listener.dup().detach()) as own:
                    own.listen(QUEUE)
            self.told(self.servers[0].sockets[0].getsockname()[1])

    async def on_tick(self, counter: int) -> bool:
        self.check_connections()
        return await super().on_tick(counter)

    def check_connections(self) -> None:
        """Refuse connections that take too long; no more than some at a time, for each takes its while."""
        now = time.monotonic()
        late = (connection for connection in list(self.server_state.connections) if connection.check(now))  # type: ignore[union-attr]
        for _ in itertools.islice(late, AT_ONCE):
            pass

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.service.draining = self.gate.draining = True
        for server in self.servers:
            await self.take_pending(server)
        ending = asyncio.ensure_future(self.watch())
        await asyncio.sleep(GRACE)
        while any(connection.heard() for connection in self.server_state.connections):  # type: ignore[union-attr]
            await asyncio.sleep(0.01)
            if self.force_exit:
                break
        await super().shutdown(sockets)
        ending.cancel()
        self.service.close(at_once=self.force_exit)

    async def take_pending(self, server: asyncio.base_events.Server) -> None:
        """Take the connections that the kernel has made and we have not, then listen no more."""
        loop, protocol = asyncio.get_running_loop(), server._protocol_factory  # type: ignore[attr-defined]
        for listener in server.sockets:
            with contextlib.suppress(OSError), socket.socket(fileno=listener.dup().detach()) as own:
                own.setblocking(False)
                while True:
                    connection, _ = own.accept()
                    connection.setblocking(False)
                    await loop.connect_accepted_socket(protocol, connection)
        server.close()

    async def watch(self) -> None:
        """Keep to the bounds of connections while what was accepted is answered."""
        while True:
            self.check_connections()
            await asyncio.sleep(0.1)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals end the loop and nothing else: the exit status stays 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {one: signal.signal(one, self.handle_exit) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


def configured(service: Service, told: Callable[[int], None]) -> Server:
    """A server for these runs that is not started yet. ``told`` is called with the port once requests can come."""
    settings, gate = service.settings, make_app(service)
    limits = settings.limits
    http: Any = partial(Guarded, limits=limits, metrics=service.metrics)
    config = uvicorn.Config(
        gate, host=settings.host, port=settings.port, http=http, ws="none", loop="asyncio", lifespan="off",
        log_config=None, access_log=False, server_header=False, proxy_headers=False, backlog=TAKEN,
        timeout_keep_alive=max(1, round(limits.keep_alive)), timeout_graceful_shutdown=round(limits.drain_time),
    )  # fmt: skip
    return Server(config, service, gate, told)


def serve(service: Service, told: Callable[[int], None]) -> None:
    """Serve until a signal ends it."""
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # what is refused is counted, not told line by line
    sys.setswitchinterval(SWITCH)
    gc.collect()
    gc.freeze()  # what is there stays; looking through it for garbage would hold all up for a fifth of a second
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of what our own rules judge
        configured(service, told).run()
