"""The cluster's face to the server: an Engine whose work happens in vLLM workers."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import TypeVar

from mooring.core.conversation import Conversation
from mooring.core.errors import EngineFailed
from mooring.core.prefix import Prefix, Tokens
from mooring.engine.interface import Event, Generation, Kept, ModelInfo, Progress
from mooring.engine.prompt import Prompter
from mooring.engine.vllm.cluster import Cluster
from mooring.engine.vllm.generating import Generating
from mooring.engine.vllm.keeping import Keeping
from mooring.engine.vllm.member import Member
from mooring.engine.workers import WorkerStatus

A = TypeVar("A")
R = TypeVar("R")

_RENDERERS = 2
_SHUTTING_DOWN = "the server is shutting down; try again shortly"


class VllmEngine:
    """Implements `mooring.engine.interface.Engine`."""

    def __init__(
        self,
        cluster: Cluster,
        keeping: Keeping,
        generating: Generating,
        prompter: Prompter,
        info: ModelInfo,
    ) -> None:
        self.cluster = cluster
        self._keeping = keeping
        self._generating = generating
        self._prompter = prompter
        self._info = info
        self._renderers = ThreadPoolExecutor(_RENDERERS, "mooring-render")
        self._closed = False

    @property
    def model(self) -> ModelInfo:
        return self._info

    @property
    def failure(self) -> str | None:
        return self.cluster.failure

    async def render(self, conversation: Conversation) -> Tokens:
        return await self._on_renderer(self._prompter.render, conversation)

    async def stable_prefix(self, conversation: Conversation) -> Tokens:
        return await self._on_renderer(self._prompter.stable_prefix, conversation)

    async def keep(self, prefix: Prefix, on_progress: Callable[[Progress], None] | None = None) -> Kept:
        self._refuse_when_closed()
        if len(prefix) == 0:  # there are templates without a common beginning
            return Kept(0)
        return await self._keeping.keep(prefix, on_progress)

    async def release(self, prefix_id: str) -> None:
        if not self._closed:
            await self._keeping.release(prefix_id)

    async def kept(self) -> set[str]:
        """As `mooring.engine.interface.SharedStore` has it."""
        return await self._keeping.kept()

    async def release_all_but(self, prefix_ids: Collection[str]) -> None:
        if not self._closed:
            await self._keeping.release_all_but(prefix_ids)

    async def generate(self, generation: Generation) -> AsyncGenerator[Event]:
        self._refuse_when_closed()
        async with aclosing(self._generating.events(generation)) as events:
            async for event in events:
                yield event

    def workers(self) -> list[WorkerStatus]:
        """As `mooring.engine.workers.WorkerPool` has it, and so has `drain`."""
        return [_status(member) for member in self.cluster.members]

    def drain(self, url: str, *, drained: bool) -> WorkerStatus:
        return _status(self.cluster.drain(url, drained=drained))

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self.cluster.close(EngineFailed(_SHUTTING_DOWN))
        await self._keeping.close()
        await asyncio.to_thread(self._renderers.shutdown, cancel_futures=True)

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise EngineFailed(_SHUTTING_DOWN)

    async def _on_renderer(self, work: Callable[[A], R], argument: A) -> R:
        self._refuse_when_closed()
        return await asyncio.get_running_loop().run_in_executor(self._renderers, work, argument)


def _status(member: Member) -> WorkerStatus:
    return WorkerStatus(
        url=member.name,
        state=member.state.value,
        reason=member.reason,
        requests=member.busy,
        pinned_prefixes=len(member.pinned),
    )
