"""What tenants use of their limits, counted in this process: for the one server of a registry."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mooring.service.window import Window

MINUTE_S, DAY_S = 60, 86_400


@dataclass(frozen=True)
class Limit:
    """At most so much of something in a while."""

    what: str
    """`requests` or `tokens`."""
    most: int
    length_s: int

    @property
    def name(self) -> str:
        return f"{self.most} {self.what} a {'minute' if self.length_s == MINUTE_S else 'day'}"


@dataclass(frozen=True)
class Reading:
    """What came of taking something."""

    taken: bool
    used: float
    reset_s: float
    """Until nothing is used, if nothing else is."""
    wait_s: float
    """Until what was not taken can be."""


class Tally(Protocol):
    """Counts, for all tenants."""

    async def take(self, tenant: str, limit: Limit, cost: int) -> Reading:
        """Use something if no more than the limit is used then. `cost` is not more than the limit."""

    async def add(self, tenant: str, limit: Limit, amount: int) -> None:
        """Use something that cannot be refused any more; the limit is reached at most."""

    async def enter(self, tenant: str, most: int | None) -> bool:
        """Take a place among so many; without a bound it is counted all the same."""

    def leave(self, tenant: str) -> None:
        """Give a place back."""


class LocalTally:
    """Implements Tally."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._windows: dict[tuple[str, str, int], Window] = {}
        """By tenant, what is counted, and length."""
        self._running: Counter[str] = Counter()

    async def take(self, tenant: str, limit: Limit, cost: int) -> Reading:
        window, now = self._window(tenant, limit), self._now()
        taken = window.take(cost, limit.most, now)
        wait_s = 0.0 if taken else window.wait_s(cost, limit.most, now)
        return Reading(taken, window.used(now), window.reset_s(now), wait_s)

    async def add(self, tenant: str, limit: Limit, amount: int) -> None:
        self._window(tenant, limit).add(amount, limit.most, self._now())

    async def enter(self, tenant: str, most: int | None) -> bool:
        if most is not None and self._running[tenant] >= most:
            return False
        self._running[tenant] += 1
        return True

    def leave(self, tenant: str) -> None:
        self._running[tenant] -= 1
        if not self._running[tenant]:
            del self._running[tenant]

    def _window(self, tenant: str, limit: Limit) -> Window:
        key = tenant, limit.what, limit.length_s
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = Window(limit.length_s)
        return window
