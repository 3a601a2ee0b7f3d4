"""Small runs, and a server for them in a thread of the test's process, with real connections."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import zhixing as zx
from zhixing.api import Run
from zhixing.serve.app import Service
from zhixing.serve.served import Served
from zhixing.serve.server import Server, configured
from zhixing.serve.settings import Limits, Settings


def table_run(folder: Path) -> Run:
    random = np.random.default_rng(0)
    x, kind = random.normal(50, 10, 200), random.integers(0, 3, 200)
    data = {
        "size": x.tolist(),
        "kind": [["flat", "house", "hut"][i] for i in kind],
        "day": [f"2026-{1 + i % 12:02}-15" for i in range(200)],
        "price": (3 * x + 20 * kind).tolist(),
        "dear": [str(bool(one)).lower() for one in 3 * x + 20 * kind > 170],
    }
    return zx.train(data, target=["price", "dear"], epochs=3, out=folder)


def picture_run(folder: Path, digits: dict[str, list[Any]]) -> Run:
    encoder = {"name": "cnn", "layers": [8, "pool"], "dense": [16]}
    return zx.train(digits, target="label", encoder=encoder, epochs=3, out=folder)


def text_run(folder: Path, length: int = 64) -> Run:
    text = {"type": "text", "tokenizer": "character", "length": length, "packed": True}
    decoder = {"name": "transformer", "depth": 1, "width": 32, "heads": 2}
    lines = ["the cat sat on the mat. ", "a dog ran over the hill. "] * 60
    recipe = {"outputs": {"text": text | {"decoder": decoder}}}
    return zx.train({"text": lines}, recipe=recipe, epochs=2, out=folder)


def served(name: str, run: Run, limits: Limits | None = None) -> Served:
    return Served(name, run.settings, run.fitted, run.model, run.calibrations, run.device, limits or Limits())


def picture_of(array: Any) -> dict[str, str]:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return {"base64": base64.b64encode(buffer.getvalue()).decode()}


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Running:
    """A server that listens, and requests to it."""

    service: Service
    server: Server
    port: int
    thread: threading.Thread
    token: str = ""
    left: list[str] = field(default_factory=list)

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        given = {"content-type": "application/json"} | (headers or {})
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        try:
            connection.request(method, path, content, given)
            found = connection.getresponse()
            return Reply(found.status, {k.lower(): v for k, v in found.getheaders()}, found.read())
        finally:
            connection.close()

    def predict(self, rows: Sequence[Any], **more: Any) -> Reply:
        return self.ask("POST", "/v1/predict", {"rows": list(rows), **more})

    def raw(self, content: bytes, *, end: bool = False, wait: float = 30) -> bytes:
        """Bytes as they are, and all that comes back until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=wait) as connection:
            try:
                connection.sendall(content)
                if end:
                    connection.shutdown(socket.SHUT_WR)
            except OSError:  # it was refused before all was sent
                pass
            out = bytearray()
            try:
                while part := connection.recv(65536):
                    out += part
            except OSError:
                pass
            return bytes(out)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()


@contextmanager
def running(*runs: Served, **settings: Any) -> Iterator[Running]:
    """A server for these runs at a free port."""
    service = Service(runs, Settings(port=0, **settings))
    ready, ports = threading.Event(), list[int]()

    def told(port: int) -> None:
        ports.append(port)
        ready.set()

    server = configured(service, told)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    assert ready.wait(30)
    one = Running(service, server, ports[0], thread)
    try:
        yield one
    finally:
        one.stop()
