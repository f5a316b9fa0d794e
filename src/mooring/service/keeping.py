"""Brings what is kept in line with what should be: fills pending caches, releases unwanted prefixes.

The registry says what should be kept, the engine's store says what is. A pending cache has a running
fill, or gets one at the next sweep, at its next use or after the next start, whichever is first.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from mooring.core.context import CacheObject, Failure, Status
from mooring.core.conversation import Conversation, Message, Tool
from mooring.core.errors import (
    EngineUnavailable,
    MooringError,
    Overloaded,
    PromptTooLong,
    RegistryFailed,
)
from mooring.core.prefix import Prefix
from mooring.engine.interface import Engine, Progress, SharedStore
from mooring.registry.caches import Caches
from mooring.registry.group_commit import GroupCommit
from mooring.service.charging import Charging
from mooring.service.turns import Turns

_log = logging.getLogger("mooring.keeping")
_REMEMBERED_TOKENS = 2_000_000  # about 70 MB

OnProgress = Callable[[Progress], None]


class Keeper:
    """Fills and releases, in the background of the event loop."""

    def __init__(
        self,
        engine: Engine,
        caches: Caches,
        commits: GroupCommit,
        charging: Charging,
        turns: Turns | None = None,
    ) -> None:
        """`turns` are those with other servers, if there are any."""
        self._engine = engine
        self._caches = caches
        self._commits = commits
        self._charging = charging
        self._fills: dict[str, asyncio.Task[None]] = {}
        """The running fill of each pending cache, by its id."""
        self._releases: set[asyncio.Task[None]] = set()
        self._unreleased: set[str] = set()
        """Prefixes that could not be released, for want of the registry or of a worker."""
        self._turns = turns or Turns()
        """By prefix: it is not released while it is being kept, nor kept while it is released."""
        self._prefixes: dict[str, Prefix] = {}
        """Prefixes of caches used lately, by cache id: rendering a long one takes a while."""
        self._remembered_tokens = 0

    @property
    def bytes_per_token(self) -> int:
        return self._engine.model.kv_bytes_per_token

    async def close(self) -> None:
        """Interrupt running fills; their caches stay pending and go on after the next start."""
        tasks = [*self._fills.values(), *self._releases]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def release_unwanted(self) -> None:
        """Forget what is kept and no cache wants, after a start."""
        if not isinstance(self._engine, SharedStore):
            await self._engine.release_all_but(await self._wanted())
            return
        # In this order: what another server keeps from now on is not among it, and of what it keeps by
        # now there is a row. Who wants one again meanwhile has its turn before or after us.
        kept = await self._engine.kept()
        for prefix_id in kept - await self._wanted():
            self.release_later(prefix_id)

    async def _wanted(self) -> set[str]:
        return await asyncio.to_thread(self._caches.wanted_prefixes)

    # Filling

    def fill(self, cache: CacheObject, on_progress: OnProgress | None = None) -> asyncio.Task[None]:
        """The fill of a pending cache: the running one, or a new one."""
        task = self._fills.get(cache.id)
        if task is None:
            task = asyncio.create_task(self._fill(cache, on_progress), name=f"fill {cache.id}")
            self._fills[cache.id] = task
            task.add_done_callback(lambda ended: self._filled(cache.id, ended))
        return task

    def fill_again(self, cache: CacheObject) -> None:
        """Fill a cache whose row has just become pending.

        A fill that is running may have settled the row as it was before; then another one follows.
        """
        running = self._fills.get(cache.id)
        task = self.fill(cache)
        if task is running:
            task.add_done_callback(lambda ended: ended.cancelled() or self.fill(cache))

    async def kept_elsewhere(self) -> set[str]:
        """Ids of the prefixes that other servers are keeping or releasing just now."""
        taken = await self._turns.taken_elsewhere()
        return {name.removeprefix(_keeping("")) for name in taken}

    def fills(self) -> dict[str, asyncio.Task[None]]:
        """What is running now, by cache id."""
        return dict(self._fills)

    def drop(self, cache_id: str, prefix_id: str, fill: asyncio.Task[None] | None) -> None:
        """A cache has ended: stop its fill, forget its prefix if nobody else wants it."""
        if fill is not None:
            fill.cancel()
        self._forget(cache_id)
        self.release_later(prefix_id)

    def _filled(self, cache_id: str, task: asyncio.Task[None]) -> None:
        if self._fills.get(cache_id) is task:
            del self._fills[cache_id]

    async def _fill(self, cache: CacheObject, on_progress: OnProgress | None) -> None:
        """Make a pending cache's prefix durable, and say how it went."""
        try:
            prefix = await self._prefix_or_failure(cache)
            if isinstance(prefix, Failure):
                await self._settle(cache, 0, prefix)
                return
            async with self._turns.turn(_keeping(prefix.id)):
                if await self._is_settled(cache.id):
                    return
                failure = await self._keep(cache, prefix, on_progress)
                if not self._turns.is_alone:  # the next server to have its turn looks at the row
                    await self._settle(cache, len(prefix), failure)
                    return
            await self._settle(cache, len(prefix), failure)  # equal ones share a commit
        except MooringError as error:  # no registry, or no engine: the cache stays pending
            _log.error("cache not settled id=%s error=%s", cache.id, error)

    async def _is_settled(self, cache_id: str) -> bool:
        """Whether another server has done it while we waited for our turn."""
        if self._turns.is_alone:
            return False
        return not await asyncio.to_thread(self._caches.is_pending, cache_id)

    async def _settle(self, cache: CacheObject, tokens: int, failure: Failure | None) -> None:
        # A cache that cannot be used any more is not charged for being kept.
        status, charge = Status.ERROR, self._charging.over(cache.id)
        if failure is None:
            status = Status.READY
            charge = self._charging.ready(cache.id, cache.tenant, cache.model, tokens)
        await self._commits.run(partial(self._caches.settle, cache.id, status, failure, charge))

    async def _prefix_or_failure(self, cache: CacheObject) -> Prefix | Failure:
        try:
            return await self.prefix_of(cache)
        except (EngineUnavailable, RegistryFailed):
            raise  # not the cache's fault
        except MooringError as error:
            return _failure(cache.id, error)
        except Exception:  # noqa: BLE001 - a task's edge: nothing must leave it pending for ever
            return _surprise(cache.id)

    async def _keep(
        self, cache: CacheObject, prefix: Prefix, on_progress: OnProgress | None
    ) -> Failure | None:
        """Why it could not be kept, if it could not."""
        begun = time.monotonic()
        try:
            kept = await self._engine.keep(prefix, on_progress)
        except EngineUnavailable:
            raise
        except MooringError as error:
            return _failure(cache.id, error)
        except Exception:  # noqa: BLE001 - as above
            return _surprise(cache.id)
        _log.info(
            "cache ready id=%s tokens=%d evaluated_tokens=%d seconds=%.2f",
            cache.id,
            len(prefix),
            kept.evaluated_tokens,
            time.monotonic() - begun,
        )
        return None

    # Releasing

    def release_again(self) -> None:
        """Try what could not be released before."""
        unreleased, self._unreleased = self._unreleased, set()
        for prefix_id in unreleased:
            self.release_later(prefix_id)

    def release_later(self, prefix_id: str) -> None:
        """Forget a prefix soon, unless a live cache holds it."""
        task = asyncio.create_task(self._release(prefix_id), name=f"release {prefix_id[:12]}")
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)

    async def _release(self, prefix_id: str) -> None:
        """Forget a prefix unless another live cache holds it: equal content is stored once."""
        try:
            async with self._turns.turn(_keeping(prefix_id)):
                if not await asyncio.to_thread(self._caches.wants, prefix_id):
                    await self._engine.release(prefix_id)
        except MooringError as error:
            self._unreleased.add(prefix_id)
            _log.error("prefix not released yet prefix=%s error=%s", prefix_id[:12], error)

    # Prefixes

    async def render(self, tenant: str, conversation: Conversation) -> Prefix:
        """The stable prefix of a conversation.

        Raises:
            InvalidRequest: the template refuses the messages.
            PromptTooLong: it leaves no room for a question in the model's context.
        """
        prefix = Prefix(tenant, await self._engine.stable_prefix(conversation))
        room = self._engine.model.context_tokens
        if len(prefix) >= room:
            raise PromptTooLong(
                f"messages: {len(prefix)} tokens do not fit into the model's context of {room}",
                param="messages",
            )
        return prefix

    async def prefix_of(self, cache: CacheObject) -> Prefix:
        """The cache's prefix under the loaded model, which may not be the one it was made with."""
        prefix = self._prefixes.get(cache.id)
        if prefix is None:
            prefix = await self.render(cache.tenant, conversation_of(cache))
            self.remember(cache.id, prefix)
        if prefix.id != cache.prefix_id:
            change = partial(self._caches.set_prefix, cache.id, prefix.id, len(prefix))
            await self._commits.run(change)
            self.release_later(cache.prefix_id)
        return prefix

    def remember(self, cache_id: str, prefix: Prefix) -> None:
        """Spare the next use of a cache the rendering."""
        self._forget(cache_id)
        self._prefixes[cache_id] = prefix
        self._remembered_tokens += len(prefix)
        while self._remembered_tokens > _REMEMBERED_TOKENS and len(self._prefixes) > 1:
            self._forget(next(iter(self._prefixes)))

    def _forget(self, cache_id: str) -> None:
        if (prefix := self._prefixes.pop(cache_id, None)) is not None:
            self._remembered_tokens -= len(prefix)


def _keeping(prefix_id: str) -> str:
    return f"keep {prefix_id}"


def _failure(cache_id: str, error: MooringError) -> Failure:
    _log.error("cache failed id=%s error=%s", cache_id, error)
    kind = "engine_overloaded_error" if isinstance(error, Overloaded) else "server_error"
    return Failure(kind, error.message)


def _surprise(cache_id: str) -> Failure:
    """For the error that is being handled."""
    _log.exception("cache failed id=%s", cache_id)
    return Failure("server_error", "the server made a mistake; see its log")


def conversation_of(cache: CacheObject) -> Conversation:
    return make_conversation(cache.messages, cache.tools, cache.created_at)


def make_conversation(
    messages: tuple[Message, ...], tools: tuple[Tool, ...], now: float
) -> Conversation:
    """With the date of `now` (Unix seconds, UTC) for templates that print one."""
    return Conversation(messages, tools, datetime.fromtimestamp(now, UTC).date())
