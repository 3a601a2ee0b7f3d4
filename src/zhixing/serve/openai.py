"""``/v1/completions`` and ``/v1/chat/completions``: texts in the forms of the OpenAI interface, whole or as they come.

What a model is asked that it cannot do (several choices, tools, log-probabilities) is refused, not passed over.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ..errors import ZhixingError
from ..verbs.chat import TEMPLATES, Chat, Turn
from ..verbs.generate import Piece, Plan, Writer
from .predict import json_object, read_body
from .refusal import Json, Refusal
from .served import Served
from .streaming import END, Flow, attended

if TYPE_CHECKING:
    from .app import Service

__all__ = ["chat_completions", "completions"]

PROMPTS = 16
SYSTEM = ("system", "developer")
COLD = 1e-3  # a temperature at which chance decides nothing any more, and numbers do not fit float32


def whole(value: Any) -> Any:
    """2.0 is a whole number in JSON, and true is none."""
    if isinstance(value, bool):
        raise ValueError("true and false are no numbers")
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(whole)]
Mark = Annotated[str, Field(min_length=1, max_length=100)]


class Options(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)
    include_usage: bool = False


class Asked(BaseModel):
    """What both forms share. Fields that are not known are passed over, as new ones come with each client."""

    model_config = ConfigDict(extra="ignore", strict=True)

    model: str | None = None
    max_tokens: Annotated[Whole, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[Whole, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(ge=1e-6, le=1, allow_inf_nan=False)] | None = None
    seed: Annotated[Whole, Field(ge=0, le=2**53)] | None = None
    stop: Mark | Annotated[list[Mark], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: Options | None = None
    n: Annotated[Literal[1], BeforeValidator(whole)] | None = None
    logprobs: Literal[False] | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None

    def plan(self, most: int) -> Plan:
        """The search that is asked for; what is left out is as the model's own recipe has it."""
        warmth = self.temperature if self.temperature is None or self.temperature > COLD else 0.0
        wanted = {"temperature": warmth, "top_p": self.top_p, "seed": self.seed}
        search = {name: value for name, value in wanted.items() if value is not None}
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Plan({**search, "most": min(self.max_tokens or self.max_completion_tokens or most, most)}, tuple(stop))


class Completion(Asked):
    prompt: str | Annotated[list[str], Field(min_length=1, max_length=PROMPTS)]
    echo: Literal[False] | None = None
    suffix: Literal[""] | None = None
    best_of: Literal[1] | None = None


class Part(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)
    type: Literal["text"]
    text: str


class Message(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)
    role: Literal["system", "user", "assistant", "developer"]
    content: str | list[Part]

    @property
    def said(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class Conversation(Asked):
    messages: Annotated[list[Message], Field(min_length=1, max_length=256)]
    tools: Annotated[list[Any], Field(max_length=0)] | None = None


@dataclass
class Written:
    """One request's texts: how they are made, and what has been counted of them."""

    served: Served
    asked: Asked
    chats: bool
    texts: Sequence[tuple[Writer, Callable[[], Iterator[Piece]]]]
    prompt_tokens: int

    def __post_init__(self) -> None:
        self.id = ("chatcmpl-" if self.chats else "cmpl-") + secrets.token_hex(12)
        self.created = int(time.time())

    def pieces(self) -> Iterator[tuple[int, Piece]]:
        """The pieces of all texts, one text after the other. Goes on in the worker's thread."""
        for index, (_, text) in enumerate(self.texts):
            for piece in text():
                yield index, piece

    @property
    def tokens(self) -> int:
        """How many were written."""
        return sum(writer.rates.tokens for writer, _ in self.texts)

    def head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.served.name}

    def usage(self) -> dict[str, int]:
        total = self.prompt_tokens + self.tokens
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.tokens, "total_tokens": total}

    def whole(self, texts: Sequence[str], ended: Sequence[str]) -> dict[str, Any]:
        choices = [
            {"index": index, "finish_reason": why, "logprobs": None}
            | ({"message": {"role": "assistant", "content": text, "refusal": None}} if self.chats else {"text": text})
            for index, (text, why) in enumerate(zip(texts, ended, strict=True))
        ]
        head = self.head("chat.completion" if self.chats else "text_completion")
        return {**head, "choices": choices, "usage": self.usage()}

    def part(self, index: int, text: str | None, ended: str | None, *, first: bool) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, "finish_reason": ended, "logprobs": None}
        if self.chats:
            role = {"role": "assistant"} if first else {}
            choice["delta"] = role | ({} if text is None else {"content": text})
        else:
            choice["text"] = text or ""
        return {**self.head("chat.completion.chunk" if self.chats else "text_completion"), "choices": [choice]}


def reason(piece: Piece) -> str | None:
    return None if piece.ended is None else "length" if piece.ended == "length" else "stop"


async def completions(request: Request) -> Response:
    return await written(request, Completion)


async def chat_completions(request: Request) -> Response:
    return await written(request, Conversation)


