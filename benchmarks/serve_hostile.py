"""Hostile clients: bodies without end, chunks of a byte, connections that never finish their head."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import time
import zlib
from collections.abc import AsyncIterator, Callable
from functools import lru_cache, partial
from typing import Any

from .serve_load import Target
from .serve_watch import watched

__all__ = ["hostile"]

WHOLE = 300 << 20
PIECE = b"x" * 65536
CHUNKS = 65_537
HALF_OPEN = 400
POST = "POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {}\r\n{}\r\n\r\n"
FORM = "multipart/form-data; boundary=zz"
PART = b'--zz\r\nContent-Disposition: form-data; name="photo"; filename="a.png"\r\n\r\n'


async def by_length() -> AsyncIterator[bytes]:
    yield POST.format("application/json", f"Content-Length: {WHOLE}").encode()
    for _ in range(WHOLE // len(PIECE)):
        yield PIECE


async def chunked() -> AsyncIterator[bytes]:
    yield POST.format("application/json", "Transfer-Encoding: chunked").encode()
    for _ in range(WHOLE // len(PIECE)):
        yield b"10000\r\n" + PIECE + b"\r\n"
    yield b"0\r\n\r\n"


@lru_cache
def zeros() -> bytes:
    """300 MB of zeros as a gzip of 0.3 MB."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(300)) + packer.flush()


async def packed() -> AsyncIterator[bytes]:
    body = zeros()
    yield POST.format("application/json", f"Content-Encoding: gzip\r\nContent-Length: {len(body)}").encode() + body


async def form() -> AsyncIterator[bytes]:
    yield POST.format(FORM, "Transfer-Encoding: chunked").encode()
    yield b"%x\r\n" % len(PART) + PART + b"\r\n"
    for _ in range(WHOLE // len(PIECE)):
        yield b"10000\r\n" + PIECE + b"\r\n"
    yield b"0\r\n\r\n"


async def crumbs() -> AsyncIterator[bytes]:
    yield POST.format("application/json", "Transfer-Encoding: chunked").encode()
    yield b"1\r\nx\r\n" * CHUNKS + b"0\r\n\r\n"


async def send(port: int, make: Callable[[], AsyncIterator[bytes]]) -> dict[str, int]:
    """The status that a hostile body gets; 0 where the connection was broken off without one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = asyncio.ensure_future(reader.readuntil(b"\r\n"))
    try:
        with contextlib.suppress(OSError):
            async for piece in make():
                if answer.done():
                    break
                writer.write(piece)
                await asyncio.wait_for(writer.drain(), 20)
        return {"status": int((await asyncio.wait_for(answer, 20)).split()[1])}
    except (OSError, EOFError, TimeoutError):
        return {"status": 0}
    finally:
        writer.close()


async def half_open(port: int) -> dict[str, Any]:
    """Connections that send half a head and wait: how long until all are refused."""
    sockets = []
    for _ in range(HALF_OPEN):
        one = socket.create_connection(("127.0.0.1", port))
        one.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
        one.setblocking(False)
        sockets.append(one)
    start, loop, ended = time.perf_counter(), asyncio.get_running_loop(), 0

    async def end(one: socket.socket) -> None:
        nonlocal ended
        with contextlib.suppress(OSError):
            while await loop.sock_recv(one, 4096):
                pass
        ended += 1
        one.close()

    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(*(end(one) for one in sockets)), 30)
    return {"refused": ended, "seconds": round(time.perf_counter() - start, 1)}


def hostile(run: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Each kind of hostile client in turn, against one server that was warmed up."""
    from .serve import pictures, server

    async def warm(port: int) -> None:
        target = Target(port)
        for request in pictures(16):
            await target.ask(request)
        target.close()

    makers = {"length": by_length, "chunked": chunked, "gzip": packed, "multipart": form, "crumbs": crumbs}
    zeros()  # made before anybody waits for it
    with server(run.path) as (process, port):
        asyncio.run(warm(port))
        works: dict[str, Any] = {name: partial(send, port, make) for name, make in makers.items()}
        works["half_open"] = partial(half_open, port)
        out = {}
        for name, work in works.items():
            with watched(port, process.pid) as seen:
                found = asyncio.run(work())
                out[name] = {**found, **seen()}
    return out
