"""Limits of tenants. The windows run on the real clock; nothing here waits for it."""

import pytest

from mooring.core.errors import PromptTooLong, RateLimited
from mooring.core.limits import Limits
from mooring.service.limiting import Limiter

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def make(own: dict[str, dict[str, int]] | None = None, **limits: int) -> Limiter:
    async def own_of(tenant: str) -> dict[str, int]:
        return (own or {}).get(tenant, {})

    return Limiter(Limits(**limits), own_of)


async def test_without_limits_everything_is_admitted_and_nothing_reported():
    limiter = make()
    for _ in range(1000):
        slot = await limiter.enter("north")
        await limiter.prompt(slot, 10**9)
        assert slot.headers == {}


async def test_requests_at_once_are_counted_until_they_leave():
    limiter = make(concurrent_requests=2)
    first, _ = await limiter.enter("north"), await limiter.enter("north")
    with pytest.raises(RateLimited, match="2 requests are running") as caught:
        await limiter.enter("north")
    assert caught.value.retry_after_s > 0
    await limiter.enter("south")
    first.leave()
    first.leave()  # once counts
    await limiter.enter("north")
    with pytest.raises(RateLimited):
        await limiter.enter("north")


async def test_requests_a_minute_are_counted_for_each_tenant():
    limiter = make(requests_per_minute=1000)
    slot = await limiter.enter("north")
    assert slot.headers["x-ratelimit-limit-requests"] == "1000"
    assert slot.headers["x-ratelimit-remaining-requests"] == "999"
    assert slot.headers["x-ratelimit-reset-requests"].endswith("s")
    with pytest.raises(RateLimited, match="1000 requests a minute") as caught:
        for _ in range(2100):  # twice the limit, in case a minute begins meanwhile
            await limiter.enter("north")
    assert 0 < caught.value.retry_after_s <= 61
    assert caught.value.headers["x-ratelimit-remaining-requests"] == "0"
    await limiter.enter("south")


async def test_a_refused_request_holds_no_place():
    limiter = make(requests_per_minute=1, concurrent_requests=1)
    (await limiter.enter("north")).leave()
    with pytest.raises(RateLimited, match="a minute"):
        for _ in range(3):
            (await limiter.enter("north")).leave()
    assert not limiter._tally._running


@pytest.mark.parametrize("limit", ["tokens_per_minute", "tokens_per_day"])
async def test_tokens_are_counted_by_prompt_and_answer(limit):
    limiter = make(**{limit: 100})
    slot = await limiter.enter("north")
    await limiter.prompt(slot, 40)
    assert slot.headers["x-ratelimit-remaining-tokens"] == "60"
    await limiter.answered(slot, 500)  # more than is left: given, and nothing is left
    second = await limiter.enter("north")
    with pytest.raises(RateLimited, match="tokens a"):
        for _ in range(3):
            await limiter.prompt(second, 100)
    await limiter.prompt(await limiter.enter("south"), 100)


@pytest.mark.parametrize(
    "limits", [{"tokens_per_minute": 100}, {"tokens_per_day": 100}, {"context_tokens": 100}]
)
async def test_a_prompt_that_can_never_be_admitted_is_too_long(limits):
    limiter = make(**limits)
    slot = await limiter.enter("north")
    with pytest.raises(PromptTooLong):
        await limiter.prompt(slot, 101)
    await limiter.prompt(slot, 100)


async def test_a_tenants_own_limits_override_the_configured():
    own = {"north": {"concurrent_requests": 5}, "east": {"concurrent_requests": 0}}
    limiter = make(own, concurrent_requests=1)
    for _ in range(5):
        await limiter.enter("north")
    for _ in range(50):
        await limiter.enter("east")
    for tenant in ("north", "south"):
        with pytest.raises(RateLimited):
            for _ in range(2):
                await limiter.enter(tenant)