async def written(request: Request, form: type[Asked]) -> Response:
    service: Service = request.app.state.service
    kind, body = request.headers.get("content-type", ""), await read_body(request)
    work = await service.decode(read_asked, service, form, kind, body)
    del body
    flow = Flow(work.pieces())
    service.start(flow)
    if work.asked.stream:
        first = await first_of(request, service, flow)
        return StreamingResponse(events(service, work, flow, first), media_type="text/event-stream")
    texts, ended = [""] * len(work.texts), ["length"] * len(work.texts)
    try:
        while (found := await attended(request, asyncio.ensure_future(flow.get()))) is not END:
            index, piece = found
            texts[index] += piece.text
            ended[index] = reason(piece) or ended[index]
    except ZhixingError as error:
        raise Refusal.of(error) from error
    finally:
        service.streams.drop(flow)
        service.metrics.tokens.labels(work.served.name).inc(work.tokens)
    return Json(work.whole(texts, ended))


async def first_of(request: Request, service: Service, flow: Flow) -> Any:
    """The first piece: until it is there, what is wrong can still be told with a status."""
    try:
        return await attended(request, asyncio.ensure_future(flow.get()))
    except BaseException as error:
        service.streams.drop(flow)
        if isinstance(error, ZhixingError):
            raise Refusal.of(error) from error
        raise


async def events(service: Service, work: Written, flow: Flow, first: Any) -> AsyncIterator[bytes]:
    """The server-sent events of a text; when its reader leaves, no more of it is written."""
    begun, found = set[int](), first
    try:
        while found is not END:
            index, piece = found
            yield event(work.part(index, piece.text, reason(piece), first=index not in begun))
            begun.add(index)
            found = await flow.get()
        if work.asked.stream_options is not None and work.asked.stream_options.include_usage:
            head = work.head("chat.completion.chunk" if work.chats else "text_completion")
            yield event({**head, "choices": [], "usage": work.usage()})
    except Exception as error:  # the status is gone: it is told in the stream
        message = str(error) if isinstance(error, ZhixingError) else "the model failed"
        yield event(Refusal(500, message).told())
    finally:
        service.streams.drop(flow)
        service.metrics.tokens.labels(work.served.name).inc(work.tokens)
    yield b"data: [DONE]\n\n"


def event(content: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(content, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"


# In a thread that decodes --------------------------------------------------------------------------------------------


def read_asked(service: Service, form: type[Asked], kind: str, body: bytearray) -> Written:
    if kind.partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "the body is not application/json", place="Content-Type")
    try:
        asked = form.model_validate(json_object(body))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise Refusal(422, first["msg"], place=".".join(map(str, first["loc"]))) from None
    served = service.served(asked.model)
    try:
        return (
            of_chat(service, served, asked) if isinstance(asked, Conversation) else of_prompts(service, served, asked)
        )
    except ZhixingError as error:
        raise Refusal.of(error) from error


def of_prompts(service: Service, served: Served, asked: Asked) -> Written:
    assert isinstance(asked, Completion)
    if not served.generates:
        raise Refusal(422, f"{served.name} does not go on from a text", place="model")
    prompts = [asked.prompt] if isinstance(asked.prompt, str) else asked.prompt
    check_lengths(service, prompts)
    plan, name = asked.plan(service.limits.tokens), next(iter(served.asked))
    plan.settings(served.writer().head)
    rows = served.read([{name: prompt} for prompt in prompts])
    for row in rows:
        if isinstance(row, Exception):
            raise Refusal(422, str(row), place="prompt")
    ends = 0 if served.model.inputs else 1  # what a language model goes on from is stored with an end, and read without
    tokens = sum(row.steps(name) - ends for row in rows if not isinstance(row, Exception))
    writers = [served.writer() for _ in prompts]
    texts = [(writer, partial(writer.stream, [prompt], plan)) for writer, prompt in zip(writers, prompts, strict=True)]
    return Written(served, asked, False, texts, tokens)


def of_chat(service: Service, served: Served, asked: Asked) -> Written:
    assert isinstance(asked, Conversation)
    if not served.chats:
        raise Refusal(422, f"{served.name} does not talk", place="model")
    messages = asked.messages
    check_lengths(service, [message.said for message in messages])
    leading = list(itertools.takewhile(lambda one: one.role in SYSTEM, messages))
    chat = Chat(served.writer(), system="\n".join(one.said for one in leading))
    turns = [Turn("system" if one.role == "developer" else one.role, one.said) for one in messages[len(leading) :]]
    ids, _ = chat.prompt(turns)  # without the oldest turns, where all are too many
    plan = asked.plan(service.limits.tokens)
    plan.settings(chat.writer.head)
    plan = Plan(plan.search, (*plan.stop, *TEMPLATES[chat.template].stop))
    return Written(served, asked, True, [(chat.writer, partial(chat.writer.go_on, ids, plan))], len(ids))


def check_lengths(service: Service, texts: Sequence[str]) -> None:
    if sum(map(len, texts)) > service.limits.field:
        raise Refusal(413, f"the texts have more than {service.limits.field:,} characters", reason="field")
