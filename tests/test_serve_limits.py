"""Hostile clients, and the end of a server under load."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile
from typing import Any

import pytest
from serving import Running, running, served, table_run

from zhixing.api import Run
from zhixing.serve.settings import limits_of

ROW = {"size": 55.0, "kind": "house", "day": "2026-03-15"}
TIGHT = ["body=20000", "buffered=50000", "chunks=100", "head=2000", "headers=20", "head_time=0.4", "idle_time=0.4",
         "body_time=1.0", "parts=8", "rows=5", "field=100", "connections=40", "linger_time=0.3"]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return table_run(tmp_path_factory.mktemp("limits") / "homes")


@pytest.fixture(scope="module")
def server(run: Run) -> Iterator[Running]:
    limits = limits_of(TIGHT)
    with running(served("homes", run, limits), limits=limits) as one:
        yield one


def head(*lines: str, path: str = "/v1/predict", method: str = "POST") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def status(answer: bytes) -> int:
    return int(answer.split()[1]) if answer else 0


JSON = "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"
FORM = "Content-Type: multipart/form-data; boundary=zz"
PART = b'--zz\r\nContent-Disposition: form-data; name="%s"\r\n\r\n1\r\n'


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (head(JSON, "Content-Length: 300000000") + b"x" * 100_000, 413),
        (head(JSON, "Content-Length: 99999999999999999999999"), 400),
        (head(JSON, "Content-Length: -1"), 400),
        (head(JSON, "Content-Length: 5", "Content-Length: 6"), 400),
        (head(JSON, CHUNKED) + b"1000\r\n" + b"x" * 4096 + b"\r\n" + 9 * (b"1000\r\n" + b"x" * 4096 + b"\r\n"), 413),
        (head(JSON, CHUNKED) + b"1\r\nx\r\n" * 65_537, 413),
        (head(JSON, CHUNKED, "Content-Encoding: gzip") + b"3\r\nabc\r\n", 415),
        (head(FORM, CHUNKED) + b"1000\r\n" + b"x" * 4096 + b"\r\n" + 9 * (b"1000\r\n" + b"x" * 4096 + b"\r\n"), 413),
        (head(*(f"X-{i}: y" for i in range(50))), 431),
        (head("X: " + "y" * 5000), 431),
        (head("X: " + "y" * 500_000), 431),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
        (b"GARBAGE\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 50, 400),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),
    ],
)
def test_hostile_requests_are_refused_and_closed(server: Running, content: bytes, expected: int) -> None:
    answer = server.raw(content, wait=5)
    assert status(answer) == expected, answer[:300]
    assert b"connection: close" in answer.lower()
    assert server.ask("GET", "/health").status == 200


def test_forms_are_bounded(server: Running) -> None:
    def ask(body: bytes) -> int:
        return server.ask("POST", "/v1/predict", body, {"content-type": FORM.partition(": ")[2]}).status

    def form(*names: bytes) -> bytes:
        return b"".join(PART % name for name in names) + b"--zz--\r\n"

    assert ask(form(b"size", b"kind")) == 422  # the day is missing
    assert ask(form(*(b"%d" % i for i in range(9)))) == 413
    assert ask(form(b"size", b"size")) == 422
    assert ask(PART % b"size") == 400
    assert ask(b"nothing") == 400
    assert ask(b"--zz\r\nX-Long: " + b"y" * 6000 + b"\r\n\r\n1\r\n--zz--\r\n") in (400, 431)


def test_rows_and_cells_are_bounded(server: Running) -> None:
    assert server.predict([ROW] * 5).status == 200
    assert server.predict([ROW] * 6).status == 422
    found = server.predict([ROW, ROW | {"kind": "k" * 101}]).json()["rows"]
    assert "more than 100" in found[1]["error"]["message"]


@pytest.mark.parametrize(
    "begun",
    [b"POST /v1/predict HTTP/1.1\r\nHost: loc", head(JSON, "Content-Length: 100") + b"{",
     head(JSON, CHUNKED) + b"5\r\nab", b""],
)  # fmt: skip
def test_unfinished_requests_are_ended(server: Running, begun: bytes) -> None:
    """A client that sends a part, or nothing, and waits is told so and keeps nothing open."""
    started = time.monotonic()
    answer = server.raw(begun, wait=10)
    assert time.monotonic() - started < 8
    assert status(answer) == 408


def test_slow_drops_are_ended(server: Running) -> None:
    """A byte now and then keeps no body alive beyond its time."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as one:
        one.sendall(head(JSON, "Content-Length: 10000"))
        one.settimeout(0.1)
        answer = b""
        for _ in range(100):
            try:
                one.sendall(b"x")
                answer += one.recv(4096)
            except TimeoutError:
                continue
            except OSError:
                break
            break
    assert status(answer) == 408


