"""A load generator: HTTP/1.1 over kept connections, with requests that come whether or not others are answered."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Seen", "Target", "closed_loop", "open_loop", "percentile", "request_of"]

OPEN = 256  # connections at most; a request beyond that waits for one, and its time runs


def request_of(path: str, body: bytes = b"", *, method: str = "POST", kind: str = "application/json") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@dataclass
class Seen:
    """What came of some requests: seconds by status, and how many got no answer: ``lost`` were sent on a connection
    that then ended, ``unreached`` found nobody to connect to, ``late`` had none when waiting ended."""

    seconds: dict[int, list[float]] = field(default_factory=dict)
    lost: int = 0
    unreached: int = 0
    late: int = 0

    def note(self, status: int, seconds: float) -> None:
        self.seconds.setdefault(status, []).append(seconds)

    def count(self, status: int) -> int:
        return len(self.seconds.get(status, []))


def percentile(values: list[float], share: float) -> float:
    """In milliseconds."""
    ordered = sorted(values)
    return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2) if ordered else float("nan")


class Target:
    """A server's address, and connections to it that are kept."""

    def __init__(self, port: int, most: int = OPEN) -> None:
        self.port, self.free = port, list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]()
        self.gate = asyncio.Semaphore(most)

    async def ask(self, content: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body. Raises OSError or EOFError where the connection ends before them."""
        async with self.gate:
            while self.free and self.free[-1][0].at_eof():  # nothing was asked on it for long, and the server left
                self.free.pop()[1].close()
            reader, writer = self.free.pop() if self.free else await asyncio.open_connection("127.0.0.1", self.port)
            try:
                writer.write(content)
                answer = await read_answer(reader)
            except BaseException:
                writer.close()
                raise
            if answer[1].get("connection") == "close":
                writer.close()
            else:
                self.free.append((reader, writer))
            return answer

    def close(self) -> None:
        for _, writer in self.free:
            writer.close()
        self.free.clear()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return int(head[0].split()[1]), headers, body


async def one(target: Target, content: bytes, seen: Seen, since: float) -> bool:
    """Whether it was answered."""
    try:
        status, _, _ = await target.ask(content)
    except ConnectionRefusedError:
        seen.unreached += 1
        return False
    except (OSError, EOFError):
        seen.lost += 1
        return False
    seen.note(status, time.perf_counter() - since)
    return status == 200


async def open_loop(target: Target, make: Callable[[int], bytes], rate: float, seconds: float, seed: int = 0) -> Seen:
    """Poisson arrivals at a rate; a request's time runs from when it was due, sent or not."""
    seen, chance, tasks = Seen(), random.Random(seed), set[asyncio.Task[bool]]()
    due = start = time.perf_counter()
    number = 0
    while due - start < seconds:
        if (early := due - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        elif number % 64 == 0:
            await asyncio.sleep(0)  # behind: let answers be read
        task = asyncio.ensure_future(one(target, make(number), seen, due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        number += 1
        due += chance.expovariate(rate)
    if tasks:
        await asyncio.wait(set(tasks), timeout=30)
    seen.late = len(tasks)
    return seen


async def closed_loop(target: Target, make: Callable[[int], bytes], clients: int, seconds: float) -> Seen:
    """So many clients, each of which asks again as soon as it has its answer, or 10 ms after it was refused."""
    seen, end, numbers = Seen(), time.perf_counter() + seconds, iter(range(10**9))

    async def client() -> None:
        while (since := time.perf_counter()) < end:
            if not await one(target, make(next(numbers)), seen, since):
                await asyncio.sleep(0.01)

    await asyncio.gather(*(client() for _ in range(clients)))
    return seen
