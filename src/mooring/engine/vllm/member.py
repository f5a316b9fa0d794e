"""A worker's place in the cluster: whether it takes requests, and what it is doing."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mooring.engine.vllm.call import Call
from mooring.engine.vllm.worker import GenerationFailed, Identity, Worker, WorkerLost


class State(StrEnum):
    """Whether a worker takes requests."""

    UP = "up"
    DRAINING = "draining"
    """An operator wants it to take no more; what it has begun, it ends."""
    DOWN = "down"
    """It does not answer, or serves something else; it is asked again and again."""


@dataclass(eq=False)
class Load:
    """What a request weighs on its worker, from its sending to its end."""

    tokens: int
    """Of its prompt, that the worker is believed to have to compute."""
    started: bool = False


@dataclass(eq=False)
class Member:
    """One worker."""

    worker: Worker
    state: State = State.DOWN
    reason: str = "not asked yet"
    """Why it is down."""
    drained: bool = False
    """An operator has said so."""
    identity: Identity | None = None
    pinned: Mapping[str, int] = field(default_factory=dict)
    """Tokens of the kept prefixes on its device, when it was last asked, by their ids."""
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it should be asked at once how it is."""
    _loads: set[Load] = field(default_factory=set)
    _calls: set[Call[Any]] = field(default_factory=set)

    @property
    def name(self) -> str:
        return self.worker.url

    @property
    def waiting_tokens(self) -> int:
        return sum(load.tokens for load in self._loads if not load.started)

    @property
    def running(self) -> int:
        return sum(load.started for load in self._loads)

    @property
    def busy(self) -> int:
        """Requests that it has."""
        return len(self._loads)

    @contextmanager
    def loaded(self, tokens: int) -> Iterator[Load]:
        """The worker has one more request as long as this is open."""
        load = Load(tokens)
        self._loads.add(load)
        try:
            yield load
        finally:
            self._loads.discard(load)

    def stream(self, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """As `Worker.stream`; `fail_all` reaches it."""
        return self._followed(self.worker.stream(body))

    async def ask(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """As `Worker.ask`; `fail_all` reaches it."""

        async def once() -> AsyncGenerator[dict[str, Any]]:
            yield await self.worker.ask(body)

        async with self.watched(), aclosing(self._followed(once())) as replies:
            return await anext(replies)

    @asynccontextmanager
    async def watched(self) -> AsyncGenerator[None]:
        """vLLM says the same of a request that failed and of an engine that died: tell them apart."""
        try:
            yield
        except GenerationFailed as error:
            if not await self.worker.is_well():
                raise WorkerLost(str(error)) from error
            raise

    async def _followed(self, source: AsyncGenerator[dict[str, Any]]) -> AsyncGenerator[dict[str, Any]]:
        call = Call(source)
        self._calls.add(call)
        try:
            async with aclosing(call.items()) as items:
                async for item in items:
                    yield item
        finally:
            self._calls.discard(call)

    def fail_all(self, error: Exception) -> None:
        """End what is running here."""
        for call in list(self._calls):
            call.fail(error)
