"""What servers forget in a store that all of them keep in: what nobody wants, and no more."""

import asyncio
import secrets
from pathlib import Path

import pytest
import sqlalchemy as sa
from any_engine import HANG_S, running_cluster
from both_engines import asked, tokens, until
from clusters import report
from services import TENANT, held, serving

from mooring.core.prefix import Prefix
from mooring.engine.interface import Source
from mooring.engine.vllm.member import State
from mooring.registry.caches import Caches

pytestmark = [pytest.mark.anyio, pytest.mark.vllm]


@pytest.fixture
def server(cluster, postgres: sa.URL, tmp_path: Path):
    """All that is below HTTP, over an engine; each has the same registry."""
    return lambda engine: serving(cluster.model, tmp_path, where=postgres, engine=engine, hang_s=HANG_S)


def text() -> str:
    return "the harbour of " + secrets.token_hex(200)


async def test_what_another_server_makes_while_one_starts_stays(cluster, server) -> None:
    async with (
        running_cluster(cluster.served) as here,
        running_cluster(cluster.served) as there,
        server(there.engine) as other,
    ):
        before = cluster.stored()
        early = await other.ready(text())
        wanted = cluster.stored()
        await here.engine.keep(Prefix("tenant", tokens(320, seed=secrets.randbits(30))))  # and no row
        unwanted = cluster.stored() - wanted
        assert unwanted

        async def start() -> None:
            async with server(here.engine) as starting:
                await until(lambda: not starting.keeper._releases)

        with held(Caches, "wanted_prefixes", after=True) as looking:
            started = asyncio.create_task(start())
            await until(looking.reached.is_set)
            late = await other.ready(text())
            made = cluster.stored() - unwanted - before
        await started
        assert made <= cluster.stored()
        assert unwanted.isdisjoint(cluster.stored())
        for cache in (early, late):
            assert (await other.ask(cache)).cached_tokens == cache.tokens // 32 * 32
        assert there.metric("mooring_prefix_recomputed_total") == 0


async def test_bytes_that_a_chat_brings_back_after_the_end_go_again(cluster, server) -> None:
    async with running_cluster(cluster.served) as here, server(here.engine) as services:
        worker, *others = cluster.served.workers
        for other in others:
            here.engine.drain(other, drained=True)
        before, pinned = cluster.stored(), report(worker)["pinned"].keys()
        cache = await services.ready(text())
        generate = here.engine.generate

        async def late(generation):
            """Its cache ends, and all blocks of the worker go to others, before it is there."""
            await services.contexts.delete(TENANT, cache.id)
            await until(lambda: cluster.stored() <= before)
            for seed in range(3):
                prompt = tokens(1900, seed=secrets.randbits(20) + seed)
                async for _ in generate(asked(prompt, max_tokens=1)):
                    pass
            async for event in generate(generation):
                yield event

        services.engine.generate = late
        answer = await services.ask(cache)
        assert (answer.source, answer.cached_tokens) == (Source.COMPUTED, 0)
        await until(lambda: cluster.stored() <= before)
        await until(lambda: report(worker)["pinned"].keys() <= pinned)


async def test_a_release_that_no_worker_hears_is_repeated(cluster, server) -> None:
    seldom = {"health_interval_s": 3600}
    async with (
        running_cluster(cluster.served, vllm=seldom) as here,
        server(here.engine) as services,
    ):
        workers, before = here.engine.cluster, cluster.stored()
        cache = await services.ready(text())
        for member in workers.members:
            workers._set(member, State.DOWN, "unplugged")
        await services.contexts.delete(TENANT, cache.id)
        await until(lambda: services.keeper._unreleased)
        assert not cluster.stored() <= before
        for member in workers.members:
            member.wake.set()
        await until(lambda: len(workers.up) == 2)
        await services.sweeper.sweep()
        await until(lambda: cluster.stored() <= before)
