"""Limits that several servers on one registry hold together: never passed, used up but for a slice."""

import asyncio
from collections.abc import Callable

import pytest

from mooring.core.errors import RateLimited, RegistryUnavailable
from mooring.core.limits import Limits
from mooring.registry.database import Database
from mooring.registry.quotas import Amounts, Quotas
from mooring.service.limiting import Limiter
from mooring.service.shared_tally import SharedTally
from mooring.service.tally import DAY_S, Limit

pytestmark = pytest.mark.anyio

SERVERS = 3
LONG_S, SHORT_S = 60.0, 0.05


class CountedQuotas(Quotas):
    """How often the registry is asked."""

    asked = 0

    def reserve(
        self, tenant: str, what: str, length_s: int, decide: Callable[[Amounts], int]
    ) -> tuple[int, Amounts]:
        self.asked += 1
        return super().reserve(tenant, what, length_s, decide)


async def none_of_its_own(_tenant: str) -> dict[str, int]:
    return {}


def limiters(database: Database, **limits: int) -> list[Limiter]:
    tallies = [SharedTally(Quotas(database, str(number), LONG_S)) for number in range(SERVERS)]
    return [Limiter(Limits(**limits), none_of_its_own, tally) for tally in tallies]


async def spend(limiter: Limiter, tokens: int) -> bool:
    slot = await limiter.enter("north")
    try:
        await limiter.prompt(slot, tokens)
    except RateLimited as error:
        return error.retry_after_s <= 0
    finally:
        slot.leave()
    return True


async def test_tokens_are_never_more_than_the_limit_and_little_is_stranded(database: Database):
    servers, most = limiters(database, tokens_per_day=10_000), 10_000
    outcomes = await asyncio.gather(*(spend(servers[n % SERVERS], 70) for n in range(300)))
    used = 70 * outcomes.count(True)
    # Each server may hold a slice of a hundredth that it cannot use, or less than a prompt of it.
    assert most - SERVERS * (most // 100) - 70 <= used <= most
    slot = await servers[0].enter("south")
    await servers[0].prompt(slot, most)


async def test_a_small_limit_is_exact(database: Database):
    servers = limiters(database, requests_per_minute=20)

    async def enter(number: int) -> bool:
        try:
            await servers[number % SERVERS].enter("north")
        except RateLimited:
            return False
        return True

    outcomes = await asyncio.gather(*(enter(n) for n in range(60)))
    # As many again, if a minute begins meanwhile.
    assert outcomes.count(True) in range(20, 41)
    assert outcomes.count(True) == 20 or False in outcomes


async def test_the_registry_is_asked_once_for_a_slice(database: Database):
    quotas = CountedQuotas(database, "one", LONG_S)
    tally, limit = SharedTally(quotas), Limit("tokens", 100_000, DAY_S)
    for _ in range(1000):
        assert (await tally.take("north", limit, 10)).taken
    assert quotas.asked <= 11  # ten slices; one more if a day begins meanwhile


async def test_answers_are_counted_for_everybody(database: Database):
    one, two, _ = limiters(database, tokens_per_day=1000)
    slot = await one.enter("north")
    await one.prompt(slot, 100)
    await one.answered(slot, 5000)  # more than is left: given, and nothing is left
    assert not await spend(two, 10)


async def test_headers_tell_what_all_have_used(database: Database):
    one, two, _ = limiters(database, tokens_per_day=1000)
    await spend(one, 300)
    slot = await two.enter("north")
    await two.prompt(slot, 200)
    assert slot.headers["x-ratelimit-remaining-tokens"] == "500"


async def test_places_are_never_too_many_and_come_back(database: Database):
    tallies = [SharedTally(Quotas(database, str(number), LONG_S)) for number in range(SERVERS)]

    async def enter(number: int) -> SharedTally | None:
        tally = tallies[number % SERVERS]
        return tally if await tally.enter("north", 4) else None

    entered = [tally for tally in await asyncio.gather(*map(enter, range(30))) if tally]
    assert len(entered) == 4
    for tally in entered:
        tally.leave("north")
    for tally in tallies:
        await tally.renew()
    again = [await tallies[0].enter("north", 4) for _ in range(5)]
    assert again == [True] * 4 + [False]


async def test_a_place_that_was_left_is_taken_again_without_asking(database: Database):
    tally = SharedTally(Quotas(database, "one", LONG_S))
    assert await tally.enter("north", 1)
    tally.leave("north")
    database.close()  # it could not ask
    assert await tally.enter("north", 1)
    assert not await tally.enter("north", 1)


async def test_places_of_a_dead_server_are_free_after_its_claim(database: Database):
    dead = SharedTally(Quotas(database, "dead", SHORT_S))
    living = SharedTally(Quotas(database, "living", LONG_S))
    assert await dead.enter("north", 1)
    while not await living.enter("north", 1):
        pass


async def test_an_answer_is_given_although_it_cannot_be_counted(database: Database):
    class Away(Quotas):
        def reserve(
            self, tenant: str, what: str, length_s: int, decide: Callable[[Amounts], int]
        ) -> tuple[int, Amounts]:
            raise RegistryUnavailable("away")

    tally, limit = SharedTally(Away(database, "one", LONG_S)), Limit("tokens", 100, DAY_S)
    await tally.add("north", limit, 50)
    with pytest.raises(RegistryUnavailable):
        await tally.take("north", limit, 50)
