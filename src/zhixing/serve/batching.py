"""Rows of many requests, gathered into batches; one thread that works on them, and on texts token by token.

The loop that talks to clients puts work in; the worker's thread takes it out, so that the loop never waits for the
model, and there is one thread that computes, whatever is asked at once.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from .fields import RowError
from .metrics import Metrics
from .served import Read, Served
from .settings import Settings
from .streaming import END, Flow

__all__ = ["Busy", "Job", "Rows", "Streams", "Worker"]

logger = logging.getLogger("zhixing.serve")


class Busy(Exception):  # noqa: N818
    """There is no room now; ``after`` seconds from now there may be. ``own``: this client takes its share already."""

    def __init__(self, reason: str, after: float, *, own: bool = False) -> None:
        super().__init__(reason)
        self.after, self.own = max(1, math.ceil(after)), own


@dataclass(eq=False)
class Job:
    """The rows of one request; ``future``, of the loop, gives their answers when all have one."""

    client: str
    rows: Sequence[Read]
    probabilities: bool
    future: asyncio.Future[list[dict[str, Any] | RowError]]
    since: float = field(default_factory=time.monotonic)
    cancelled: bool = False

    def __post_init__(self) -> None:
        self.answers: list[Any] = [None] * len(self.rows)
        self.left = len(self.rows)


Item = tuple[Job, int]


class Lane(Protocol):
    """Work of one kind. ``due`` says when there is some (None: there is none), ``step`` does a part of it."""

    def due(self) -> float | None: ...
    def step(self) -> None: ...
    def close(self) -> None: ...


class Worker(threading.Thread):
    """The thread that computes. Lanes take turns; it ends when it is told to and they are empty."""

    def __init__(self) -> None:
        super().__init__(name="zhixing-model", daemon=True)
        self.lock = threading.Condition()
        self.lanes: list[Lane] = []
        self.ending = False

    def run(self) -> None:
        while (lane := self.next_lane()) is not None:
            try:
                lane.step()
            except Exception:  # the lanes tell their clients themselves; the thread has to live
                logger.exception("a step of the worker failed")

    def next_lane(self) -> Lane | None:
        """The lane whose turn it is among those that have work, once one has; None at the end."""
        with self.lock:
            while True:
                now = time.monotonic()
                times = [(when, lane) for lane in self.lanes if (when := lane.due()) is not None]
                ready = next((lane for when, lane in times if when <= now or self.ending), None)
                if ready is not None:
                    self.lanes.remove(ready)
                    self.lanes.append(ready)
                    return ready
                if self.ending:
                    return None
                self.lock.wait(min((when for when, _ in times), default=now + 60) - now)

    def end(self, *, at_once: bool = False) -> None:
        """End after what there is to do, or before it."""
        with self.lock:
            self.ending = True
            if at_once:
                for lane in self.lanes:
                    lane.close()
            self.lock.notify()


class Rows:
    """Rows that wait for one model, in the order of clients in turn, so that none can push another back.

    ``max_batch`` and ``wait`` say how they are gathered. A request of more rows than may wait is taken when none is
    there. With ``patience``, rows whose answer would come later, by the time that rows took lately, are refused at
    once, and a batch is no larger than can be done in half of it.
    """

    def __init__(self, served: Served, worker: Worker, metrics: Metrics, settings: Settings) -> None:
        self.served, self.worker, self.metrics = served, worker, metrics
        self.size, self.wait = settings.max_batch, settings.wait
        self.most, self.patience = settings.most_waiting, settings.patience
        self.clients: OrderedDict[str, deque[Item]] = OrderedDict()
        self.waiting = 0
        self.first = 0.0  # when the oldest of those that wait came
        self.held: dict[str, int] = {}  # rows that were let in and are not answered, by client
        self.pace = 0.0  # seconds a row
        worker.lanes.append(self)

    # In the loop -----------------------------------------------------------------------------------------------------

    def admit(self, client: str, rows: int) -> None:
        """Take places for rows that are about to come. Raises Busy."""
        self.check(client, rows)
        self.held[client] = self.held.get(client, 0) + rows

    def check(self, client: str, rows: int, coming: int = 0) -> None:
        """Raises Busy: there are too many already, or others are there and this client has its share of them.

        A few places are kept for clients that have none, so that whoever fills the rest cannot shut them out. Beside
        the rows that were let in, so many are ``coming``.
        """
        total, own, room = sum(self.held.values()) + coming, self.held.get(client, 0), self.most + self.size
        if total and total + rows > room + (0 if own else max(1, self.size // 4)):
            raise Busy("too many rows are waiting", total * self.pace)
        if total and self.patience is not None and (total + rows) * self.pace > self.patience:
            raise Busy("the answer would come too late", total * self.pace)
        if own and len(self.held) > 1 and own + rows > max(1, room // len(self.held)):
            raise Busy("others wait too, and you have your share of the places", own * self.pace, own=True)

    def release(self, client: str, rows: int) -> None:
        left = self.held[client] - rows
        if left:
            self.held[client] = left
        else:
            del self.held[client]

    def put(self, job: Job) -> None:
        with self.worker.lock:
            if not self.waiting:
                self.first = job.since
            self.clients.setdefault(job.client, deque()).extend((job, place) for place in range(len(job.rows)))
            self.waiting += len(job.rows)
            self.worker.lock.notify()

    # In the worker's thread ------------------------------------------------------------------------------------------

    def due(self) -> float | None:
        if not self.waiting:
            return None
        return 0.0 if self.waiting >= self.room else self.first + self.wait

    @property
    def room(self) -> int:
        """Rows of the next batch."""
        if self.patience is None or not self.pace:
            return self.size
        return max(1, min(self.size, int(self.patience / 2 / self.pace)))

    def take(self) -> list[Item]:
        """The rows of the next batch: one of each client in turn; none that nobody waits for any more."""
        out: list[Item] = []
        room = self.room
        with self.worker.lock:
            while self.clients and len(out) < room:
                client, items = next(iter(self.clients.items()))
                job, place = items.popleft()
                self.waiting -= 1
                if items:
                    self.clients.move_to_end(client)
                else:
                    del self.clients[client]
                if job.cancelled:
                    self.metrics.cancelled.inc()
                else:
                    out.append((job, place))
            self.first = min((items[0][0].since for items in self.clients.values()), default=0.0)
        return out

    def step(self) -> None:
        items = self.take()
        if not items:
            return
        started = time.perf_counter()
        found = self.answers(items)
        seconds = time.perf_counter() - started
        self.pace = 0.8 * self.pace + 0.2 * seconds / len(items) if self.pace else seconds / len(items)
        self.metrics.batch(self.served.name, len(items), seconds)
        done = []
        for (job, place), answer in zip(items, found, strict=True):
            job.answers[place] = answer
            job.left -= 1
            if not job.left:
                done.append(job)
        settle(done)

    def answers(self, items: Sequence[Item]) -> list[dict[str, Any] | RowError]:
        """The answers of a batch; where the model fails on it, of each half, down to the row that it fails on."""
        rows = [job.rows[place] for job, place in items]
        try:
            return list(self.served.answer(rows, probabilities=any(job.probabilities for job, _ in items)))
        except Exception:
            if len(items) == 1:
                logger.exception("the model failed on a row")
                return [RowError("the model failed on this row")]
        half = len(items) // 2
        return self.answers(items[:half]) + self.answers(items[half:])

    def close(self) -> None:
        self.clients.clear()
        self.waiting = 0


def settle(jobs: Sequence[Job]) -> None:
    """Give jobs their answers, all of them in one turn of the loop."""

    def give() -> None:
        for job in jobs:
            if not job.future.done():
                job.future.set_result(job.answers)

    if jobs and not (loop := jobs[0].future.get_loop()).is_closed():
        loop.call_soon_threadsafe(give)


class Streams:
    """Work that is done bit by bit: each text gets a token in turn, so that a long one holds nobody up.

    An explanation is work of a step for each row.
    """

    def __init__(self, worker: Worker, most: int) -> None:
        self.worker, self.most = worker, most
        self.going: deque[tuple[Flow, Generator[None, None, None]]] = deque()
        self.held: set[Flow] = set()
        self.gone: set[Flow] = set()
        worker.lanes.append(self)

    def put(self, flow: Flow) -> None:
        """Raises Busy: as many as there may be are worked on."""
        with self.worker.lock:
            if len(self.held) >= self.most:
                raise Busy("too many texts are being written", 1.0)
            self.held.add(flow)
            self.going.append((flow, flow.work()))
            self.worker.lock.notify()

    def drop(self, flow: Flow) -> None:
        """Nobody waits for this any more."""
        with self.worker.lock:
            if flow in self.held:
                self.gone.add(flow)

    def due(self) -> float | None:
        return 0.0 if self.going else None

    def step(self) -> None:
        with self.worker.lock:
            flow, work = self.going.popleft()
            gone = flow in self.gone
        going = False
        try:
            if gone:
                work.close()
            else:
                going = next(work, END) is not END
        finally:
            with self.worker.lock:
                if going:
                    self.going.append((flow, work))
                else:
                    self.held.discard(flow)
                    self.gone.discard(flow)

    def close(self) -> None:
        self.going.clear()
