"""One of several servers on a registry: shows that it lives, and catches up after an outage."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from mooring.core.errors import MooringError

_log = logging.getLogger("mooring.replica")
_PAUSE_S = 1.0
_SIGNS_A_CLAIM = 3

Duty = Callable[[], Awaitable[None]]


class Replica:
    """Does what is due, again and again, on the event loop."""

    def __init__(self, duties: list[Duty], claim_s: float) -> None:
        """`claim_s` is how long others take us for alive without a sign of it."""
        self._duties = duties
        self._pause_s = min(_PAUSE_S, claim_s / _SIGNS_A_CLAIM)
        self._failing: set[int] = set()

    async def live_forever(self) -> None:
        while True:
            await self.do_duties()
            await asyncio.sleep(self._pause_s)

    async def do_duties(self) -> None:
        """Each once; one that fails is due again next time."""
        for number, duty in enumerate(self._duties):
            try:
                await duty()
            except MooringError as error:
                if number not in self._failing:  # once for each time that the registry is away
                    _log.error("registry not reached error=%s", error)
                self._failing.add(number)
            else:
                self._failing.discard(number)
