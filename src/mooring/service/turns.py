"""What only one of several servers on one registry should do at a time. A server alone asks nobody."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from mooring.core.errors import MooringError
from mooring.registry.claims import Claims

_log = logging.getLogger("mooring.turns")
_LOOK_AGAIN_S, _LOOK_AGAIN_AT_MOST_S = 0.05, 1.0


class Turns:
    """This server's."""

    def __init__(self, claims: Claims | None = None) -> None:
        """Without claims there are no other servers."""
        self._claims = claims
        self._held: set[str] = set()
        """Those that other servers must leave to us."""
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def is_alone(self) -> bool:
        return self._claims is None

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Nobody else has this turn: no task of this server, and no other server that is alive.

        Raises:
            RegistryFailed: the claim cannot be written.
        """
        async with self._locks.setdefault(name, asyncio.Lock()):
            if self._claims is None:
                yield
                return
            await self._wait_for(self._claims, name)
            self._held.add(name)
            try:
                yield
            finally:
                self._held.discard(name)
                await asyncio.shield(self._free(self._claims, name))

    async def taken_elsewhere(self) -> set[str]:
        """The turns that other servers have."""
        return set() if self._claims is None else await asyncio.to_thread(self._claims.of_others)

    async def renew(self) -> None:
        """A sign of life, due several times in a claim's length. Raises RegistryFailed."""
        if self._claims is not None and self._held:
            await asyncio.to_thread(self._claims.renew, frozenset(self._held))

    async def _wait_for(self, claims: Claims, name: str) -> None:
        pause_s = _LOOK_AGAIN_S
        while not await asyncio.to_thread(claims.take, name):
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LOOK_AGAIN_AT_MOST_S)

    async def _free(self, claims: Claims, name: str) -> None:
        try:
            await asyncio.to_thread(claims.free, name)
        except MooringError as error:  # it ends by itself when nobody renews it
            _log.error("claim not given back name=%s error=%s", name, error)
