"""Real engines over the tiny model that check themselves after every step, and asks to put to them."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mooring.config import EngineConfig, KvStoreConfig
from mooring.core.prefix import Prefix, Tokens
from mooring.core.usage import Usage
from mooring.engine.interface import Delta, Finished, Generation, Sampling, Source, Started
from mooring.engine.llamacpp.engine import LlamaEngine
from mooring.engine.llamacpp.loading import load_engine
from mooring.telemetry import Metrics
from mooring.testing import read_vocabulary

HANG_S = 60
VOCABULARY = len(read_vocabulary().tokens)


@asynccontextmanager
async def running(
    model: Path, data_dir: Path, *, ram: int = 1 << 28, metrics: Metrics | None = None, **config
) -> AsyncIterator[LlamaEngine]:
    """An engine that checks itself after every step; whoever waits too long is told so."""
    engine = await load_engine(
        model,
        "tiny",
        EngineConfig(**{"cells": 2048, "sequences": 8, "threads": 1} | config),
        KvStoreConfig(ram_bytes=ram),
        data_dir,
        metrics or Metrics(),
    )
    scheduler, step = engine._scheduler, engine._scheduler.step

    def checked_step() -> bool:
        worked = step()
        scheduler.check()
        return worked

    scheduler.step = checked_step
    try:
        async with asyncio.timeout(HANG_S):
            yield engine
    finally:
        await engine.close()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - other threads make it true, and set no asyncio.Event
        await asyncio.sleep(0.002)


def tokens(count: int, seed: int) -> Tokens:
    """Ordinary tokens that look like nothing else."""
    numbers = random.Random(seed)
    return tuple(numbers.randrange(5, 300) for _ in range(count))


def asked(
    prompt: Tokens,
    scope: str | None = None,
    prefix: Prefix | None = None,
    max_tokens: int = 5,
    **sampling,
) -> Generation:
    drawn = Sampling(max_tokens, **{"temperature": 0} | sampling)
    return Generation(prompt, prefix, drawn, scope=scope)


@dataclass
class Answer:
    """What came of a generation."""

    started: Started | None = None
    usage: Usage | None = None
    tokens: list[int] = field(default_factory=list)
    """What was drawn, when log probabilities were asked for."""
    logprobs: list[dict[int, float]] = field(default_factory=list)

    @property
    def cached(self) -> int:
        assert self.usage is not None
        return self.usage.cached_tokens

    @property
    def evaluated(self) -> int:
        assert self.usage is not None
        return self.usage.prompt_tokens - self.usage.cached_tokens

    @property
    def source(self) -> Source:
        assert self.started is not None
        return self.started.source


async def answer(engine: LlamaEngine, generation: Generation) -> Answer:
    """Follow a generation to its end."""
    came = Answer()
    async with aclosing(engine.generate(generation)) as events:
        async for event in events:
            match event:
                case Started():
                    came.started = event
                case Delta(logprobs=logprobs):
                    for sampled in logprobs:
                        came.tokens.append(sampled.drawn.token)
                        came.logprobs.append({other.token: other.logprob for other in sampled.top})
                case Finished(usage):
                    came.usage = usage
    assert came.usage is not None
    return came


def counted(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


def evaluated(metrics: Metrics) -> float:
    """Prompt tokens that the engine computed, for whatever purpose."""
    return sum(
        counted(metrics, "mooring_prompt_tokens_evaluated_total", purpose=purpose)
        for purpose in ("request", "prefix")
    )
