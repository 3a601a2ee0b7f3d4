"""Work whose results come one after another from the worker's thread; and clients that leave before their answer."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterable
from typing import Any, TypeVar

from starlette.requests import Request

from .refusal import Refusal

__all__ = ["END", "Flow", "attended"]

END = object()  # comes after the last result
Result = TypeVar("Result")


class Flow:
    """Results of an iterable that the worker's thread goes through, one at each of its steps, read in the loop.

    :meth:`get` gives them in order, then END; what the iterable raises is raised there.
    """

    def __init__(self, results: Iterable[Any]) -> None:
        self.results = results
        self.loop = asyncio.get_running_loop()
        self.queue: asyncio.Queue[tuple[Any, BaseException | None]] = asyncio.Queue()

    def work(self) -> Generator[None, None, None]:
        """The steps for the worker."""
        try:
            for result in self.results:
                self.post(result)
                yield
        except Exception as error:
            self.post(END, error)
        else:
            self.post(END)

    def post(self, result: Any, error: BaseException | None = None) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.queue.put_nowait, (result, error))

    async def get(self) -> Any:
        result, error = await self.queue.get()
        if error is not None:
            raise error
        return result


async def attended(request: Request, future: asyncio.Future[Result]) -> Result:
    """What a future gives, as long as the client is there to hear it.

    Raises:
        Refusal: it left.
    """
    gone = asyncio.ensure_future(left(request))
    try:
        await asyncio.wait((future, gone), return_when=asyncio.FIRST_COMPLETED)
        if not future.done():
            raise Refusal(499, "the client left", reason="left")
        return future.result()
    finally:
        gone.cancel()
        if not future.done():
            future.cancel()


async def left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
