"""The embedded engine, in the test's own process or in a child, and what it counts."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry

from mooring.config import EngineConfig, KvStoreConfig
from mooring.core.prefix import Prefix, Tokens
from mooring.engine.interface import Engine, Event, Generation, Grammar, Sampling
from mooring.engine.llamacpp.loading import load_engine
from mooring.engine.process.engine import ProcessEngine, start_engine
from mooring.telemetry import Metrics, ServerMetrics

HANG_S = 60
IN_PROCESS, CHILD = "in this process", "in a child"
LONG = Grammar("start: /[a-z ]{3000}/", "response_format")
"""An answer that does not end by itself."""


@dataclass(frozen=True)
class Running:
    """An engine, and its metrics as /metrics shows them."""

    engine: Engine
    registry: CollectorRegistry

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    @property
    def restarts(self) -> float:
        return self.metric("mooring_engine_restarts_total")

    @property
    def pid(self) -> int:
        """Of the child that serves."""
        assert isinstance(self.engine, ProcessEngine)
        child = self.engine._supervisor.running
        assert child is not None
        return child.pid


@asynccontextmanager
async def running(kind: str, model: Path, data_dir: Path, **config) -> AsyncIterator[Running]:
    """An engine with little room; whoever waits too long is told so."""
    settings = EngineConfig(**{"cells": 2048, "sequences": 4, "threads": 1} | config)
    arguments = (model, "tiny", settings, KvStoreConfig(), data_dir)
    engine: Engine
    if kind == CHILD:
        server = ServerMetrics()
        engine, registry = await start_engine(*arguments, server), server.registry
    else:
        metrics = Metrics()
        engine, registry = await load_engine(*arguments, metrics), metrics.registry
    try:
        async with asyncio.timeout(HANG_S):
            yield Running(engine, registry)
    finally:
        await engine.close()


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - other processes make it true
        await asyncio.sleep(0.005)


def tokens(count: int, seed: int) -> Tokens:
    return tuple((seed * 7919 + number * 104_729) % 290 + 5 for number in range(count))


def asked(
    prompt: Tokens, prefix: Prefix | None = None, grammar: Grammar | None = None, **sampling
) -> Generation:
    return Generation(
        prompt, prefix, Sampling(**{"max_tokens": 5, "temperature": 0} | sampling), grammar
    )


async def events_of(engine: Engine, generation: Generation) -> list[Event]:
    async with aclosing(engine.generate(generation)) as events:
        return [event async for event in events]
