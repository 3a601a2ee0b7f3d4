"""``POST /v1/predict``: rows in, answers out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from ..errors import ZhixingError, did_you_mean
from .batching import Busy, Job
from .fields import RowError, parse_json
from .form import parse_form
from .refusal import Json, Refusal
from .served import Read, Served
from .streaming import Flow, attended

if TYPE_CHECKING:
    from .app import Service

__all__ = ["WORDS", "Asked", "predict", "read_body"]

KEYS = ("model", "rows", "probabilities", "explain")
WORDS = {
    "true": True,
    "1": True,
    "on": True,
    "yes": True,
    "false": False,
    "0": False,
    "off": False,
    "no": False,
    "": False,
}
DEFAULT = "integrated_gradients"


@dataclass
class Asked:
    """A request that was read: whose answers, of which rows, with what beside them."""

    served: Served
    rows: Sequence[Read | RowError]
    probabilities: bool
    method: str | None

    @property
    def good(self) -> list[Read]:
        return [row for row in self.rows if isinstance(row, Read)]


async def predict(request: Request) -> Response:
    service: Service = request.app.state.service
    started = time.perf_counter()
    client = request.scope["client_key"]
    kind, body = request.headers.get("content-type", ""), await read_body(request)
    asked = await service.decode_rows(client, read_request, service, kind, body)
    del body
    answers = await answered(service, request, client, asked)
    if asked.method is not None:
        await explained(service, request, asked, answers)
    rows = [{"error": one.told()} if isinstance(one, RowError) else one for one in answers]
    bad = sum("error" in row for row in rows)
    milliseconds = round(1000 * (time.perf_counter() - started), 3)
    content = {"model": asked.served.name, "rows": rows, "milliseconds": milliseconds}
    return Json(content, 422 if rows and bad == len(rows) else 200)


async def read_body(request: Request) -> bytearray:
    """The body, within what the gate lets in. Raises Refusal where the client leaves."""
    body = bytearray()
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "the client left", reason="left")
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return body


async def answered(service: Service, request: Request, client: str, asked: Asked) -> list[dict[str, Any] | RowError]:
    """The answers of all rows in order, those that cannot be read among them."""
    found: list[Any] = list(asked.rows)
    if not asked.good:
        return found
    lane, count = service.lanes[asked.served.name], len(asked.good)
    try:
        lane.admit(client, count)
    except Busy as busy:
        raise service.busy(busy) from None
    try:
        job = Job(client, asked.good, asked.probabilities, asyncio.get_running_loop().create_future())
        lane.put(job)
        try:
            done = await attended(request, job.future)
        finally:
            job.cancelled = True
    finally:
        lane.release(client, count)
    answers = iter(done)
    return [next(answers) if isinstance(row, Read) else row for row in found]


async def explained(service: Service, request: Request, asked: Asked, answers: list[Any]) -> None:
    """Put explanations beside the answers."""
    method = asked.method
    assert method is not None
    rows = [
        (answer, row) for answer, row in zip(answers, asked.rows, strict=True)
        if isinstance(row, Read) and not isinstance(answer, RowError)
    ]  # fmt: skip
    flow = Flow(asked.served.explain(row, method) for _, row in rows)
    try:
        service.start(flow)
        for answer, _ in rows:
            answer["explanation"] = await attended(request, asyncio.ensure_future(flow.get()))
    except ZhixingError as error:
        raise Refusal.of(error) from error
    finally:
        service.streams.drop(flow)


# In a thread that decodes --------------------------------------------------------------------------------------------


def read_request(service: Service, kind: str, body: bytearray) -> Asked:
    """A request's body as rows that a model can take.

    Raises:
        Refusal: it is not of the form that the schema says.
    """
    media = kind.partition(";")[0].strip().lower()
    if media == "application/json":
        return of_json(service, body)
    if media == "multipart/form-data":
        return of_form(service, kind, body)
    raise Refusal(
        415, f"the body is {media[:100] or 'of no stated type'}", place="Content-Type",
        mend="Send application/json or multipart/form-data.",
    )  # fmt: skip


def of_json(service: Service, body: bytearray) -> Asked:
    content = json_object(body)
    for name in content:
        if name not in KEYS:
            raise Refusal(422, f"there is no {name[:100]!r}", place="body", mend=did_you_mean(name[:100], KEYS))
    rows, served = content.get("rows"), service.served(content.get("model"))
    if not isinstance(rows, list) or not rows:
        raise Refusal(422, "rows is a list of one or more mappings of columns to cells", place="rows")
    if len(rows) > service.limits.rows:
        raise Refusal(422, f"{len(rows):,} rows, more than {service.limits.rows:,}", place="rows")
    probabilities = content.get("probabilities", False)
    if not isinstance(probabilities, bool):
        raise Refusal(422, "probabilities is true or false", place="probabilities")
    method = method_of(served, content.get("explain", False), len(rows), service.limits.explained)
    return Asked(served, served.read(rows), probabilities, method)


def of_form(service: Service, kind: str, body: bytearray) -> Asked:
    """A form is one row: a part for each column, files where these hold files."""
    parts = parse_form(kind, body, service.limits)
    chosen = {name: parts.pop(name) for name in ("model", "probabilities", "explain") if name in parts}
    for name, value in chosen.items():
        if not isinstance(value, str):
            raise Refusal(422, f"{name} is no file", place=name)
    served = service.served(chosen.get("model") or None)
    probabilities = WORDS.get(str(chosen.get("probabilities", "")).lower())
    if probabilities is None:
        raise Refusal(422, "probabilities is true or false", place="probabilities")
    word = str(chosen.get("explain", ""))
    method = method_of(served, WORDS.get(word.lower(), word), 1, 1)
    return Asked(served, served.read([served.fields.read_form(parts)]), probabilities, method)


def json_object(body: bytearray) -> dict[str, Any]:
    try:
        content = parse_json(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the body is not JSON: {str(error)[:200]}", reason="json", place="body") from None
    if not isinstance(content, dict):
        raise Refusal(422, "the body is not a JSON object", place="body")
    return content


def method_of(served: Served, asked: Any, rows: int, most: int) -> str | None:
    if asked is False or asked is None:
        return None
    known = served.methods
    if not known:
        raise Refusal(422, "this model reads no input that could be explained", place="explain")
    if rows > most:
        raise Refusal(422, f"{rows} rows are to be explained, more than {most}", place="explain")
    if asked is True:
        return DEFAULT
    if not isinstance(asked, str) or asked not in known:
        word = asked[:100] if isinstance(asked, str) else str(asked)[:100]
        raise Refusal(422, f"there is no method {word!r}", place="explain", mend=did_you_mean(word, known))
    return asked
