"""Holds tenants to their limits. What one uses leaves the others theirs."""

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from mooring.core.errors import PromptTooLong, RateLimited
from mooring.core.limits import Limits

_CONCURRENT_RETRY_S = 1.0


@dataclass
class Slot:
    """One chat's place among those that its tenant may have at once."""

    tenant: str
    limits: Limits
    running: Counter[str]
    headers: dict[str, str] = field(default_factory=dict)
    """OpenAI's `x-ratelimit-*`, as of the admission; only for limits that there are."""
    _left: bool = False

    def leave(self) -> None:
        """The chat has ended, however it did. Once counts."""
        if not self._left:
            self._left = True
            self.running[self.tenant] -= 1
            if not self.running[self.tenant]:
                del self.running[self.tenant]


class Limiter:
    """All tenants' use of the last minute and day, in this process.

    Prompts are admitted by what is left; answers are counted when they end. So a tenant may pass a limit
    on tokens by the answers that were running when it was reached.
    """

    def __init__(
        self,
        defaults: Limits,
        own: Callable[[str], Awaitable[Mapping[str, int]]],
        now: Callable[[], float] = time.time,
    ) -> None:
        """`own` are a tenant's overrides; `now` is the clock that the library of the windows uses."""
        self._defaults = defaults
        self._own = own
        self._now = now
        self._windows = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._running: Counter[str] = Counter()

    async def limits(self, tenant: str) -> Limits:
        return self._defaults.overridden(dict(await self._own(tenant)))

    async def enter(self, tenant: str) -> Slot:
        """Raises RateLimited: too many chats at once, or in this minute."""
        limits = await self.limits(tenant)
        most = limits.concurrent_requests
        if most is not None and self._running[tenant] >= most:
            raise RateLimited(
                f"{most} requests are running already, as many as this tenant may have at once",
                retry_after_s=_CONCURRENT_RETRY_S,
            )
        slot = Slot(tenant, limits, self._running)
        if limits.requests_per_minute is not None:
            item = RateLimitItemPerMinute(limits.requests_per_minute, namespace="requests")
            self._take(item, slot, 1, "requests", f"{limits.requests_per_minute} requests a minute")
        self._running[tenant] += 1
        return slot

    def prompt(self, slot: Slot, tokens: int) -> None:
        """Raises RateLimited: not now. PromptTooLong: never."""
        longest = slot.limits.context_tokens
        if longest is not None and tokens > longest:
            raise PromptTooLong(
                f"messages: the prompt has {tokens} tokens, this tenant's may have {longest}",
                param="messages",
            )
        for item, name in self._token_windows(slot.limits):
            if tokens > item.amount:
                raise PromptTooLong(
                    f"messages: the prompt has {tokens} tokens, more than the {name} of this tenant",
                    param="messages",
                )
            self._take(item, slot, tokens, "tokens", name)

    async def most_kept(self, tenant: str, tokens: int, bytes_per_token: int) -> int | None:
        """The tokens that a tenant's caches may hold together; None sets no bound.

        Raises:
            PromptTooLong: `tokens` are more than one of its caches may have.
        """
        limits = await self.limits(tenant)
        if limits.context_tokens is not None and tokens > limits.context_tokens:
            raise PromptTooLong(
                f"messages: {tokens} tokens, this tenant's caches may have {limits.context_tokens}",
                param="messages",
            )
        bounds = [] if limits.cached_tokens is None else [limits.cached_tokens]
        if limits.cached_bytes is not None:
            bounds.append(limits.cached_bytes // bytes_per_token)
        return min(bounds, default=None)

    def answered(self, slot: Slot, tokens: int) -> None:
        """Count an answer. What is over the limit is given."""
        for item, _ in self._token_windows(slot.limits):
            left = self._windows.get_window_stats(item, slot.tenant).remaining
            if counted := min(tokens, left):
                self._windows.hit(item, slot.tenant, cost=counted)

    def _token_windows(self, limits: Limits) -> list[tuple[RateLimitItem, str]]:
        windows: list[tuple[RateLimitItem, str]] = []
        if limits.tokens_per_day is not None:
            day = RateLimitItemPerDay(limits.tokens_per_day, namespace="tokens")
            windows.append((day, f"{limits.tokens_per_day} tokens a day"))
        if limits.tokens_per_minute is not None:
            minute = RateLimitItemPerMinute(limits.tokens_per_minute, namespace="tokens")
            windows.append((minute, f"{limits.tokens_per_minute} tokens a minute"))
        return windows

    def _take(self, item: RateLimitItem, slot: Slot, cost: int, what: str, name: str) -> None:
        taken = self._windows.hit(item, slot.tenant, cost=cost)
        stats = self._windows.get_window_stats(item, slot.tenant)
        reset_s = max(0.0, stats.reset_time - self._now())
        slot.headers |= {
            f"x-ratelimit-limit-{what}": str(item.amount),
            f"x-ratelimit-remaining-{what}": str(stats.remaining),
            f"x-ratelimit-reset-{what}": f"{reset_s:.3f}s",
        }
        if not taken:
            raise RateLimited(
                f"this tenant's limit of {name} is reached",
                retry_after_s=reset_s,
                headers=slot.headers,
            )
