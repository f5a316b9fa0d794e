"""Asks workers how they are, one loop for each."""

import asyncio
import random

_LONGEST_S = 30.0
_JITTER = 0.2
TOLERATED = 2
"""Checks in a row that may go without an answer before a worker counts as down: it may be very busy."""


def pause_s(interval_s: float, misses: int, chance: float) -> float:
    """Until the next check, after so many misses in a row; `chance` in [0, 1) spreads many askers."""
    pause = min(interval_s * 2.0 ** min(misses, 16), max(_LONGEST_S, interval_s))
    return pause * (1 + _JITTER * (2 * chance - 1))


class Pulse:
    """When to ask one worker, and what its silence means."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._misses = 0

    def heard(self, well: bool) -> bool:
        """Take one answer in; whether the worker counts as alive now."""
        self._misses = 0 if well else self._misses + 1
        return self._misses < TOLERATED

    async def wait(self, wake: asyncio.Event) -> None:
        """Until the next check is due, or somebody wants it at once."""
        pause = pause_s(self._interval_s, self._misses, random.random())  # noqa: S311 - no secret
        try:
            async with asyncio.timeout(pause):
                await wake.wait()
        except TimeoutError:
            pass
        wake.clear()
