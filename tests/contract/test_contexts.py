"""The life of caches over a real engine and a real registry, by a clock that the test sets.

A cache that the registry calls ready has its bytes on disk, and one that has ended has none.
"""

import asyncio
import logging
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from services import NOW, OTHER, QUESTION, TENANT, Clock, Serving, held, rename_table, until
from services import serving as serving_on
from templates import PRINTS_THE_DATE

from mooring.core.charge import ChargeKind
from mooring.core.context import Page, Status
from mooring.core.errors import (
    ContextExpired,
    ContextFailed,
    ContextNotFound,
    EngineFailed,
    PromptTooLong,
    QuotaExceeded,
    RegistryFailed,
)
from mooring.engine.interface import ChoiceFinished, Delta, Generation, Sampling, Source
from mooring.registry.database import Transaction
from mooring.service.chat import ChatRequest
from mooring.service.keeping import make_conversation
from mooring.service.use import CacheUse
from mooring.testing import TINY, write_random_model

pytestmark = pytest.mark.anyio


@pytest.fixture
def serving(where: Path | sa.URL) -> Serving:
    """Services on one registry, in either database."""
    return partial(serving_on, where=where)


# Create, use, delete


async def test_cache_is_pending_then_ready_and_its_bytes_are_on_disk(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        with held(services.engine._store._reads._disk, "put"):
            cache = await services.create("the harbour " * 40, ttl_s=100)
            assert await services.status(cache) is Status.PENDING
        ready = await services.contexts.wait(TENANT, cache.id)
        assert ready == replace(cache, status=Status.READY)
        assert (ready.created_at, ready.expired_at) == (NOW, NOW + 100)
        assert services.on_disk(cache)
        opened = await services.contexts.open(TENANT, CacheUse(cache.id))
        assert (len(opened.prefix), opened.prefix.id) == (cache.tokens, cache.prefix_id)


async def test_chat_waits_for_a_pending_cache_and_uses_it(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        cache = await services.create("the harbour " * 40)
        answer = await services.ask(cache)
        assert answer.cached_tokens == cache.tokens
        assert (answer.hit.cache_id, answer.hit.expired_at) == (cache.id, NOW + 100)


async def test_deleted_cache_is_gone_with_its_bytes(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        cache = await services.ready("the harbour " * 40)
        await services.contexts.delete(TENANT, cache.id)
        await services.settled()
        assert not services.on_disk(cache)
        with pytest.raises(ContextNotFound):
            await services.contexts.get(TENANT, cache.id)
        with pytest.raises(ContextNotFound):
            await services.contexts.open(TENANT, CacheUse(cache.id))


async def test_cache_deleted_while_it_is_filled_leaves_nothing(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        with held(services.engine._context, "decode") as decode:
            cache = await services.create("the harbour " * 300)
            waiting = asyncio.create_task(services.contexts.wait(TENANT, cache.id))
            await until(decode.reached.is_set)
            await services.contexts.delete(TENANT, cache.id)
            with pytest.raises(ContextNotFound):
                await waiting
        await services.settled()
        assert not services.on_disk(cache)
        await services.ready("something else " * 10)
        assert services.engine.failure is None


async def test_cache_is_deleted_once_by_many(serving: Serving, tiny_model: Path, tmp_path: Path) -> None:
    async with serving(tiny_model, tmp_path) as services:
        cache = await services.ready("the harbour " * 40)
        deletions = [services.contexts.delete(TENANT, cache.id) for _ in range(6)]
        results = await asyncio.gather(*deletions, return_exceptions=True)
        assert [type(result) for result in results].count(ContextNotFound) == 5
        assert results.count(None) == 1


async def test_bytes_of_equal_caches_stay_until_the_last_is_deleted(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        one, two = [await services.ready("the harbour " * 40) for _ in range(2)]
        assert one.prefix_id == two.prefix_id
        await services.contexts.delete(TENANT, one.id)
        await services.settled()
        assert services.on_disk(two)
        assert (await services.ask(two)).cached_tokens == two.tokens
        await services.contexts.delete(TENANT, two.id)
        await services.settled()
        assert not services.on_disk(two)


async def test_equal_cache_made_while_the_former_is_deleted_keeps_its_bytes(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        one = await services.ready("the harbour " * 40)
        with held(services.engine._store._reads._disk, "delete") as deletion:
            await services.contexts.delete(TENANT, one.id)
            await until(deletion.reached.is_set)
            two = await services.create("the harbour " * 40)
            await until(lambda: bool(services.engine._scheduler._saving._pins))
        assert (await services.contexts.wait(TENANT, two.id)).status is Status.READY
        await services.settled()
        assert services.on_disk(two)


async def test_equal_cache_made_while_the_former_is_found_unwanted_keeps_its_bytes(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    """The registry has been asked who wants the bytes; then somebody does."""
    async with serving(tiny_model, tmp_path) as services:
        one = await services.ready("the harbour " * 40)
        with held(services.caches, "wants", after=True) as asking:
            await services.contexts.delete(TENANT, one.id)
            await until(asking.reached.is_set)
            two = await services.create("the harbour " * 40)
            await services.ready("something else " * 10)
        assert (await services.contexts.wait(TENANT, two.id)).status is Status.READY
        await services.settled()
        assert services.on_disk(two)


# The end of a life


async def test_expired_cache_is_inactive_before_a_sweep_has_seen_it(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        cache = await services.ready("the harbour " * 40)
        services.clock.now += 99.9
        assert await services.status(cache) is Status.READY
        services.clock.now = NOW + 100
        assert await services.status(cache) is Status.INACTIVE
        (listed,) = await services.contexts.list(TENANT, Page(9))
        assert listed.status is Status.INACTIVE
        with pytest.raises(ContextExpired, match="reset_ttl"):
            await services.contexts.open(TENANT, CacheUse(cache.id))


async def test_sweep_takes_the_bytes_of_expired_caches_and_of_no_others(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        short, long = await services.ready("short " * 40), await services.ready("long " * 40, ttl_s=101)
        await services.sweeper.sweep()
        await services.settled()
        assert services.on_disk(short)
        services.clock.now = NOW + 100
        await services.sweeper.sweep()
        await services.settled()
        assert (services.on_disk(short), services.on_disk(long)) == (False, True)
        assert services.caches.get(TENANT, short.id).status is Status.INACTIVE
        assert await services.status(long) is Status.READY


@pytest.mark.parametrize("swept", [True, False])
async def test_expired_cache_is_revived_by_a_new_lifetime(
    serving: Serving, tiny_model: Path, tmp_path: Path, swept: bool
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        cache = await services.ready("the harbour " * 40)
        services.clock.now = NOW + 500
        if swept:
            await services.sweeper.sweep()
            await services.settled()
        answer = await services.ask(cache, reset_ttl_s=30)
        assert (answer.cached_tokens, answer.hit.expired_at) == (cache.tokens, NOW + 530)
        revived = await services.contexts.get(TENANT, cache.id)
        assert revived == replace(cache, expired_at=NOW + 530)
        assert services.on_disk(cache)


async def test_new_lifetime_replaces_the_old_one_even_if_it_is_shorter(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        cache = await services.ready("the harbour " * 40)
        answer = await services.ask(cache, reset_ttl_s=5)
        assert answer.hit.expired_at == NOW + 5
        assert (await services.contexts.get(TENANT, cache.id)).expired_at == NOW + 5


async def test_cache_that_expires_under_a_chat_lives_on_as_the_reply_says(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    """The chat waits its turn; meanwhile the cache's end passes, and a sweep comes by."""
    async with serving(tiny_model, tmp_path) as services:
        cache, generate = await services.ready("the harbour " * 40), services.engine.generate

        async def generate_late(generation: Generation):
            services.clock.now += 200
            await services.sweeper.sweep()
            await services.settled()
            async for event in generate(generation):
                yield event

        services.engine.generate = generate_late
        answer = await services.ask(cache, reset_ttl_s=3600)
        assert answer.source is Source.COMPUTED  # the sweep took the bytes
        revived = await services.contexts.wait(TENANT, cache.id)
        assert (revived.status, revived.expired_at) == (Status.READY, NOW + 200 + 3600)
        await services.settled()
        assert services.on_disk(cache)
        services.engine.generate = generate
        assert (await services.ask(cache)).cached_tokens == cache.tokens


async def test_cache_revived_while_a_sweep_is_on_its_way_stays(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    """The sweep has marked it in the registry, but has not yet given its bytes back."""
    async with serving(tiny_model, tmp_path) as services:
        cache = await services.ready("the harbour " * 40)
        services.clock.now = NOW + 100
        with held(services.caches, "expire", after=True) as marking:
            sweeping = asyncio.create_task(services.sweeper.sweep())
            await until(marking.reached.is_set)
            renewal = services.contexts.extend(cache, 50)
            await renewal.durable
            assert renewal.end == NOW + 150
            marking.go.set()
            await sweeping
        revived = await services.contexts.wait(TENANT, cache.id)
        assert (revived.status, revived.expired_at) == (Status.READY, NOW + 150)
        await services.settled()
        assert services.on_disk(cache)


async def test_chat_that_revives_a_cache_is_not_disturbed_by_a_sweep_on_its_way(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        cache = await services.ready("the harbour " * 40)
        await services.ready("something else " * 10)  # takes the idle prefix out of the buffer
        services.clock.now = NOW + 100
        with held(services.caches, "expire", after=True) as marking:
            sweeping = asyncio.create_task(services.sweeper.sweep())
            await until(marking.reached.is_set)  # the registry says so; the sweep has not heard of it
            use = CacheUse(cache.id, reset_ttl_s=50)
            opening = asyncio.create_task(services.contexts.open(TENANT, use))
            await until(lambda: bool(services.keeper.fills()) or opening.done())
        await sweeping
        assert (await opening).prefix.id == cache.prefix_id
        await services.settled()
        assert services.on_disk(cache)


async def test_pending_cache_revived_while_a_sweep_stops_its_fill_is_filled_in_the_end(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        with held(services.engine._context, "decode") as decode:
            cache = await services.create("the harbour " * 40)
            await until(decode.reached.is_set)
            services.clock.now = NOW + 100
            with held(services.caches, "expire", after=True) as marking:
                sweeping = asyncio.create_task(services.sweeper.sweep())
                await until(marking.reached.is_set)
                await services.contexts.extend(cache, 50).durable
                marking.go.set()
                await sweeping
        await services.sweeper.sweep()
        assert (await services.contexts.wait(TENANT, cache.id)).status is Status.READY
        await services.settled()
        assert services.on_disk(cache)


async def test_revivals_and_sweeps_at_once_leave_every_cache_with_its_bytes(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        caches = [await services.ready(f"{name} harbour " * 20) for name in ("old", "new", "big", "dry")]
        for _ in range(4):
            services.clock.now += 1000
            revivals = [services.contexts.extend(cache, 100).durable for cache in caches]
            sweeps = [services.sweeper.sweep() for _ in range(3)]
            both = [part for pair in zip(revivals, sweeps, strict=False) for part in pair]
            await asyncio.gather(*both, revivals[-1])
            for cache in caches:
                revived = await services.contexts.wait(TENANT, cache.id)
                if revived.status is Status.PENDING:  # a sweep stopped its fill; the next one mends it
                    await services.sweeper.sweep()
                    revived = await services.contexts.wait(TENANT, cache.id)
                assert revived == replace(cache, expired_at=int(services.clock.now) + 100)
            await services.settled()
            assert [services.on_disk(cache) for cache in caches] == [True] * 4


async def test_clock_that_jumps_back_revives_nothing_and_loses_nothing(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        over, alive = await services.ready("over " * 40), await services.ready("alive " * 40, ttl_s=900)
        services.clock.now = NOW + 500
        await services.sweeper.sweep()
        services.clock.now = NOW - 10_000
        await services.sweeper.sweep()
        await services.settled()
        assert [await services.status(cache) for cache in (over, alive)] == [
            Status.INACTIVE,
            Status.READY,
        ]
        assert (services.on_disk(over), services.on_disk(alive)) == (False, True)
        with pytest.raises(ContextExpired):
            await services.contexts.open(TENANT, CacheUse(over.id))
        assert (await services.ask(alive)).cached_tokens == alive.tokens
        services.clock.now = NOW + 500
        await services.sweeper.sweep()
        assert await services.status(alive) is Status.READY


# When the registry fails


async def test_pending_cache_without_a_fill_is_filled_by_the_next_sweep(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        cache = await services.ready("the harbour " * 40)
        orphan = replace(cache, id="cache-orphan", status=Status.PENDING)
        services.caches.insert(orphan)
        await services.sweeper.sweep()
        await services.settled()
        assert await services.status(orphan) is Status.READY


async def test_cache_whose_outcome_could_not_be_written_is_filled_again(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        with held(services.engine._store._reads._disk, "put") as put:
            cache = await services.create("the harbour " * 40)
            await until(put.reached.is_set)
            rename_table(services, "caches", "hidden")
            put.go.set()
            await until(lambda: not services.keeper._fills)
        rename_table(services, "hidden", "caches")
        assert await services.status(cache) is Status.PENDING
        await services.sweeper.sweep()
        await services.settled()
        assert await services.status(cache) is Status.READY
        assert services.on_disk(cache)


async def test_cache_updated_while_its_fill_settles_becomes_ready_without_a_sweep(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        settle, updates, loop = services.caches.settle, [], asyncio.get_running_loop()

        def settle_and_update(cache_id: str, *outcome: object) -> None:
            settle(cache_id, *outcome)
            if not updates:  # before the fill knows that it has settled
                changes = {"metadata": {"edition": "2"}, "ttl_s": None, "expired_at": None}
                update = services.contexts.update(TENANT, cache_id, **changes)
                updates.append(asyncio.run_coroutine_threadsafe(update, loop))

        services.caches.settle = settle_and_update
        cache = await services.create("the harbour " * 40)
        await until(lambda: bool(updates))
        assert (await asyncio.wrap_future(updates[0])).metadata == {"edition": "2"}
        assert (await services.ask(cache)).cached_tokens == cache.tokens
        await services.settled()
        assert await services.status(cache) is Status.READY


@pytest.mark.parametrize("tools", [(), ({"type": "function", "function": {"name": "look"}},)])
async def test_an_answer_that_nobody_reads_is_cancelled_by_closing_it(
    serving: Serving, tools: tuple, tiny_model: Path, tmp_path: Path
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        for _ in range(6):  # more than there are sequences
            asked = ChatRequest("tiny", QUESTION, Sampling(3000), tools=tools)
            answer = await services.chat.begin(TENANT, asked)
            await answer.close()
        await services.settled()
        assert services.engine._scheduler._admitted.decoding == []


async def test_rendering_after_the_end_is_a_clean_failure(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        engine = services.engine
    conversation = make_conversation(QUESTION, (), NOW)
    for render in (engine.render, engine.stable_prefix):
        with pytest.raises(EngineFailed):
            await render(conversation)


async def test_cache_under_a_template_that_prints_the_date_hits_after_midnight(
    serving: Serving, tmp_path: Path
) -> None:
    model = write_random_model(tmp_path / "dated.gguf", TINY, chat_template=PRINTS_THE_DATE)
    async with serving(model, tmp_path) as services:
        cache = await services.ready("the harbour " * 40, ttl_s=10**6)
        services.clock.now = NOW + 3 * 86_400
        assert (await services.ask(cache)).cached_tokens == cache.tokens


async def test_sweeper_survives_a_registry_that_fails(
    serving: Serving, tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        cache = await services.ready("the harbour " * 40)
        rename_table(services, "caches", "hidden")
        with pytest.raises(RegistryFailed):
            await services.sweeper.sweep()
        services.clock.now = NOW + 100
        with caplog.at_level(logging.ERROR, "mooring.sweeping"):
            sweeper = asyncio.create_task(services.sweeper.run())
            await until(lambda: caplog.text.count("sweep failed") >= 2)
            rename_table(services, "hidden", "caches")
            await until(lambda: not services.on_disk(cache))
        assert services.caches.get(TENANT, cache.id).status is Status.INACTIVE
        assert not sweeper.done()
        sweeper.cancel()


async def test_bytes_whose_release_failed_go_at_the_next_sweep(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        cache = await services.ready("the harbour " * 40)
        with held(services.caches, "wants") as wants:
            await services.contexts.delete(TENANT, cache.id)
            await until(wants.reached.is_set)
            rename_table(services, "caches", "hidden")
            wants.go.set()
            await until(lambda: not services.keeper._releases)
        rename_table(services, "hidden", "caches")
        assert services.on_disk(cache)
        await services.sweeper.sweep()
        await until(lambda: not services.on_disk(cache))


# After a start


async def test_pending_cache_is_filled_after_a_start(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        with held(services.engine._context, "decode"):
            cache = await services.create("the harbour " * 40)
            await services.keeper.close()
        assert await services.status(cache) is Status.PENDING
    async with serving(tiny_model, tmp_path) as services:
        assert (await services.contexts.wait(TENANT, cache.id)).status is Status.READY
        assert services.on_disk(cache)


async def test_bytes_that_no_cache_wants_are_gone_after_a_start(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        kept, unwanted = await services.ready("kept " * 40), await services.ready("unwanted " * 40)
    async with serving(tiny_model, tmp_path) as services:
        await services.engine.release_all_but([kept.prefix_id])
        await until(lambda: not services.on_disk(unwanted))
        assert services.on_disk(kept)
        services.caches.delete(TENANT, kept.id)
    async with serving(tiny_model, tmp_path) as services:
        await until(lambda: not services.on_disk(kept))


@pytest.mark.parametrize("before", [Status.PENDING, Status.INACTIVE])
async def test_cache_too_large_for_the_new_engine_ends_in_an_error(
    serving: Serving, tiny_model: Path, tmp_path: Path, before: Status
) -> None:
    clock = Clock()
    async with serving(tiny_model, tmp_path, clock) as services:
        with held(services.engine._context, "decode"):
            large = await services.create("the harbour " * 400)
            await services.keeper.close()
    assert large.tokens > 512
    if before is Status.INACTIVE:
        clock.now += 100
    async with serving(tiny_model, tmp_path, clock, cells=512) as services:
        await services.sweeper.sweep()
        with pytest.raises(ContextFailed, match="do not fit into the model's context of 512"):
            await services.contexts.open(TENANT, CacheUse(large.id, reset_ttl_s=50))
        assert await services.status(large) is Status.ERROR
        small = await services.ready("small " * 10)
        assert (await services.ask(small)).cached_tokens == small.tokens


async def test_ready_cache_too_large_for_the_new_engine_is_refused_and_holds_nobody_up(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        large = await services.ready("the harbour " * 400)
    async with serving(tiny_model, tmp_path, cells=512) as services:
        with pytest.raises(PromptTooLong, match="do not fit into the model's context of 512"):
            await services.ask(large)
        small = await services.ready("small " * 10)
        assert (await services.ask(small)).cached_tokens == small.tokens


# Tenants


async def test_foreign_cache_is_not_found_whatever_is_tried(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        mine, theirs = await services.ready("mine " * 40), await services.ready("theirs " * 40, OTHER)
        contexts = services.contexts
        attempts = [
            contexts.get(OTHER, mine.id),
            contexts.wait(OTHER, mine.id),
            contexts.delete(OTHER, mine.id),
            contexts.open(OTHER, CacheUse(mine.id)),
            contexts.open(OTHER, CacheUse(mine.id, reset_ttl_s=9)),
            contexts.update(OTHER, mine.id, metadata={"a": "b"}, ttl_s=9, expired_at=None),
            contexts.list(OTHER, Page(9, after=mine.id)),
            contexts.list(OTHER, Page(9, before=mine.id)),
            services.ask(replace(mine, tenant=OTHER)),
        ]
        results = await asyncio.gather(*attempts, return_exceptions=True)
        assert [type(result) for result in results] == [ContextNotFound] * len(attempts)
        assert await contexts.list(OTHER, Page(9)) == [theirs]
        assert await contexts.get(TENANT, mine.id) == mine
        assert services.on_disk(mine)


async def test_equal_caches_of_two_tenants_share_nothing(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        one, two = [await services.ready("the harbour " * 40, tenant) for tenant in (TENANT, OTHER)]
        assert one.prefix_id != two.prefix_id
        await services.contexts.delete(TENANT, one.id)
        await services.settled()
        assert (services.on_disk(one), services.on_disk(two)) == (False, True)


# The bill


async def test_a_chat_is_charged_line_by_line_under_its_id(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        cache = await services.ready("the harbour " * 40)
        answer = await services.ask(cache)
        lines = services.ledger.lines(TENANT, request_id=answer.id)
        found = {line.kind.value: (line.quantity, line.unit, line.amount, line.plain) for line in lines}
        new = answer.prompt_tokens - cache.tokens
        output = found["output"][0]
        assert found == {
            "call": (1, 1_500_000, 1_500_000, 0),
            "input": (new, 200, new * 200, new * 200),
            "cached_input": (cache.tokens, 0, 0, cache.tokens * 200),
            "output": (output, 2000, output * 2000, output * 2000),
        }
        assert 1 <= output <= 3
        assert all(line.cache_id == cache.id for line in lines)


async def test_a_cache_is_charged_for_its_creation_once_and_for_its_lives(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        cache = await services.ready("the harbour " * 40, ttl_s=90)
        services.clock.now = NOW + 61
        running = cache.tokens * 150 * 2
        charging = services.chat._charging
        assert await charging.balance(TENANT) == -cache.tokens * 1000 - running
        services.clock.now = NOW + 5000  # nobody looked meanwhile: it ended at its end
        await services.sweeper.sweep()
        assert await charging.balance(TENANT) == -cache.tokens * 1000 - running
        await services.contexts.extend(cache, 1000).durable  # a second life
        await services.contexts.wait(TENANT, cache.id)
        services.clock.now += 1
        await services.contexts.delete(TENANT, cache.id)
        await services.settled()
        lines = services.ledger.lines(TENANT)
        assert [line.kind.value for line in lines] == ["creation", "storage", "storage"]
        assert [line.quantity for line in lines] == [cache.tokens, 2 * cache.tokens, cache.tokens]
        assert services.ledger.open_lives() == []


async def test_an_answer_that_is_broken_off_is_charged_for_what_was_sent(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        asked = ChatRequest("tiny", QUESTION, Sampling(2000, seed=1))
        answer = await services.chat.begin(TENANT, asked)
        sent = 0
        async for event in answer.events:
            sent += isinstance(event, Delta)
            if sent == 5:
                break
        await answer.close()
        lines = services.ledger.lines(TENANT, request_id=answer.id)
        assert {line.kind.value: line.quantity for line in lines} == {
            "input": answer.prompt_tokens,
            "output": 5,
        }


async def test_an_answers_end_is_not_heard_before_its_charge_is_durable(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        with held(Transaction, "finish") as hold:
            answer = await services.chat.begin(TENANT, ChatRequest("tiny", QUESTION, Sampling(3)))
            heard: list[type] = []

            async def listen() -> None:
                async for event in answer.events:
                    heard.append(type(event))  # noqa: PERF401 - read while it grows

            listening = asyncio.create_task(listen())
            await asyncio.to_thread(hold.reached.wait)
            await asyncio.sleep(0)
            assert ChoiceFinished not in heard
            hold.go.set()
            await listening
        assert ChoiceFinished in heard
        assert services.ledger.lines(TENANT, request_id=answer.id)


async def test_no_inference_at_or_below_zero(serving: Serving, tiny_model: Path, tmp_path: Path) -> None:
    async with serving(tiny_model, tmp_path, overdraft=0) as services:
        charging, chat = services.chat._charging, services.chat
        asked = ChatRequest("tiny", QUESTION, Sampling(3))
        with pytest.raises(QuotaExceeded):
            await chat.begin(TENANT, asked)
        for _ in range(2):  # the duplicate counts once
            await charging.top_up(TENANT, 10_000, "invoice 1")
        while await charging.balance(TENANT) > 0:
            answer = await chat.begin(TENANT, asked)
            async for _ in answer.events:
                pass
        assert services.ledger.lines(TENANT, request_id=answer.id)
        with pytest.raises(QuotaExceeded):
            await chat.begin(TENANT, asked)


async def test_no_cache_is_computed_at_or_below_zero(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    async with serving(tiny_model, tmp_path, overdraft=0) as services:
        with pytest.raises(QuotaExceeded):
            await services.create("the harbour " * 40)
        await services.chat._charging.top_up(TENANT, 10, "invoice 1")
        cache = await services.ready("the harbour " * 40)  # its creation costs more than there is
        with pytest.raises(QuotaExceeded):
            await services.contexts.update(TENANT, cache.id, metadata=None, ttl_s=500, expired_at=None)
        assert len(await services.contexts.list(TENANT, Page(10))) == 1


async def test_a_cache_that_cannot_be_filled_again_is_not_charged_for_being_kept(
    serving: Serving, tiny_model: Path, tmp_path: Path
) -> None:
    async with serving(tiny_model, tmp_path) as services:
        cache, keep = await services.ready("the harbour " * 40, ttl_s=900), services.engine.keep

        async def failing(*_: object) -> None:
            raise EngineFailed("broken")

        services.clock.now = NOW + 30
        services.engine.keep = failing
        await services.contexts.update(
            TENANT, cache.id, metadata={"a": "b"}, ttl_s=None, expired_at=None
        )
        assert (await services.contexts.wait(TENANT, cache.id)).status is Status.ERROR
        services.engine.keep = keep
        assert services.ledger.open_lives() == []
        stored = [line for line in services.ledger.lines(TENANT) if line.kind is ChargeKind.STORAGE]
        assert [line.quantity for line in stored] == [cache.tokens]
