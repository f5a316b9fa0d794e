"""The engine's face to the server: an Engine whose work happens in a child process.

A call whose process ends under it is done again by the next one, unless its answer has begun. A call
that was in two processes when they ended is suspected of having ended them, and is not done again.
"""

import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar

from mooring.config import EngineConfig, KvStoreConfig
from mooring.core.conversation import Conversation
from mooring.core.errors import EngineFailed, EngineLost
from mooring.core.prefix import Prefix, Tokens
from mooring.engine.interface import (
    Event,
    Generation,
    Kept,
    ModelInfo,
    OnProgress,
    Progress,
    Started,
)
from mooring.engine.process.call import ChildEnded
from mooring.engine.process.child import Child
from mooring.engine.process.messages import Load
from mooring.engine.process.shared_metrics import SharedMetrics
from mooring.engine.process.supervisor import Supervisor
from mooring.telemetry import ServerMetrics

R = TypeVar("R")

_MOST_ENDS = 2
_REMEMBERED_RELEASES = 1000


async def start_engine(
    model_path: Path,
    name: str,
    config: EngineConfig,
    store_config: KvStoreConfig,
    data_dir: Path,
    metrics: ServerMetrics,
    on_progress: OnProgress = lambda _what, _share: None,
) -> "ProcessEngine":
    """Start a process that loads a GGUF and serves it.

    Raises:
        ModelUnreadable: it cannot be loaded, has no chat template, or is of a family not served.
        StartRefused: the configured context does not fit the configured cells; the process ended.
    """
    shared = SharedMetrics(data_dir)
    level = logging.getLevelName(logging.getLogger("mooring").getEffectiveLevel())
    load = Load(model_path, name, config, store_config, data_dir, shared.folder, level)
    engine = ProcessEngine(load, shared, metrics)
    try:
        await engine.begin(on_progress)
    except BaseException:
        shared.close()
        raise
    metrics.show(shared.collector)
    return engine


class ProcessEngine:
    """Implements `mooring.engine.interface.Engine`; `begin` comes first."""

    def __init__(self, load: Load, shared: SharedMetrics, metrics: ServerMetrics) -> None:
        self._shared = shared
        self._supervisor = Supervisor(
            load, metrics.engine_restarts, shared.forget_gauges, self._release_again
        )
        self._model: ModelInfo | None = None
        self._released: OrderedDict[str, None] = OrderedDict()
        """Prefixes released lately: a process that ends may not have come to delete their bytes."""

    async def begin(self, on_progress: OnProgress) -> None:
        """Start the process. Raises StartRefused."""
        self._model = await self._supervisor.begin(on_progress)

    @property
    def model(self) -> ModelInfo:
        assert self._model is not None, "it has begun"
        return self._model

    @property
    def failure(self) -> str | None:
        return self._supervisor.failure

    async def render(self, conversation: Conversation) -> Tokens:
        return await self._done(lambda child: child.render(conversation, stable=False))

    async def stable_prefix(self, conversation: Conversation) -> Tokens:
        return await self._done(lambda child: child.render(conversation, stable=True))

    async def keep(self, prefix: Prefix, on_progress: Callable[[Progress], None] | None = None) -> Kept:
        self._released.pop(prefix.id, None)
        return await self._done(lambda child: child.keep(prefix, on_progress))

    async def release(self, prefix_id: str) -> None:
        self._released[prefix_id] = None
        self._released.move_to_end(prefix_id)
        if len(self._released) > _REMEMBERED_RELEASES:
            self._released.popitem(last=False)
        if (child := self._supervisor.running) is not None:
            child.release(prefix_id)

    async def release_all_but(self, prefix_ids: Collection[str]) -> None:
        if not self._supervisor.closing:
            await self._done(lambda child: child.release_all_but(prefix_ids))

    async def generate(self, generation: Generation) -> AsyncGenerator[Event]:
        started, begun, ends = False, False, 0
        while True:
            child = await self._supervisor.child(again=ends > 0)
            try:
                async with aclosing(child.generate(generation)) as events:
                    async for event in events:
                        if isinstance(event, Started):
                            if started:
                                continue
                            started = True
                        elif not isinstance(event, Progress):
                            begun = True
                        yield event
                return
            except ChildEnded as ended:
                ends += 1
                if begun or ends == _MOST_ENDS:
                    raise _lost(ended, ends) from ended

    async def close(self) -> None:
        await self._supervisor.close()
        self._shared.close()

    async def _done(self, call: Callable[[Child], Awaitable[R]]) -> R:
        """A call's result, of this process or the next."""
        ends = 0
        while True:
            child = await self._supervisor.child(again=ends > 0)
            try:
                return await call(child)
            except ChildEnded as ended:
                ends += 1
                if ends == _MOST_ENDS:
                    raise _lost(ended, ends) from ended

    def _release_again(self, child: Child) -> None:
        for prefix_id in self._released:
            child.release(prefix_id)


def _lost(ended: ChildEnded, ends: int) -> EngineFailed:
    how = f"the engine's process ended ({ended})"
    if ends == _MOST_ENDS:
        return EngineLost(f"{how} a second time under this request")
    return EngineLost(f"{how} while it answered; it is starting again: send the request again")
