"""Ends what is past its end, goes on with what is pending, and gives back bytes that no cache wants."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from mooring.core.errors import MooringError
from mooring.registry.caches import Caches
from mooring.service.charging import Charging
from mooring.service.keeping import Keeper

_log = logging.getLogger("mooring.sweeping")


class Sweeper:
    """Works on all tenants' caches, at intervals. Several servers may sweep one registry."""

    def __init__(
        self,
        keeper: Keeper,
        caches: Caches,
        charging: Charging,
        interval_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keeper = keeper
        self._caches = caches
        self._charging = charging
        self._interval_s = interval_s
        self._clock = clock

    async def resume(self) -> None:
        """After a start: go on with what was pending, and forget bytes that no cache wants."""
        await asyncio.to_thread(self._caches.hear_endings)  # what is not wanted now is not told any more
        await self._keeper.release_unwanted()
        await self.sweep()

    async def run(self) -> None:
        """Sweep at intervals; a failing sweep is tried again at the next."""
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.sweep()
            except MooringError as error:
                _log.error("sweep failed error=%s", error)

    async def sweep(self) -> None:
        """Mark what has passed its end and give back its bytes; fill what is pending.

        Of several servers each marks what no other has, and hears from the others what has ended.
        """
        shared = self._caches.are_shared
        if shared:
            await asyncio.to_thread(self._charging.recall)
        running = self._keeper.fills()  # a cache revived behind our back has a newer one
        now, charge = int(self._clock()), self._charging.over
        for over in await asyncio.to_thread(self._caches.expire, now, charge):
            _log.info("cache expired id=%s tenant=%s", over.id, over.tenant)
            self._keeper.drop(over.id, over.prefix_id, running.get(over.id))
        if shared:
            await self._drop_what_others_ended(running)
        self._keeper.release_again()
        elsewhere = await self._keeper.kept_elsewhere()
        for cache in await asyncio.to_thread(self._caches.pending):
            if cache.prefix_id not in elsewhere:
                self._keeper.fill(cache)

    async def _drop_what_others_ended(self, running: Mapping[str, asyncio.Task[None]]) -> None:
        endings = await asyncio.to_thread(self._caches.hear_endings)
        if not endings:
            return
        live = await asyncio.to_thread(self._caches.live, [ending.cache_id for ending in endings])
        for ending in endings:
            fill = None if ending.cache_id in live else running.get(ending.cache_id)
            self._keeper.drop(ending.cache_id, ending.prefix_id, fill)
