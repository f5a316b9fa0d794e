"""Tags: stable names under which caches are renewed while chats go on."""

import asyncio
import time
from collections.abc import Callable, Sequence

from mooring.core.context import Page, Tag
from mooring.core.errors import ContextNotFound, TagNotFound
from mooring.registry.caches import Caches
from mooring.registry.tags import Tags


class Tagging:
    """All tenants' tags."""

    def __init__(self, tags: Tags, caches: Caches, clock: Callable[[], float] = time.time) -> None:
        self._tags = tags
        self._caches = caches
        self._clock = clock

    async def bind(self, tenant: str, name: str, cache_id: str) -> Tag:
        """Bind a name to a cache, away from the one it was bound to. Raises ContextNotFound."""
        if await asyncio.to_thread(self._caches.get, tenant, cache_id) is None:
            raise ContextNotFound(cache_id, param="cache_id")
        tag = Tag(tenant, name, cache_id, int(self._clock()))
        return await asyncio.to_thread(self._tags.bind, tag)

    async def get(self, tenant: str, name: str) -> Tag:
        """Raises TagNotFound."""
        tag = await asyncio.to_thread(self._tags.get, tenant, name)
        if tag is None:
            raise TagNotFound(name)
        return tag

    async def list(self, tenant: str, page: Page) -> Sequence[Tag]:
        """Raises TagNotFound for a page beside a tag that is not there."""
        found = await asyncio.to_thread(self._tags.list, tenant, page)
        if found is None:
            raise TagNotFound(page.after or page.before or "")
        return found

    async def delete(self, tenant: str, name: str) -> None:
        """Remove a tag; one that never existed is as removed as any other."""
        await asyncio.to_thread(self._tags.delete, tenant, name)
