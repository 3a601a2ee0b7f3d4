"""Watches a server from a process of its own: how long ``/health`` takes, and how large the server grows.

python -m benchmarks.serve_watch PORT PID      until its standard input ends; then a line of JSON
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil

__all__ = ["watched"]


def watch(port: int, pid: int) -> dict[str, Any]:
    process, times, ended = psutil.Process(pid), list[float](), threading.Event()
    before = most = process.memory_info().rss

    def until_told() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=until_told, daemon=True).start()
    print("ready", flush=True)
    while not ended.wait(0.01):
        since = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/health")
        assert connection.getresponse().status == 200
        times.append(1000 * (time.perf_counter() - since))
        connection.close()
        most = max(most, process.memory_info().rss)
    times.sort()
    return {
        "grown_mb": round((most - before) / 2**20, 1), "health_asked": len(times),
        "health_p99_ms": round(times[int(0.99 * len(times))], 2), "health_most_ms": round(times[-1], 2),
    }  # fmt: skip


@contextmanager
def watched(port: int, pid: int) -> Iterator[Callable[[], dict[str, Any]]]:
    """Watch while something is done; gives a function that says what was seen, once."""
    command = [sys.executable, "-m", "benchmarks.serve_watch", str(port), str(pid)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"

        def seen() -> dict[str, Any]:
            time.sleep(0.2)
            found: dict[str, Any] = json.loads(process.communicate()[0])
            return found

        yield seen


if __name__ == "__main__":
    print(json.dumps(watch(int(sys.argv[1]), int(sys.argv[2]))))
