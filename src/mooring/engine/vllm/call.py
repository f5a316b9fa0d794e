"""A stream that is read as it comes, whoever waits for it, and that can be failed from elsewhere."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Generic, TypeVar

T = TypeVar("T")


class Call(Generic[T]):
    """Reads from its making on; `items` passes on what came."""

    def __init__(self, source: AsyncGenerator[T]) -> None:
        self._came: asyncio.Queue[T | None] = asyncio.Queue()
        """None: nothing follows."""
        self._failure: BaseException | None = None
        self._task = asyncio.create_task(self._read(source))
        self._task.add_done_callback(self._ended)

    def fail(self, error: Exception) -> None:
        """Whoever reads gets this error next; the stream is closed."""
        if not self._task.done():
            self._failure = error
            self._task.cancel()

    async def items(self) -> AsyncGenerator[T]:
        """All of it, once. Closing this closes the stream. Raises what the stream raises."""
        try:
            while (item := await self._came.get()) is not None:
                yield item
            if self._failure is not None:
                raise self._failure
        finally:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self, source: AsyncGenerator[T]) -> None:
        async with aclosing(source):
            async for item in source:
                self._came.put_nowait(item)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._failure is None and not task.cancelled():
            self._failure = task.exception()
        self._came.put_nowait(None)
