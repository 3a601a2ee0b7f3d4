"""Refusals: what a client is told when it gets no answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ..errors import ZhixingError

__all__ = ["Json", "Refusal", "refused"]


class Refusal(Exception):  # noqa: N818
    """A request that is not answered, with its HTTP status and what a person is told.

    ``reason`` is a word for the counters; ``after`` says in how many seconds to come again.
    """

    def __init__(
        self, status: int, message: str, *, reason: str = "", place: str = "", mend: str = "", after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.place, self.mend = status, message, place, mend
        self.reason, self.after = reason or str(status), after

    @classmethod
    def of(cls, error: ZhixingError) -> Refusal:
        """One of our own errors, as a fault of the request."""
        return cls(422, error.what, place="" if error.place is None else str(error.place), mend=error.mend)

    def told(self) -> dict[str, Any]:
        error: dict[str, Any] = {"message": self.message}
        error |= {name: value for name, value in (("place", self.place), ("mend", self.mend)) if value}
        # What clients of the OpenAI forms look for beside the message.
        error |= {"type": "server_error" if self.status >= 500 else "invalid_request_error", "code": self.reason}
        return {"error": error}

    def headers(self) -> dict[str, str]:
        out = {} if self.after is None else {"retry-after": str(self.after)}
        return out | ({"www-authenticate": "Bearer"} if self.status == 401 else {})

    def content(self) -> bytes:
        return json.dumps(self.told(), ensure_ascii=False).encode("utf-8", "replace")


class Json(Response):
    """A JSON answer; characters that are none become question marks."""

    media_type = "application/json"

    def __init__(self, content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        super().__init__(body.encode("utf-8", "replace"), status, dict(headers or {}))


async def refused(request: Request, error: Exception) -> Response:
    """The answer to a request that a handler refused."""
    assert isinstance(error, Refusal)
    return Json(error.told(), error.status, error.headers())
