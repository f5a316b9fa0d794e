"""What tenants use of their limits, counted by all servers on one registry together.

Each server reserves a slice of what is left and admits from it without asking. So the limit is never
passed; and what one has reserved but not used, at most a hundredth of the limit, is refused to the
others until its span of time is over. Places of running chats are given back once a second.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from mooring.core.errors import MooringError
from mooring.registry.quotas import Amounts, Quotas
from mooring.service.tally import Limit, Reading
from mooring.service.window import Window

_log = logging.getLogger("mooring.limits")
_SLICES = 100


@dataclass
class _Slice:
    """What this server may admit of a limit in a span without asking."""

    window: Window
    """All servers' use, as of the last look."""
    span: int = -1
    left: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One asks for all that wait."""


class SharedTally:
    """Implements `tally.Tally`; who uses it calls `renew` once a second."""

    def __init__(self, quotas: Quotas, timer: Callable[[], float] = time.monotonic) -> None:
        self._quotas = quotas
        self._timer = timer
        self._database_ahead_s = 0.0
        """Of our timer, as of the last look."""
        self._slices: dict[tuple[str, str, int], _Slice] = {}
        """By tenant, what is counted, and length."""
        self._running: Counter[str] = Counter()
        self._places: Counter[str] = Counter()
        """By tenant, those that we have: as many as are running, or more."""
        self._placing = asyncio.Lock()

    async def take(self, tenant: str, limit: Limit, cost: int) -> Reading:
        slice_ = self._slice(tenant, limit)
        async with slice_.lock:
            if self._span(limit) != slice_.span or slice_.left < cost:
                await self._reserve(tenant, limit, slice_, cost)
            taken = slice_.left >= cost
            if taken:
                slice_.left -= cost
            window, now = slice_.window, self._now()
            wait_s = 0.0 if taken else window.wait_s(cost - slice_.left, limit.most, now)
            used = max(0.0, window.used(now) - slice_.left)
            return Reading(taken, used, window.reset_s(now), wait_s)

    async def add(self, tenant: str, limit: Limit, amount: int) -> None:
        slice_ = self._slice(tenant, limit)
        async with slice_.lock:
            if self._span(limit) != slice_.span:
                slice_.left = 0
            covered = min(amount, slice_.left)
            slice_.left -= covered
            if covered == amount:
                return

            def rest(amounts: Amounts) -> int:
                room = limit.most - _window(limit, amounts).used(amounts.now)
                return max(0, min(amount - covered, int(room)))

            try:
                await self._ask(tenant, limit, slice_, rest)
            except MooringError as error:  # the answer has been given
                _log.error("answer not counted tenant=%s tokens=%d error=%s", tenant, amount, error)

    async def enter(self, tenant: str, most: int | None) -> bool:
        if most is None:
            return self._entered(tenant)
        if self._running[tenant] >= most:
            return False
        if self._running[tenant] < self._places[tenant]:
            return self._entered(tenant)
        async with self._placing:
            if self._running[tenant] < self._places[tenant]:
                return self._entered(tenant)
            count = self._running[tenant] + 1
            # Ours from here on: others that leave meanwhile make it too many, never too few.
            if not await asyncio.to_thread(self._quotas.take_places, tenant, count, most):
                return False
            self._places[tenant] = count
            return self._entered(tenant)

    def leave(self, tenant: str) -> None:
        self._running[tenant] -= 1

    async def renew(self) -> None:
        """A sign of life; gives back places that are not taken. Raises RegistryFailed."""
        async with self._placing:
            counts = {tenant: self._running[tenant] for tenant in self._places}
            if not counts:
                return
            self._places = Counter({tenant: count for tenant, count in counts.items() if count})
            self._running = +self._running
            await asyncio.to_thread(self._quotas.renew_places, counts)

    def _entered(self, tenant: str) -> bool:
        self._running[tenant] += 1
        return True

    async def _reserve(self, tenant: str, limit: Limit, slice_: _Slice, cost: int) -> None:
        """What is missing, and a slice more if there is room."""
        span, left = slice_.span, slice_.left

        def decide(amounts: Amounts) -> int:
            missing = cost - (left if amounts.now // limit.length_s == span else 0)
            room = int(limit.most - _window(limit, amounts).used(amounts.now))
            return 0 if room < missing else min(room, max(missing, limit.most // _SLICES))

        await self._ask(tenant, limit, slice_, decide, admits=True)

    async def _ask(
        self,
        tenant: str,
        limit: Limit,
        slice_: _Slice,
        decide: Callable[[Amounts], int],
        *,
        admits: bool = False,
    ) -> None:
        """Add what `decide` says to what is used, for what is admitted later if it `admits`."""
        more, amounts = await asyncio.to_thread(
            self._quotas.reserve, tenant, limit.what, limit.length_s, decide
        )
        self._database_ahead_s = amounts.now - self._timer()
        span = int(amounts.now // limit.length_s)
        if span != slice_.span:  # what was left of the span before is not used any more
            slice_.span, slice_.left = span, 0
        slice_.window = _window(limit, amounts)
        slice_.left += more if admits else 0

    def _now(self) -> float:
        return self._timer() + self._database_ahead_s

    def _span(self, limit: Limit) -> int:
        return int(self._now() // limit.length_s)

    def _slice(self, tenant: str, limit: Limit) -> _Slice:
        key = tenant, limit.what, limit.length_s
        if key not in self._slices:
            self._slices[key] = _Slice(Window(limit.length_s))
        return self._slices[key]


def _window(limit: Limit, amounts: Amounts) -> Window:
    span = int(amounts.now // limit.length_s)
    return Window(limit.length_s, span, amounts.used, amounts.before)
