"""Holds tenants to their limits. What one uses leaves the others theirs."""

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from mooring.core.errors import PromptTooLong, RateLimited
from mooring.core.limits import Limits
from mooring.service.window import Window

_CONCURRENT_RETRY_S = 1.0
_MINUTE_S, _DAY_S = 60, 86_400


@dataclass(frozen=True)
class _Limit:
    """At most so much of something in a while."""

    what: str
    """`requests` or `tokens`."""
    most: int
    length_s: int

    @property
    def name(self) -> str:
        return f"{self.most} {self.what} a {'minute' if self.length_s == _MINUTE_S else 'day'}"


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
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`own` are a tenant's overrides."""
        self._defaults = defaults
        self._own = own
        self._now = now
        self._windows: dict[tuple[str, str, int], Window] = {}
        """By tenant, what is counted, and length."""
        self._running: Counter[str] = Counter()

    async def limits(self, tenant: str) -> Limits:
        own = await self._own(tenant)
        return self._defaults.overridden(own) if own else self._defaults

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
            self._take(_Limit("requests", limits.requests_per_minute, _MINUTE_S), slot, 1)
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
        for limit in _token_limits(slot.limits):
            if tokens > limit.most:
                raise PromptTooLong(
                    f"messages: the prompt has {tokens} tokens, this tenant may use {limit.name}",
                    param="messages",
                )
            self._take(limit, slot, tokens)

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
        for limit in _token_limits(slot.limits):
            self._window(slot.tenant, limit).add(tokens, limit.most, self._now())

    def _take(self, limit: _Limit, slot: Slot, cost: int) -> None:
        window, now = self._window(slot.tenant, limit), self._now()
        taken = window.take(cost, limit.most, now)
        slot.headers |= {
            f"x-ratelimit-limit-{limit.what}": str(limit.most),
            f"x-ratelimit-remaining-{limit.what}": str(int(limit.most - window.used(now))),
            f"x-ratelimit-reset-{limit.what}": f"{window.reset_s(now):.3f}s",
        }
        if not taken:
            raise RateLimited(
                f"this tenant's limit of {limit.name} is reached",
                retry_after_s=window.wait_s(cost, limit.most, now),
                headers=slot.headers,
            )

    def _window(self, tenant: str, limit: _Limit) -> Window:
        key = tenant, limit.what, limit.length_s
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = Window(limit.length_s)
        return window


def _token_limits(limits: Limits) -> list[_Limit]:
    """The longer window first: what a client is told last is the shorter one's."""
    found = []
    if limits.tokens_per_day is not None:
        found.append(_Limit("tokens", limits.tokens_per_day, _DAY_S))
    if limits.tokens_per_minute is not None:
        found.append(_Limit("tokens", limits.tokens_per_minute, _MINUTE_S))
    return found
