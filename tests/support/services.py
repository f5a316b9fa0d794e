"""Everything below HTTP in the test's process, over a real engine and a real registry."""

import asyncio
import secrets
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from mooring.config import CachingConfig, EngineConfig, KvStoreConfig
from mooring.core.context import CacheObject, NewCache, Status
from mooring.core.limits import Limits
from mooring.engine.interface import Engine, Generation, Sampling
from mooring.engine.llamacpp.engine import LlamaEngine
from mooring.engine.llamacpp.loading import load_engine
from mooring.registry.caches import Caches
from mooring.registry.claims import Claims
from mooring.registry.database import Database
from mooring.registry.group_commit import GroupCommit
from mooring.registry.ledger import Ledger
from mooring.registry.tags import Tags
from mooring.service.answer import Answer
from mooring.service.charging import Charging
from mooring.service.chat import Chat, ChatRequest
from mooring.service.contexts import Contexts
from mooring.service.keeping import Keeper
from mooring.service.limiting import Limiter
from mooring.service.models import Models
from mooring.service.pricing import load_plans
from mooring.service.sweeping import Sweeper
from mooring.service.tagging import Tagging
from mooring.service.turns import Turns
from mooring.service.use import CacheUse
from mooring.telemetry import Metrics

HANG_S = 30
NOW = 1_720_000_000
TENANT, OTHER = "tenant", "other"
QUESTION = ({"role": "user", "content": "How deep is it?"},)


class Clock:
    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Services:
    """Everything below HTTP."""

    engine: LlamaEngine
    database: Database
    caches: Caches
    keeper: Keeper
    contexts: Contexts
    sweeper: Sweeper
    chat: Chat
    clock: Clock
    data_dir: Path
    ledger: Ledger

    async def create(self, text: str, tenant: str = TENANT, ttl_s: int = 100) -> CacheObject:
        messages = ({"role": "system", "content": text},)
        return await self.contexts.create(tenant, NewCache("tiny", messages, ttl_s=ttl_s))

    async def ready(self, text: str, tenant: str = TENANT, ttl_s: int = 100) -> CacheObject:
        cache = await self.create(text, tenant, ttl_s)
        cache = await self.contexts.wait(tenant, cache.id)
        assert cache.status is Status.READY
        return cache

    async def status(self, cache: CacheObject) -> Status:
        return (await self.contexts.get(cache.tenant, cache.id)).status

    async def ask(self, cache: CacheObject, **use) -> Answer:
        """Chat with a cache to the end."""
        asked = ChatRequest("tiny", QUESTION, Sampling(3), cache=CacheUse(cache.id, **use))
        answer = await self.chat.begin(cache.tenant, asked)
        async for _ in answer.events:
            pass
        await answer.close()
        return answer

    async def settled(self) -> None:
        """Nothing is being filled or released any more."""
        await until(lambda: not self.keeper._fills and not self.keeper._releases)
        # What was handed to the decode thread before this answer, it has seen by now.
        async for _ in LlamaEngine.generate(self.engine, Generation((5,), None, Sampling(1))):
            pass
        await asyncio.to_thread(self.engine._store._keeping._writing.submit(lambda: None).result)

    def on_disk(self, cache: CacheObject) -> bool:
        """Whether its prefix is pinned, and the last block of it has its file."""
        folder = self.data_dir / "kv"
        with closing(sqlite3.connect(folder / "index.sqlite3")) as index:
            query = "SELECT key FROM pins WHERE prefix_id = ?"
            pinned = index.execute(query, (cache.prefix_id,)).fetchone()
        return pinned is not None and (folder / "blocks" / f"{pinned[0].hex()}.kv").exists()


async def no_own_limits(_tenant: str) -> dict[str, int]:
    return {}


@asynccontextmanager
async def serving(
    model: Path,
    data_dir: Path,
    clock: Clock | None = None,
    overdraft: int | None = None,
    where: Path | sa.URL | None = None,
    claim_s: float = 5.0,
    engine: Engine | None = None,
    hang_s: float = HANG_S,
    **config,
) -> AsyncIterator[Services]:
    """The services as `app` wires them, without a sweeper; over `engine`, or one of their own."""
    clock = clock or Clock()
    usual = {"cells": 4096, "sequences": 4, "threads": 1, "automatic_reuse": False}
    engine_config = EngineConfig(**usual | config)
    database = Database(where or data_dir / "registry.sqlite3")
    if engine is None:
        store_config = KvStoreConfig(ram_bytes=0)
        engine = await load_engine(model, "tiny", engine_config, store_config, data_dir, Metrics())
    caches, models = Caches(database), Models("tiny", ("alias",), NOW)
    ledger, commits = Ledger(database), GroupCommit(database)
    plan = load_plans({})["dollar-2025"]
    charging = Charging(ledger, commits, plan, overdraft=overdraft, clock=clock)
    holder = secrets.token_hex(4)
    turns = Turns(Claims(database, holder, claim_s) if database.is_shared else None)
    keeper = Keeper(engine, caches, commits, charging, turns)
    limiter = Limiter(Limits(), no_own_limits)
    tagging = Tagging(Tags(database), caches, clock)
    contexts = Contexts(
        keeper, caches, commits, charging, limiter, tagging, models, CachingConfig(), clock
    )
    sweeper = Sweeper(keeper, caches, charging, 0.01, clock)
    chat = Chat(engine, contexts, models, charging, limiter, clock)
    try:
        async with asyncio.timeout(hang_s):
            await sweeper.resume()
            yield Services(
                engine, database, caches, keeper, contexts, sweeper, chat, clock, data_dir, ledger
            )
    finally:
        await keeper.close()
        await engine.close()
        await commits.close()
        database.close()


Serving = Callable[..., AbstractAsyncContextManager[Services]]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - other threads make it true, and set no asyncio.Event
        await asyncio.sleep(0.002)


@dataclass(frozen=True)
class Hold:
    """Where calls of a method are held up: `reached` is set by the first, `go` lets them on."""

    reached: threading.Event
    go: threading.Event


@contextmanager
def held(part: object, method: str, *, after: bool = False) -> Iterator[Hold]:
    """Calls of one method wait: before they do anything, or `after` it, before their caller knows."""
    call, hold = getattr(part, method), Hold(threading.Event(), threading.Event())

    def waiting(*arguments: object, **options: object) -> object:
        result = call(*arguments, **options) if after else None
        hold.reached.set()
        hold.go.wait()
        return result if after else call(*arguments, **options)

    setattr(part, method, waiting)
    try:
        yield hold
    finally:
        hold.go.set()
        setattr(part, method, call)


def rename_table(services: Services, old: str, new: str) -> None:
    with services.database.begin() as connection:
        connection.execute(sa.text(f"ALTER TABLE {old} RENAME TO {new}"))
