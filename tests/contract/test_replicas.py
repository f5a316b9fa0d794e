"""Two servers on one registry, each with an engine and a data directory of its own."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from services import NOW, TENANT, Clock, Services, held, until
from services import serving as serving_on

from mooring.core.charge import ChargeKind
from mooring.core.context import CacheObject, Status
from mooring.core.errors import ContextNotFound, QuotaExceeded
from mooring.core.usage import Usage
from mooring.engine.interface import Source
from mooring.registry.caches import Caches
from mooring.registry.database import Database
from mooring.registry.group_commit import GroupCommit
from mooring.registry.ledger import Ledger
from mooring.service.charging import Charging, ChatBill
from mooring.service.pricing import load_plans, plan_to_json
from mooring.service.use import CacheUse

pytestmark = pytest.mark.anyio

TEXT = "the harbour " * 40
Pair = tuple[Services, Services]


@pytest.fixture
def replicas(postgres: sa.URL, tiny_model: Path, tmp_path: Path):
    """Two servers that live as long as the test needs them; none shows signs of life by itself."""

    @asynccontextmanager
    async def start(claim_s: float = 60.0) -> AsyncIterator[Pair]:
        clock = Clock()
        async with AsyncExitStack() as stack:
            servers = []
            for name in ("one", "two"):
                folder = tmp_path / name
                folder.mkdir(exist_ok=True)
                servers.append(
                    await stack.enter_async_context(
                        serving_on(tiny_model, folder, clock, where=postgres, claim_s=claim_s)
                    )
                )
            yield servers[0], servers[1]

    return start


def counted_keeps(services: Services) -> list[str]:
    """Ids of the prefixes that its engine was asked to keep."""
    kept, keep = [], services.engine.keep

    async def counting(prefix, *rest):
        kept.append(prefix.id)
        return await keep(prefix, *rest)

    services.engine.keep = counting
    return kept


def kinds(ledger: Ledger) -> list[str]:
    return sorted(line.kind.value for line in ledger.lines(TENANT))


# Creation


async def test_a_context_is_filled_by_one_server_while_the_other_waits(replicas):
    async with replicas() as (one, two):
        kept = counted_keeps(two)
        with held(one.engine._context, "decode") as decode:
            cache = await one.create(TEXT)
            await until(decode.reached.is_set)
            waiting = asyncio.create_task(two.contexts.wait(TENANT, cache.id))
            await two.sweeper.sweep()  # sees it pending, and leaves it
            assert not waiting.done()
        assert (await waiting).status is Status.READY
        assert kept == []
        assert kinds(one.ledger) == ["creation"]


async def test_a_context_made_by_one_server_is_used_on_the_other(replicas):
    async with replicas() as (one, two):
        cache = await one.ready(TEXT)
        first = await two.ask(cache)  # from the messages in the registry, by an engine that has no bytes
        assert (first.source, first.cached_tokens) == (Source.COMPUTED, 0)
        assert (await two.ask(cache)).cached_tokens == cache.tokens
        assert (await two.ask(cache, reset_ttl_s=500)).hit.expired_at == NOW + 500
        assert (await one.contexts.get(TENANT, cache.id)).expired_at == NOW + 500


async def test_equal_contexts_made_on_two_servers_are_computed_in_turn(replicas):
    """On one engine that both use, the second finds it done."""
    async with replicas() as (one, two):
        kept = counted_keeps(two)
        with held(one.engine._context, "decode") as decode:
            first = await one.create(TEXT)
            await until(decode.reached.is_set)
            second = await two.create(TEXT)
            waiting = asyncio.create_task(two.contexts.wait(TENANT, second.id))
            for _ in range(5):
                await two.sweeper.sweep()
            assert kept == []
        assert (await waiting).status is Status.READY
        assert (await one.contexts.wait(TENANT, first.id)).status is Status.READY
        assert kept == [second.prefix_id]


async def test_what_a_dead_server_was_filling_is_taken_over_and_charged_once(replicas):
    async with replicas(claim_s=0.5) as (one, two):
        with held(one.engine._context, "decode") as decode:
            cache = await one.create(TEXT)
            await until(decode.reached.is_set)
            assert (await two.contexts.wait(TENANT, cache.id)).status is Status.READY
            assert kinds(two.ledger) == ["creation"]
        await one.settled()  # it was not dead after all
        assert kinds(one.ledger) == ["creation"]
        assert (await one.contexts.get(TENANT, cache.id)).status is Status.READY


async def test_a_sweep_takes_over_what_nobody_waits_for(replicas):
    async with replicas(claim_s=0.5) as (one, two):
        with held(one.engine._context, "decode") as decode:
            cache = await one.create(TEXT)
            await until(decode.reached.is_set)
            while (await two.contexts.get(TENANT, cache.id)).status is Status.PENDING:
                await two.sweeper.sweep()
                await asyncio.sleep(0.01)
            assert two.on_disk(cache)


# The end of a life


async def test_expiry_and_its_storage_happen_once_whoever_sweeps(replicas):
    async with replicas() as (one, two):
        caches = [await one.ready(f"{number} {TEXT}") for number in range(6)]
        one.clock.now = NOW + 100
        await asyncio.gather(*(server.sweeper.sweep() for server in (one, two) * 3))
        storage = [line for line in one.ledger.lines(TENANT) if line.kind is ChargeKind.STORAGE]
        assert sorted(line.cache_id for line in storage) == sorted(cache.id for cache in caches)
        assert {line.quantity for line in storage} == {2 * caches[0].tokens}
        assert one.ledger.open_lives() == []


async def test_every_server_gives_back_what_one_has_ended(replicas):
    async with replicas() as (one, two):
        expired, deleted = await one.ready(TEXT), await one.ready("other " + TEXT, ttl_s=1000)
        for cache in (expired, deleted):
            await two.contexts.open(TENANT, CacheUse(cache.id))
            await two.engine.keep(await two.keeper.prefix_of(cache))
            assert two.on_disk(cache)
        one.clock.now = NOW + 100
        await one.sweeper.sweep()
        await one.contexts.delete(TENANT, deleted.id)
        await two.sweeper.sweep()
        await two.settled()
        assert (two.on_disk(expired), two.on_disk(deleted)) == (False, False)
        await one.settled()
        assert (one.on_disk(expired), one.on_disk(deleted)) == (False, False)


async def test_a_revival_elsewhere_keeps_the_bytes(replicas):
    async with replicas() as (one, two):
        cache = await one.ready(TEXT)
        one.clock.now = NOW + 100
        await one.sweeper.sweep()
        assert (await two.ask(cache, reset_ttl_s=50)).cached_tokens == cache.tokens
        await one.sweeper.sweep()
        await two.sweeper.sweep()
        await two.settled()
        assert two.on_disk(cache)
        assert (await one.contexts.get(TENANT, cache.id)).status is Status.READY


async def test_a_fill_is_stopped_when_its_context_is_deleted_elsewhere(replicas):
    async with replicas() as (one, two):
        with held(one.engine._context, "decode") as decode:
            cache = await one.create("the harbour " * 300)
            await until(decode.reached.is_set)
            await two.sweeper.sweep()
            assert two.keeper.fills() == {}, "what is being filled elsewhere is not waited for"
            await two.contexts.delete(TENANT, cache.id)
            await one.sweeper.sweep()
            assert cache.id not in one.keeper.fills() or one.keeper.fills()[cache.id].cancelling()
        await one.settled()
        assert not one.on_disk(cache)
        assert one.ledger.lines(TENANT) == []


# What is remembered


async def test_what_one_changes_the_other_sees_at_once(replicas):
    async with replicas() as (one, two):
        cache = await one.ready(TEXT)
        assert await two.contexts.get(TENANT, cache.id) == cache
        changes = {"metadata": {"edition": "2"}, "ttl_s": 70, "expired_at": None}
        await one.contexts.update(TENANT, cache.id, **changes)
        await one.contexts.wait(TENANT, cache.id)
        seen = await two.contexts.get(TENANT, cache.id)
        assert seen == replace(cache, metadata={"edition": "2"}, expired_at=NOW + 70)
        await one.contexts.delete(TENANT, cache.id)
        with pytest.raises(ContextNotFound):
            await two.contexts.get(TENANT, cache.id)


async def test_another_plan_is_everybodys_after_a_sweep(replicas):
    async with replicas() as (one, two):
        charging = two.chat._charging
        other = replace(charging.plan, name="other")
        one.ledger.put_in_force(plan_to_json(other), NOW)
        await two.sweeper.sweep()
        assert charging.plan == other
        one.ledger.put_in_force(plan_to_json(other), NOW + 9)  # as a server with the same does
        assert len(one.ledger.plans()) == 1


async def test_a_balance_that_one_has_spent_is_spent_for_all(postgres: sa.URL):
    plan = load_plans({})["dollar-2025"]
    databases = [Database(postgres, connections=2) for _ in range(2)]
    one, two = [
        Charging(Ledger(database), GroupCommit(database), plan, overdraft=0) for database in databases
    ]
    await one.top_up(TENANT, 10_000, "a payment")
    await two.charge(ChatBill("chatcmpl-1", TENANT, "m", Usage(1, 0, 0), None, None))
    await two.admit(TENANT)
    await one.charge(ChatBill("chatcmpl-2", TENANT, "m", Usage(1000, 0, 0), None, None))
    with pytest.raises(QuotaExceeded):
        await two.admit(TENANT)
    for database in databases:
        database.close()


async def test_what_a_tenant_may_keep_holds_across_servers(postgres: sa.URL):
    databases = [Database(postgres, connections=4) for _ in range(2)]
    registries = [Caches(database) for database in databases]

    def create(number: int) -> bool:
        caches = registries[number % 2]
        cache = CacheObject(
            f"cache-{number}", TENANT, "m", (), (), "", "", None, NOW, NOW + 9, Status.PENDING, 10, "p"
        )
        try:
            caches.insert(cache, caches.within(TENANT, 55))
        except QuotaExceeded:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(create, range(24))).count(True) == 5
    for database in databases:
        database.close()