def test_half_open_connections_leave_room(server: Running) -> None:
    held = []
    for _ in range(60):
        one = socket.create_connection(("127.0.0.1", server.port), timeout=5)
        one.sendall(b"GET / HTTP/1.1\r\nX: ")
        held.append(one)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:  # those beyond the bound are refused at once, the others in time
        try:
            if server.ask("GET", "/health").status == 200:
                break
        except OSError:
            pass
        time.sleep(0.05)
    else:
        pytest.fail("the server did not come back")
    answers = []
    for one in held:
        with one:
            answers.append(status(one.recv(4096)))
    assert set(answers) <= {408, 503}
    assert answers.count(503) >= 20


def test_keep_alive_survives_refusals(server: Running) -> None:
    """A small refused body costs no new connection."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    for body, expected in ((b"{", 400), (b"[]", 422), (json.dumps({"rows": [ROW]}).encode(), 200)):
        connection.request("POST", "/v1/predict", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == expected
        assert answer.getheader("connection") != "close"
    connection.close()


def test_a_full_queue_says_when_to_come_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(served("homes", run), max_batch=2, queue=2) as one:
        lane, opened = one.service.lanes["homes"], threading.Event()
        whole = lane.served.answer

        def answer(rows: Any, *, probabilities: bool) -> Any:
            opened.wait(20)
            return whole(rows, probabilities=probabilities)

        monkeypatch.setattr(lane.served, "answer", answer)
        with ThreadPoolExecutor(12) as pool:
            waiting = [pool.submit(one.predict, [ROW]) for _ in range(12)]
            deadline = time.monotonic() + 10
            while sum(reply.done() for reply in waiting) < 8 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert one.ask("GET", "/health").status == 200
            opened.set()
            replies = [reply.result() for reply in waiting]
    assert sorted(reply.status for reply in replies) == [200] * 4 + [429] * 8
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in replies if reply.status == 429)


def test_rows_of_a_client_that_left_are_not_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(served("homes", run), max_batch=1) as one:
        lane, opened, seen = one.service.lanes["homes"], threading.Event(), list[float]()
        whole = lane.served.answer

        def answer(rows: Any, *, probabilities: bool) -> Any:
            opened.wait(20)
            seen.extend(row.cells["size"] for row in rows)
            return whole(rows, probabilities=probabilities)

        monkeypatch.setattr(lane.served, "answer", answer)

        def send(size: float) -> socket.socket:
            body = json.dumps({"rows": [ROW | {"size": size}]}).encode()
            connection = socket.create_connection(("127.0.0.1", one.port))
            connection.sendall(head(JSON, f"Content-Length: {len(body)}") + body)
            return connection

        connections = []
        for place, size in enumerate((1.0, 2.0, 3.0)):
            connections.append(send(size))
            deadline = time.monotonic() + 10
            while sum(lane.held.values()) <= place and time.monotonic() < deadline:
                time.sleep(0.005)
        connections[1].close()
        while sum(lane.held.values()) > 2 and time.monotonic() < deadline:
            time.sleep(0.005)
        opened.set()
        answers = [connections[place].recv(65536) for place in (0, 2)]
        for connection in connections:
            connection.close()
    assert [status(answer) for answer in answers] == [200, 200]
    assert seen == [1.0, 3.0]


class Client(threading.Thread):
    """Asks again and again on one connection until it is told that it closes; notes each answer's status and rows.

    A request that was sent and got no answer is (0, 0).
    """

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port, self.answers = port, list[tuple[int, int]]()

    def run(self) -> None:
        body = json.dumps({"rows": [ROW] * 20}).encode()
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            closes = False
            while not closes:
                try:
                    connection.sendall(head(JSON, f"Content-Length: {len(body)}") + body)
                    file = connection.makefile("rb")
                    top = b"".join(takewhile(lambda line: line.strip(), iter(file.readline, None))).lower()
                    found = file.read(int(top.partition(b"content-length: ")[2].split()[0]))
                    self.answers.append((status(top), len(json.loads(found)["rows"])))
                except (OSError, IndexError, ValueError, KeyError):
                    self.answers.append((0, 0))
                    return
                closes = b"connection: close" in top


def all_answered(clients: list[Client]) -> None:
    for client in clients:
        client.join(30)
        assert client.answers
        assert set(client.answers) == {(200, 20)}


def test_the_end_answers_what_was_accepted(run: Run) -> None:
    for delay in (0.05, 0.2):
        with running(served("homes", run)) as one:
            clients = [Client(one.port) for _ in range(6)]
            for client in clients:
                client.start()
            time.sleep(delay)
            one.stop()
            all_answered(clients)
            with pytest.raises(OSError):  # noqa: PT011
                socket.create_connection(("127.0.0.1", one.port), timeout=1)


@pytest.mark.slow
def test_sigterm_ends_with_status_0(run: Run) -> None:
    command = [sys.executable, "-m", "zhixing", "serve", str(run.path), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = json.loads(child.stdout.readline())
        assert said["models"] == ["homes"]
        clients = [Client(int(said["url"].rpartition(":")[2])) for _ in range(6)]
        for client in clients:
            client.start()
        time.sleep(1)
        child.send_signal(signal.SIGTERM)
        all_answered(clients)
        assert child.wait(30) == 0
