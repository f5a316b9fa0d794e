"""The life of cached contexts: create, look up, use, extend, delete. `sweeping.py` ends what is over."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from mooring.config import CachingConfig
from mooring.core.context import CacheObject, NewCache, Page, Status, new_cache_id
from mooring.core.conversation import Conversation
from mooring.core.errors import ContextNotFound, Overloaded
from mooring.core.prefix import Prefix
from mooring.registry.caches import Caches
from mooring.registry.group_commit import GroupCommit
from mooring.registry.ledger import Step, both
from mooring.service.charging import Charging
from mooring.service.expiry import as_of, choose_end
from mooring.service.keeping import Keeper, OnProgress, conversation_of, make_conversation
from mooring.service.limiting import Limiter
from mooring.service.models import Models
from mooring.service.rules import check_messages
from mooring.service.tagging import Tagging
from mooring.service.use import CacheUse, expired, failed

_log = logging.getLogger("mooring.contexts")
_WAITS = 3  # a cache that is updated while it is waited for becomes pending again


@dataclass(frozen=True)
class OpenContext:
    """A cache that is ready for a chat."""

    cache: CacheObject
    conversation: Conversation
    prefix: Prefix


@dataclass(frozen=True)
class Renewal:
    """A cache is getting a new end."""

    end: int
    """Unix seconds."""
    durable: asyncio.Task[None]
    """Until this has ended well, nobody must be told."""


class Contexts:
    """All tenants' caches."""

    def __init__(
        self,
        keeper: Keeper,
        caches: Caches,
        commits: GroupCommit,
        charging: Charging,
        limiter: Limiter,
        tagging: Tagging,
        models: Models,
        config: CachingConfig,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keeper = keeper
        self._caches = caches
        self._commits = commits
        self._charging = charging
        self._limiter = limiter
        self._tagging = tagging
        self._models = models
        self._config = config
        self._clock = clock

    async def create(
        self, tenant: str, new: NewCache, on_progress: OnProgress | None = None
    ) -> CacheObject:
        """Register a cache and begin its fill; returns it `pending`, with its tokens counted.

        Raises:
            InvalidRequest: a field breaks a rule, or the template refuses the messages.
            ModelNotFound: no such model or alias.
            StorageFull: no room for the row.
            QuotaExceeded: the tenant's prepaid balance is used up, or it keeps too much.
        """
        self._models.check(new.model)
        await self._charging.admit(tenant)
        check_messages(new.messages, new.tools)
        now = int(self._clock())
        end = self._choose_end(now, new.ttl_s, new.expired_at)
        prefix = await self._keeper.render(tenant, make_conversation(new.messages, new.tools, now))
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
        bound = await self._bound(tenant, len(prefix))
        await self._commits.run(partial(self._caches.insert, cache, bound))
        _log.info("cache created id=%s tenant=%s tokens=%d", cache.id, tenant, cache.tokens)
        self._keeper.remember(cache.id, prefix)
        self._keeper.fill(cache, on_progress)
        for tag in new.tags:
            await self._tagging.bind(tenant, tag, cache.id)
        return cache

    async def get(self, tenant: str, cache_id: str) -> CacheObject:
        """Raises ContextNotFound."""
        cache = self._caches.recall(tenant, cache_id)
        if cache is None:
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

    async def update(
        self,
        tenant: str,
        cache_id: str,
        *,
        metadata: dict[str, str] | None,
        ttl_s: int | None,
        expired_at: int | None,
    ) -> CacheObject:
        """Change what is given; the cache is `pending` again and goes through the same steps.

        Raises:
            ContextNotFound: no such cache.
            InvalidRequest: the new end is wrong.
            QuotaExceeded: the tenant's prepaid balance is used up, or it keeps too much.
        """
        await self._charging.admit(tenant)  # an update may compute the prefix again
        end, moved, now = None, None, int(self._clock())
        if ttl_s is not None or expired_at is not None:
            end = self._choose_end(now, ttl_s, expired_at)
            bound = await self._bound(tenant, 0)
            moved = both(self._charging.moved(cache_id, end, now), bound)
        change = partial(self._caches.update, tenant, cache_id, metadata=metadata, expired_at=end)
        cache = await self._commits.run(partial(change, also=moved))
        if cache is None:
            raise ContextNotFound(cache_id)
        if as_of(cache, self._clock()).status is Status.PENDING:
            self._keeper.fill_again(cache)
        return as_of(cache, self._clock())

    async def delete(self, tenant: str, cache_id: str) -> None:
        """Raises ContextNotFound. Chats that use the cache go on to their end."""
        over = self._charging.over(cache_id)
        cache = await self._commits.run(partial(self._caches.delete, tenant, cache_id, over))
        if cache is None:
            raise ContextNotFound(cache_id)
        _log.info("cache deleted id=%s tenant=%s", cache_id, tenant)
        self._keeper.drop(cache_id, cache.prefix_id, self._keeper.fills().get(cache_id))

    async def wait(self, tenant: str, cache_id: str) -> CacheObject:
        """The cache, once its fill has ended one way or the other.

        Raises:
            ContextNotFound: no such cache, or it was deleted meanwhile.
        """
        cache = await self.get(tenant, cache_id)
        for _ in range(_WAITS):
            if cache.status is not Status.PENDING:
                break
            fill = self._keeper.fill(cache)
            await asyncio.wait({fill})  # not its result: a cancelled fill must not cancel us
            cache = await self.get(tenant, cache_id)
        return cache

    async def preview(self, tenant: str, use: CacheUse) -> OpenContext:
        """What `open` would give, without waiting for it or changing anything. Raises as it does."""
        cache = await self.named(tenant, use)
        if cache.status is Status.INACTIVE and use.reset_ttl_s is None:
            raise expired(cache)
        if cache.status is Status.ERROR:
            raise failed(cache)
        return OpenContext(cache, conversation_of(cache), await self._keeper.prefix_of(cache))

    async def open(self, tenant: str, use: CacheUse) -> OpenContext:
        """Make a cache ready for a chat: wait while it is pending, revive it if that was asked for.

        Raises:
            ContextNotFound, TagNotFound: no such cache.
            ContextExpired: it is over and the request gives it no new life.
            ContextFailed: its fill had failed.
            Overloaded: its fill could not be brought to an end.
        """
        cache = await self.named(tenant, use)
        if cache.status is Status.INACTIVE:
            if use.reset_ttl_s is None:
                raise expired(cache)
            await self.extend(cache, use.reset_ttl_s).durable
        cache = await self.wait(tenant, cache.id)
        match cache.status:
            case Status.ERROR:
                raise failed(cache)
            case Status.READY:
                prefix = await self._keeper.prefix_of(cache)
                return OpenContext(cache, conversation_of(cache), prefix)
            case _:
                raise Overloaded(f"the cache {cache.id} is not ready; try again shortly")

    def extend(self, cache: CacheObject, ttl_s: int) -> Renewal:
        """Begin to let a cache end `ttl_s` from now, whatever its end was. Raises InvalidRequest.

        If it has expired, swept or not, it is pending again and being filled.
        """
        now = int(self._clock())
        end = self._choose_end(now, ttl_s, None)
        return Renewal(end, asyncio.create_task(self._extend(cache, end, now)))

    async def _extend(self, cache: CacheObject, end: int, now: int) -> None:
        if cache.expired_at == end and cache.status is not Status.INACTIVE:
            return  # it is written: as if this had come before whatever has come since
        moved = self._charging.moved(cache.id, end, now)
        extend = partial(self._caches.extend, cache.id, end, now, moved)
        if not await self._commits.run(extend):
            await self._revive(cache, end, now, moved)

    async def _revive(self, cache: CacheObject, end: int, now: int, moved: Step) -> None:
        bound = await self._bound(cache.tenant, cache.tokens)
        revive = partial(self._caches.revive, cache.id, end, now, both(moved, bound))
        revived = await self._commits.run(revive)
        if revived is not None and revived.status is Status.PENDING:
            _log.info("cache revived id=%s tenant=%s", cache.id, cache.tenant)
            self._keeper.fill(revived)

    def came_again(self, cache: CacheObject) -> None:
        """A chat has brought back a cache's bytes: if it has ended meanwhile, they must go again."""
        self._keeper.release_later(cache.prefix_id)

    async def named(self, tenant: str, use: CacheUse) -> CacheObject:
        """The cache that a chat names, by its id or by a tag."""
        if use.tag is not None:
            return await self.get(tenant, (await self._tagging.get(tenant, use.tag)).cache_id)
        assert use.cache_id is not None
        return await self.get(tenant, use.cache_id)

    async def _bound(self, tenant: str, tokens: int) -> Step | None:
        """What a tenant's caches may hold together, as a step of the change that adds to them.

        Raises PromptTooLong: one cache of so many tokens is more than the tenant may have.
        """
        most = await self._limiter.most_kept(tenant, tokens, self._keeper.bytes_per_token)
        return None if most is None else self._caches.within(tenant, most)

    def _choose_end(self, now: int, ttl_s: int | None, expired_at: int | None) -> int:
        return choose_end(
            now,
            ttl_s=ttl_s,
            expired_at=expired_at,
            default_ttl_s=self._config.default_ttl_s,
            max_ttl_s=self._config.max_ttl_s,
        )
