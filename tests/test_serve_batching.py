"""Queues: turns of clients, rows that nobody waits for, room, and work that is done bit by bit."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from zhixing.serve.batching import Busy, Job, Rows, Streams, Worker
from zhixing.serve.fields import RowError
from zhixing.serve.metrics import Metrics
from zhixing.serve.served import Read
from zhixing.serve.settings import Settings
from zhixing.serve.streaming import END, Flow


class Echo:
    """Stands for a run: answers each row with its tag, and notes the batches. It fails on a batch with a poison."""

    name = "echo"

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.open = threading.Event()
        self.open.set()

    def answer(self, rows: list[Read], *, probabilities: bool) -> list[dict[str, Any]]:
        self.open.wait(10)
        tags = [row.cells["tag"] for row in rows]
        self.batches.append(tags)
        if "poison" in tags:
            raise RuntimeError("poison")
        return [{"answer": tag} for tag in tags]


def rows(*tags: Any) -> list[Read]:
    return [Read({}, {"tag": tag}) for tag in tags]


def lane(**settings: Any) -> tuple[Echo, Worker, Rows]:
    echo, worker = Echo(), Worker()
    return echo, worker, Rows(echo, worker, Metrics(), Settings(**{"wait": 0.0, **settings}))  # type: ignore[arg-type]


def tags_of(items: list[tuple[Job, int]]) -> list[Any]:
    return [job.rows[place].cells["tag"] for job, place in items]


async def job(client: str, *tags: Any) -> Job:
    return Job(client, rows(*tags), False, asyncio.get_running_loop().create_future())


def test_clients_take_turns() -> None:
    async def check() -> None:
        _, _, queue = lane(max_batch=4)
        queue.put(await job("greedy", *range(100)))
        queue.put(await job("second", "a", "b"))
        queue.put(await job("third", "x"))
        assert tags_of(queue.take()) == [0, "a", "x", 1]
        assert tags_of(queue.take()) == ["b", 2, 3, 4]
        assert queue.waiting == 95

    asyncio.run(check())


def test_cancelled_rows_are_dropped_before_they_run() -> None:
    async def check() -> None:
        echo, worker, queue = lane(max_batch=8)
        first, second, third = [await job("one", tag) for tag in ("a", "b", "c")]
        for one in (first, second, third):
            queue.put(one)
        second.cancelled = True
        worker.start()
        assert await first.future == [{"answer": "a"}]
        assert await third.future == [{"answer": "c"}]
        worker.end()
        worker.join(10)
        assert echo.batches == [["a", "c"]]
        assert not second.future.done()
        assert queue.metrics.cancelled._value.get() == 1

    asyncio.run(check())


def test_a_poisonous_row_fails_alone() -> None:
    async def check() -> None:
        _, worker, queue = lane(max_batch=16)
        jobs = [await job(f"client {tag}", tag) for tag in (*range(6), "poison", *range(6, 11))]
        for one in jobs:
            queue.put(one)
        worker.start()
        found = [(await one.future)[0] for one in jobs]
        worker.end()
        worker.join(10)
        assert [isinstance(one, RowError) for one in found] == [place == 6 for place in range(12)]
        assert [one["answer"] for one in found if isinstance(one, dict)] == list(range(11))

    asyncio.run(check())


def test_a_batch_waits_for_others_but_not_when_it_is_full() -> None:
    async def check() -> None:
        _, worker, queue = lane(max_batch=2, wait=30.0)
        queue.put(await job("one", "a"))
        due = queue.due()
        assert due is not None
        assert 25 < due - time.monotonic() <= 30
        queue.put(await job("two", "b"))
        assert queue.due() == 0.0
        worker.start()
        while queue.waiting:  # the full batch is taken at once, not in half a minute
            await asyncio.sleep(0.001)
        worker.end()
        worker.join(10)

    asyncio.run(check())


def test_room_is_bounded_and_shared() -> None:
    _, _, queue = lane(max_batch=4, queue=4)
    for _ in range(8):
        queue.admit("greedy", 1)
    with pytest.raises(Busy):
        queue.admit("greedy", 1)
    queue.admit("newcomer", 1)  # a place is kept for whoever has none
    with pytest.raises(Busy):
        queue.admit("another", 1)
    queue.release("greedy", 2)
    with pytest.raises(Busy) as busy:
        queue.admit("greedy", 1)  # there is room, but of two clients it has more than half
    assert busy.value.own
    queue.admit("newcomer", 1)
    queue.release("greedy", 6)
    queue.release("newcomer", 2)
    assert not queue.held
    queue.admit("large", 1000)  # more than may wait is taken when none is there
    with pytest.raises(Busy):
        queue.admit("large", 1)


def test_late_answers_are_refused_early() -> None:
    _, _, queue = lane(max_batch=32, patience=0.1)
    queue.pace = 0.01
    assert queue.room == 5
    for _ in range(10):
        queue.admit("one", 1)
    with pytest.raises(Busy, match="too late") as busy:
        queue.admit("two", 1)
    assert busy.value.after == 1


def test_texts_take_turns_and_end() -> None:
    async def check() -> None:
        worker, order = Worker(), list[str]()
        streams = Streams(worker, 3)

        def text(name: str, length: int) -> Iterator[str]:
            for place in range(length):
                order.append(name)
                yield f"{name}{place}"

        def broken() -> Iterator[str]:
            yield "fine"
            raise ValueError("broken")

        long, short, bad = Flow(text("long", 50)), Flow(text("short", 2)), Flow(broken())
        for flow in (long, short, bad):
            streams.put(flow)
        with pytest.raises(Busy):
            streams.put(Flow(text("fourth", 1)))
        worker.start()
        assert [await short.get(), await short.get(), await short.get()] == ["short0", "short1", END]
        assert await bad.get() == "fine"
        with pytest.raises(ValueError, match="broken"):
            await bad.get()
        assert order[:4] == ["long", "short", "long", "short"]
        streams.drop(long)
        worker.end()
        worker.join(10)
        assert not streams.held
        assert not streams.gone

    asyncio.run(check())


def test_the_worker_ends_after_what_there_is_to_do() -> None:
    async def check() -> None:
        echo, worker, queue = lane(max_batch=2, wait=60.0)
        echo.open.clear()
        jobs = [await job("one", tag) for tag in range(7)]
        for one in jobs:
            queue.put(one)
        worker.start()
        worker.end()
        echo.open.set()
        assert [(await one.future)[0] for one in jobs] == [{"answer": tag} for tag in range(7)]
        worker.join(10)
        assert not worker.is_alive()

    asyncio.run(check())
