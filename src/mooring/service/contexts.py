"""The life of cached contexts: create, look up, use, expire, delete.

The registry says what should be kept, the engine's store says what is; here the two are brought
together. Bytes that are gone are computed again when a cache is used, from the messages in its row.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from weakref import WeakValueDictionary

from mooring.config import CachingConfig
from mooring.core.context import CacheObject, Failure, Page, Status, new_cache_id
from mooring.core.conversation import Conversation, Message, Tool
from mooring.core.errors import (
    ContextExpired,
    ContextFailed,
    ContextNotFound,
    InvalidRequest,
    MooringError,
    Overloaded,
    PromptTooLong,
    StorageFull,
)
from mooring.core.prefix import Prefix
from mooring.engine.interface import Engine, Progress
from mooring.registry.caches import Caches
from mooring.service.expiry import as_of, choose_end
from mooring.service.models import Models

_log = logging.getLogger("mooring.contexts")


@dataclass(frozen=True)
class NewCache:
    """What a client asks to be kept."""

    model: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    name: str = ""
    description: str = ""
    metadata: dict[str, str] | None = None
    ttl_s: int | None = None
    expired_at: int | None = None


@dataclass(frozen=True)
class CacheUse:
    """How a chat names a cache."""

    cache_id: str
    reset_ttl_s: int | None = None
    """On success the cache ends this long from then; an expired one is revived."""


@dataclass(frozen=True)
class OpenContext:
    """A cache that is ready for a chat."""

    cache: CacheObject
    conversation: Conversation
    prefix: Prefix


class Contexts:
    """All tenants' caches."""

    def __init__(
        self,
        engine: Engine,
        caches: Caches,
        models: Models,
        config: CachingConfig,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._caches = caches
        self._models = models
        self._config = config
        self._clock = clock
        self._fills: dict[str, asyncio.Task[None]] = {}
        """The running prefill of each pending cache, by its id."""
        self._releases: set[asyncio.Task[None]] = set()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """One for each prefix: it is not released while it is being kept, nor the other way round."""
        self._prefixes: dict[str, Prefix] = {}
        """Prefixes of caches used lately: rendering and tokenising long messages takes a while."""

    async def resume(self) -> None:
        """After a start: go on with what was pending, and forget bytes that no cache wants."""
        await self._engine.release_all_but(await asyncio.to_thread(self._caches.wanted_prefixes))
        for cache in await asyncio.to_thread(self._caches.pending):
            self._begin_fill(cache)

    async def close(self) -> None:
        """Interrupt running prefills; their caches stay pending and go on after the next start."""
        tasks = [*self._fills.values(), *self._releases]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def create(
        self,
        tenant: str,
        new: NewCache,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> CacheObject:
        """Register a cache and begin its prefill; returns it `pending`, with its tokens counted.

        Raises:
            InvalidRequest: a field breaks a rule, or the template refuses the messages.
            ModelNotFound: no such model or alias.
            StorageFull: no room for the row.
        """
        self._models.check(new.model)
        if not new.messages:
            raise InvalidRequest("messages: at least one message is needed", param="messages")
        now = int(self._clock())
        end = choose_end(
            now,
            ttl_s=new.ttl_s,
            expired_at=new.expired_at,
            default_ttl_s=self._config.default_ttl_s,
            max_ttl_s=self._config.max_ttl_s,
        )
        prefix = await self._render(tenant, _conversation(new.messages, new.tools, now))
        room = self._engine.model.context_tokens
        if len(prefix) >= room:
            raise PromptTooLong(
                f"messages: {len(prefix)} tokens do not fit into the model's context of {room}",
                param="messages",
            )
        cache = CacheObject(
            id=new_cache_id(),
            tenant=tenant,
            model=new.model,
            messages=new.messages,
            tools=new.tools,
            name=new.name,
            description=new.description,
            metadata=new.metadata,
            created_at=now,
            expired_at=end,
            status=Status.PENDING,
            tokens=len(prefix),
            prefix_id=prefix.id,
        )
        await asyncio.to_thread(self._caches.insert, cache)
        _log.info("cache created id=%s tenant=%s tokens=%d", cache.id, tenant, cache.tokens)
        self._remember(cache.id, prefix)
        self._begin_fill(cache, on_progress)
        return cache

    async def get(self, tenant: str, cache_id: str) -> CacheObject:
        """Raises ContextNotFound."""
        cache = await asyncio.to_thread(self._caches.get, tenant, cache_id)
        if cache is None:
            raise ContextNotFound(cache_id)
        return as_of(cache, self._clock())

    async def list(self, tenant: str, page: Page) -> Sequence[CacheObject]:
        """Raises ContextNotFound for a page beside a cache that is not there."""
        found = await asyncio.to_thread(self._caches.list, tenant, page)
        if found is None:
            raise ContextNotFound(page.after or page.before or "")
        now = self._clock()
        return [as_of(cache, now) for cache in found]

    async def delete(self, tenant: str, cache_id: str) -> None:
        """Raises ContextNotFound. Chats that use the cache go on to their end."""
        cache = await asyncio.to_thread(self._caches.delete, tenant, cache_id)
        if cache is None:
            raise ContextNotFound(cache_id)
        _log.info("cache deleted id=%s tenant=%s", cache_id, tenant)
        self._prefixes.pop(cache_id, None)
        if (fill := self._fills.get(cache_id)) is not None:
            fill.cancel()
        self._begin_release(cache.prefix_id)

    async def wait(self, tenant: str, cache_id: str) -> CacheObject:
        """The cache, once its prefill has ended one way or the other.

        Raises:
            ContextNotFound: no such cache, or it was deleted meanwhile.
        """
        cache = await self.get(tenant, cache_id)
        if cache.status is Status.PENDING:
            fill = self._fills.get(cache_id) or self._begin_fill(cache)
            await asyncio.wait({fill})  # not its result: a cancelled fill must not cancel us
            cache = await self.get(tenant, cache_id)
        return cache

    async def open(self, tenant: str, use: CacheUse) -> OpenContext:
        """Make a cache ready for a chat: wait while it is pending, revive it if that was asked for.

        Raises:
            ContextNotFound: no such cache.
            ContextExpired: it is over and the request gives it no new life.
            ContextFailed: its prefill had failed.
            Overloaded: its prefill could not be brought to an end.
        """
        cache = await self.get(tenant, use.cache_id)
        if cache.status is Status.INACTIVE:
            if use.reset_ttl_s is None:
                raise ContextExpired(
                    f"the cache {cache.id} expired at {cache.expired_at}: add ;reset_ttl=<seconds>"
                    " to the cache message to revive it, or create it anew",
                    param="messages",
                )
            await asyncio.to_thread(self._caches.revive, cache.id, self._end_of(use.reset_ttl_s))
            _log.info("cache revived id=%s tenant=%s", cache.id, tenant)
        cache = await self.wait(tenant, cache.id)
        match cache.status:
            case Status.ERROR:
                assert cache.failure is not None
                raise ContextFailed(
                    f"the cache {cache.id} could not be made: {cache.failure.message};"
                    " delete it and create it again",
                    param="messages",
                )
            case Status.READY:
                prefix = await self._prefix_of(cache)
                conversation = _conversation(cache.messages, cache.tools, cache.created_at)
                return OpenContext(cache, conversation, prefix)
            case _:
                raise Overloaded(f"the cache {cache.id} is not ready; try again shortly")

    async def reset_ttl(self, cache: CacheObject, ttl_s: int) -> int:
        """Let a cache end `ttl_s` from now, whatever its end was; returns the new end."""
        end = self._end_of(ttl_s)
        await asyncio.to_thread(self._caches.set_expiry, cache.id, end)
        return end

    async def sweep(self) -> None:
        """Mark what has passed its end, and give back its bytes."""
        for cache in await asyncio.to_thread(self._caches.expire, int(self._clock())):
            _log.info("cache expired id=%s tenant=%s", cache.id, cache.tenant)
            self._prefixes.pop(cache.id, None)
            if (fill := self._fills.get(cache.id)) is not None:
                fill.cancel()
            self._begin_release(cache.prefix_id)

    async def sweep_forever(self) -> None:
        """Sweep at intervals; a failing sweep is tried again at the next."""
        while True:
            await asyncio.sleep(self._config.sweep_interval_s)
            try:
                await self.sweep()
            except StorageFull as error:
                _log.error("sweep failed error=%s", error)

    def _end_of(self, ttl_s: int) -> int:
        return choose_end(
            int(self._clock()),
            ttl_s=ttl_s,
            expired_at=None,
            default_ttl_s=self._config.default_ttl_s,
            max_ttl_s=self._config.max_ttl_s,
        )

    # Keeping and releasing

    def _begin_fill(
        self, cache: CacheObject, on_progress: Callable[[Progress], None] | None = None
    ) -> asyncio.Task[None]:
        task = asyncio.create_task(self._fill(cache, on_progress), name=f"fill {cache.id}")
        self._fills[cache.id] = task
        task.add_done_callback(lambda _: self._fills.pop(cache.id, None))
        return task

    async def _fill(self, cache: CacheObject, on_progress: Callable[[Progress], None] | None) -> None:
        """Make a pending cache's prefix durable, and say how it went."""
        try:
            status, failure = await self._keep(cache, on_progress)
            await asyncio.to_thread(self._caches.settle, cache.id, status, failure)
        except StorageFull as error:  # of the registry: the row stays pending until it is used
            _log.error("cache not settled id=%s error=%s", cache.id, error)

    async def _keep(
        self, cache: CacheObject, on_progress: Callable[[Progress], None] | None
    ) -> tuple[Status, Failure | None]:
        begun = time.monotonic()
        try:
            prefix = await self._prefix_of(cache)
            async with self._lock(prefix.id):
                kept = await self._engine.keep(prefix, on_progress)
        except MooringError as error:
            _log.error("cache failed id=%s error=%s", cache.id, error)
            kind = "engine_overloaded_error" if isinstance(error, Overloaded) else "server_error"
            return Status.ERROR, Failure(kind, error.message)
        _log.info(
            "cache ready id=%s tokens=%d evaluated_tokens=%d seconds=%.2f",
            cache.id,
            cache.tokens,
            kept.evaluated_tokens,
            time.monotonic() - begun,
        )
        return Status.READY, None

    def _begin_release(self, prefix_id: str) -> None:
        task = asyncio.create_task(self._release(prefix_id), name=f"release {prefix_id[:12]}")
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)

    async def _release(self, prefix_id: str) -> None:
        """Forget a prefix unless another live cache holds it: equal content is stored once."""
        async with self._lock(prefix_id):
            if not await asyncio.to_thread(self._caches.wants, prefix_id):
                await self._engine.release(prefix_id)

    def _lock(self, prefix_id: str) -> asyncio.Lock:
        return self._locks.setdefault(prefix_id, asyncio.Lock())

    # Prefixes

    async def _prefix_of(self, cache: CacheObject) -> Prefix:
        """The cache's prefix under the loaded model."""
        prefix = self._prefixes.get(cache.id)
        if prefix is None:
            conversation = _conversation(cache.messages, cache.tools, cache.created_at)
            prefix = await self._render(cache.tenant, conversation)
            self._remember(cache.id, prefix)
        if prefix.id != cache.prefix_id:
            await asyncio.to_thread(self._caches.set_prefix, cache.id, prefix.id, len(prefix))
        return prefix

    async def _render(self, tenant: str, conversation: Conversation) -> Prefix:
        tokens = await asyncio.to_thread(self._engine.stable_prefix, conversation)
        return Prefix(tenant, tokens)

    def _remember(self, cache_id: str, prefix: Prefix) -> None:
        while len(self._prefixes) >= _REMEMBERED_PREFIXES:
            self._prefixes.pop(next(iter(self._prefixes)))
        self._prefixes[cache_id] = prefix


_REMEMBERED_PREFIXES = 256


def _conversation(
    messages: tuple[Message, ...], tools: tuple[Tool, ...], created_at: int
) -> Conversation:
    return Conversation(messages, tools, datetime.fromtimestamp(created_at, UTC).date())
