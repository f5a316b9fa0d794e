"""Holds tenants to their limits. What one uses leaves the others theirs."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from mooring.core.errors import PromptTooLong, RateLimited
from mooring.core.limits import Limits
from mooring.service.tally import DAY_S, MINUTE_S, Limit, LocalTally, Tally

_CONCURRENT_RETRY_S = 1.0


@dataclass
class Slot:
    """One chat's place among those that its tenant may have at once."""

    tenant: str
    limits: Limits
    tally: Tally
    headers: dict[str, str] = field(default_factory=dict)
    """OpenAI's `x-ratelimit-*`, as of the admission; only for limits that there are."""
    _left: bool = False

    def leave(self) -> None:
        """The chat has ended, however it did. Once counts."""
        if not self._left:
            self._left = True
            self.tally.leave(self.tenant)


class Limiter:
    """Admits what all tenants' use of the last minute and day leaves.

    Prompts are admitted by what is left; answers are counted when they end. So a tenant may pass a limit
    on tokens by the answers that were running when it was reached.
    """

    def __init__(
        self,
        defaults: Limits,
        own: Callable[[str], Awaitable[Mapping[str, int]]],
        tally: Tally | None = None,
    ) -> None:
        """`own` are a tenant's overrides; without a tally, this process counts for itself."""
        self._defaults = defaults
        self._own = own
        self._tally = tally or LocalTally()

    async def limits(self, tenant: str) -> Limits:
        own = await self._own(tenant)
        return self._defaults.overridden(own) if own else self._defaults

    async def enter(self, tenant: str) -> Slot:
        """Raises RateLimited: too many chats at once, or in this minute."""
        limits = await self.limits(tenant)
        most = limits.concurrent_requests
        if not await self._tally.enter(tenant, most):
            raise RateLimited(
                f"{most} requests are running already, as many as this tenant may have at once",
                retry_after_s=_CONCURRENT_RETRY_S,
            )
        slot = Slot(tenant, limits, self._tally)
        if limits.requests_per_minute is not None:
            try:
                await self._take(Limit("requests", limits.requests_per_minute, MINUTE_S), slot, 1)
            except BaseException:
                slot.leave()
                raise
        return slot

    async def prompt(self, slot: Slot, tokens: int) -> None:
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
            await self._take(limit, slot, tokens)

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

    async def answered(self, slot: Slot, tokens: int) -> None:
        """Count an answer. What is over the limit is given."""
        for limit in _token_limits(slot.limits):
            await self._tally.add(slot.tenant, limit, tokens)

    async def _take(self, limit: Limit, slot: Slot, cost: int) -> None:
        reading = await self._tally.take(slot.tenant, limit, cost)
        slot.headers |= {
            f"x-ratelimit-limit-{limit.what}": str(limit.most),
            f"x-ratelimit-remaining-{limit.what}": str(max(0, int(limit.most - reading.used))),
            f"x-ratelimit-reset-{limit.what}": f"{reading.reset_s:.3f}s",
        }
        if not reading.taken:
            raise RateLimited(
                f"this tenant's limit of {limit.name} is reached",
                retry_after_s=reading.wait_s,
                headers=slot.headers,
            )


def _token_limits(limits: Limits) -> list[Limit]:
    """The longer window first: what a client is told last is the shorter one's."""
    found = []
    if limits.tokens_per_day is not None:
        found.append(Limit("tokens", limits.tokens_per_day, DAY_S))
    if limits.tokens_per_minute is not None:
        found.append(Limit("tokens", limits.tokens_per_minute, MINUTE_S))
    return found
