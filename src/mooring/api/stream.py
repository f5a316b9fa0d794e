"""Replies that take long: server-sent events, and plain ones whose client may go away."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from mooring.api.errors import error_object
from mooring.core.errors import MooringError

T = TypeVar("T")

_log = logging.getLogger("mooring.api")


class EventStream(StreamingResponse):
    """`data: <json>` lines, then `data: [DONE]`; closes the engine's stream however it ends."""

    media_type = "text/event-stream"

    def __init__(
        self,
        chunks: AsyncIterator[dict[str, Any]],
        ready: Callable[[], Awaitable[None]],
        close: Callable[[], Awaitable[None]],
        headers: dict[str, str],
    ) -> None:
        super().__init__(
            _lines(chunks),
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"} | headers,
        )
        self._ready = ready
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._ready()  # what its headers say is not true before
            await super().__call__(scope, receive, send)
        finally:
            await self._close()


async def _lines(chunks: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    try:
        async for chunk in chunks:
            # ASCII: some clients take U+2028 and its like inside the text for the end of the line.
            yield f"data: {json.dumps(chunk, separators=(',', ':'))}\n\n"
    except MooringError as error:  # the headers are out: the error goes into the stream
        _log.error("stream failed error=%s", error)
        yield f"data: {json.dumps(error_object(error))}\n\n"
        return
    yield "data: [DONE]\n\n"


class ClientGone(Exception):
    """The client closed its connection before the reply was ready."""


async def until_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client disconnects.

    Raises:
        ClientGone: it did.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        for pending in (task, gone):
            pending.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
