"""The application: routes over the runs that are served."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from .. import __version__
from ..errors import UsageError, did_you_mean
from .batching import Busy, Rows, Streams, Worker
from .gate import Gate
from .metrics import Metrics
from .openai import chat_completions, completions
from .openapi import document
from .page import router
from .predict import predict
from .refusal import Json, Refusal, refused
from .served import Served
from .settings import Settings
from .streaming import Flow

__all__ = ["Service", "make_app"]

Result = TypeVar("Result")


class Service:
    """What all requests share: the runs, a queue for each, the thread that computes and those that decode."""

    def __init__(self, runs: Sequence[Served], settings: Settings) -> None:
        self.runs: Mapping[str, Served] = {one.name: one for one in runs}
        if len(self.runs) < len(runs):
            raise UsageError("two runs have the same name", mend="Name them: NAME=RUN.")
        self.settings, self.limits, self.metrics = settings, settings.limits, Metrics()
        self.worker = Worker()
        self.lanes = {
            name: Rows(one, self.worker, self.metrics, settings.for_one() if one.alone else settings)
            for name, one in self.runs.items()
        }
        self.streams = Streams(self.worker, self.limits.streams)
        self.decoders = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="zhixing-decode")
        self.decoding = 0  # requests whose rows are being decoded
        self.draining = False
        self.metrics.gauge("waiting_rows", "Rows that wait.", lambda: sum(lane.waiting for lane in self.lanes.values()))
        self.metrics.gauge("streams", "Texts and explanations that are worked on.", lambda: len(self.streams.held))

    def served(self, name: Any) -> Served:
        """The run of this name; the only one where none is given. Raises Refusal."""
        if name is None and len(self.runs) == 1:
            return next(iter(self.runs.values()))
        if name is None:
            raise Refusal(422, "several models are served", place="model", mend=f"Say which: {', '.join(self.runs)}.")
        if not isinstance(name, str):
            raise Refusal(422, "model is a name", place="model")
        if name not in self.runs:
            mend = did_you_mean(name[:100], self.runs)
            raise Refusal(404, f"there is no model {name[:100]!r}", reason="model", place="model", mend=mend)
        return self.runs[name]

    async def decode(self, work: Callable[..., Result], *given: Any) -> Result:
        """Work that takes a while, done beside the loop."""
        return await asyncio.get_running_loop().run_in_executor(self.decoders, work, *given)

    async def decode_rows(self, client: str, work: Callable[..., Result], *given: Any) -> Result:
        """:meth:`decode` of a request whose rows are to wait for a run. While it lasts it has a place among them, so
        that nothing is decoded that would be refused then.

        Raises Refusal.
        """
        self.peek(client)
        self.decoding += 1
        try:
            return await self.decode(work, *given)
        finally:
            self.decoding -= 1

    def peek(self, client: str) -> None:
        """Raises Refusal where no run has room for a row of this client: before the body is read."""
        first: Busy | None = None
        for lane in self.lanes.values():
            try:
                lane.check(client, 1, self.decoding)
            except Busy as busy:
                first = first or busy
            else:
                return
        if first is not None:
            raise self.busy(first)

    def busy(self, busy: Busy) -> Refusal:
        return Refusal(429, str(busy), reason="share" if busy.own else "queue", after=busy.after)

    def start(self, flow: Flow) -> None:
        try:
            self.streams.put(flow)
        except Busy as busy:
            raise self.busy(busy) from None

    def open(self) -> None:
        """Start to work; what the runs say of themselves is found out before, since it asks their models."""
        for one in self.runs.values():
            one.describe()
        self.worker.start()

    def close(self, *, at_once: bool = False) -> None:
        """End the threads once what was accepted is done."""
        self.worker.end(at_once=at_once)
        if self.worker.is_alive():
            self.worker.join()
        self.decoders.shutdown(wait=not at_once, cancel_futures=at_once)


async def models(request: Request) -> Response:
    service: Service = request.app.state.service
    found = [served.describe() for served in service.runs.values()]
    short = [{name: one[name] for name in ("id", "object", "created", "owned_by")} for one in found]
    return Json({"models": found, "object": "list", "data": short})


async def health(request: Request) -> Response:
    """Whether the process lives: the loop answers, and so does the thread that computes."""
    service: Service = request.app.state.service
    alive = service.worker.is_alive()
    return Json({"status": "ok" if alive else "the model's thread has ended"}, 200 if alive else 503)


async def ready(request: Request) -> Response:
    """Whether requests should be sent here."""
    service: Service = request.app.state.service
    if service.draining:
        raise Refusal(503, "the server is leaving", reason="draining", after=5)
    return Json({"status": "ready", "models": list(service.runs)})


async def metrics(request: Request) -> Response:
    service: Service = request.app.state.service
    content, media = service.metrics.page()
    return Response(content, media_type=media)


async def openapi(request: Request) -> Response:
    service: Service = request.app.state.service
    return Json(document(service.runs.values(), service.settings))


async def not_found(request: Request, error: Exception) -> Response:
    """What the framework refuses by itself, in our form."""
    assert isinstance(error, HTTPException)
    return Json(Refusal(error.status_code, error.detail).told(), error.status_code, error.headers)


async def fault(request: Request, error: Exception) -> Response:
    """A defect of ours, which the log tells of."""
    return Json(Refusal(500, "the server failed on this request", reason="fault").told(), 500)


def make_app(service: Service) -> Gate:
    """The ASGI application that serves these runs: the routes, behind the gate."""
    routes: list[BaseRoute] = [
        Route("/v1/predict", predict, methods=["POST"]),
        Route("/v1/models", models, methods=["GET"]),
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/v1/chat/completions", chat_completions, methods=["POST"]),
        Route("/health", health, methods=["GET"]),
        Route("/ready", ready, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
        Route("/openapi.json", openapi, methods=["GET"]),
    ]
    app = FastAPI(
        title="Zhixing", version=__version__, routes=routes, openapi_url=None, docs_url=None, redoc_url=None,
        exception_handlers={Refusal: refused, HTTPException: not_found, Exception: fault},
    )  # fmt: skip
    app.state.service = service
    app.include_router(router())
    return Gate(app, service.settings, service.metrics, service.peek)
