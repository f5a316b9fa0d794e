"""A figure for each tenant that takes long to add up, as it was a moment ago."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

_log = logging.getLogger("mooring.charging")
_SHARE = 50  # adding up takes one part in so many of the time, at most


@dataclass(frozen=True)
class _Figure:
    amount: int
    fresh_until: float
    """Monotonic."""


class Lately:
    """Who asks gets the last figure at once and may set off the next; only the first is waited for."""

    def __init__(self, add_up: Callable[[str], int]) -> None:
        """`add_up` blocks."""
        self._add_up = add_up
        self._known: dict[str, _Figure] = {}
        self._running: dict[str, asyncio.Task[int]] = {}

    async def get(self, tenant: str) -> int:
        known = self._known.get(tenant)
        if known is None:
            return await self._renew(tenant)
        if time.monotonic() >= known.fresh_until and tenant not in self._running:
            task = asyncio.create_task(self._renew(tenant), name=f"figure of {tenant}")
            self._running[tenant] = task
            task.add_done_callback(lambda ended: self._ended(tenant, ended))
        return known.amount

    async def _renew(self, tenant: str) -> int:
        begun = time.monotonic()
        amount = await asyncio.to_thread(self._add_up, tenant)
        ended = time.monotonic()
        self._known[tenant] = _Figure(amount, ended + _SHARE * (ended - begun))
        return amount

    def _ended(self, tenant: str, task: asyncio.Task[int]) -> None:
        del self._running[tenant]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("figure not added up tenant=%s error=%s", tenant, error)
