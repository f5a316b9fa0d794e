"""Streams that are read as they come, and failed from elsewhere."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import pytest

from mooring.engine.vllm.call import Call


class Source:
    """Numbers, with a gate before each, that says whether it was closed."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.count, self.error = count, error
        self.given, self.closed = 0, False

    async def numbers(self) -> AsyncGenerator[int]:
        try:
            for number in range(self.count):
                await asyncio.sleep(0)
                self.given += 1
                yield number
            if self.error is not None:
                raise self.error
            if self.count == 0:
                await asyncio.Event().wait()
        finally:
            self.closed = True


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await test()

    asyncio.run(bounded())


def test_all_items_come_in_order() -> None:
    async def test() -> None:
        source = Source(5)
        assert [item async for item in Call(source.numbers()).items()] == [0, 1, 2, 3, 4]
        assert source.closed

    run(test)


def test_it_reads_on_while_nobody_waits_for_it() -> None:
    async def test() -> None:
        source = Source(5)
        call = Call(source.numbers())
        while not source.closed:  # noqa: ASYNC110 - nobody sets an event when a generator closes
            await asyncio.sleep(0)
        assert source.given == 5
        assert [item async for item in call.items()] == [0, 1, 2, 3, 4]

    run(test)


def test_an_error_comes_after_what_came_before_it() -> None:
    async def test() -> None:
        call, seen = Call(Source(2, ValueError("over")).numbers()), []
        with pytest.raises(ValueError, match="over"):
            async for item in call.items():
                seen.append(item)  # noqa: PERF401 - what came before the error is wanted
        assert seen == [0, 1]

    run(test)


def test_who_fails_it_ends_it_for_its_reader() -> None:
    async def test() -> None:
        source = Source(0)
        call = Call(source.numbers())
        asyncio.get_running_loop().call_soon(call.fail, KeyError("gone"))
        with pytest.raises(KeyError, match="gone"):
            [item async for item in call.items()]
        assert source.closed

    run(test)


def test_closing_the_reader_closes_the_source() -> None:
    async def test() -> None:
        source = Source(1000)
        async with aclosing(Call(source.numbers()).items()) as items:
            await anext(items)
        assert source.closed
        assert source.given < 1000

    run(test)
