"""A cached prefix gives what the whole prompt gives: the same logits, the same greedy answer.

Tolerance. Without flash attention, llama.cpp's result for a row depends on the batch around it only
through the order in which its matrix kernels sum: the tiny model's log probabilities then move by
about 0.016. Equal batches give equal bits. One changed word in the prefix moves them by about 10. So
0.1 tells "the same up to the order of summation" from "something else was attended to".
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mooring.config import EngineConfig, KvStoreConfig
from mooring.core.conversation import Conversation
from mooring.core.prefix import Prefix
from mooring.engine.interface import (
    Delta,
    Finished,
    Generation,
    Kept,
    Sampling,
    Source,
    Started,
)
from mooring.engine.llamacpp.engine import LlamaEngine
from mooring.engine.llamacpp.loading import load_engine
from mooring.telemetry import Metrics
from mooring.testing import read_vocabulary

TOLERANCE = 0.1
VOCABULARY = len(read_vocabulary().tokens)
MANUAL = " ".join(f"Paragraph {n}: the winch number {n} weighs {n * 7 % 91} kg." for n in range(60))
HARBOUR = Conversation(({"role": "system", "content": MANUAL},), (), date(2026, 1, 1))
NOTHING = Conversation((), (), date(2026, 1, 1))
QUESTION = "What does the winch number 12 weigh?"

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Reply:
    source: Source
    tokens: list[int]
    logprobs: NDArray[np.float64]
    """Of every token of the vocabulary at every drawn position: [drawn, vocabulary]."""
    cached_tokens: int
    prompt_tokens: int


@asynccontextmanager
async def running(model: Path, data_dir: Path, metrics: Metrics, ram: int) -> AsyncIterator[LlamaEngine]:
    config = EngineConfig(cells=16_384, sequences=16)
    engine = await load_engine(model, "tiny", config, KvStoreConfig(ram_bytes=ram), data_dir, metrics)
    try:
        yield engine
    finally:
        await engine.close()


async def prefix_of(engine: LlamaEngine, conversation: Conversation) -> Prefix:
    return Prefix("tenant", await engine.stable_prefix(conversation))


async def ask(
    engine: LlamaEngine,
    conversation: Conversation,
    prefix: Prefix | None,
    question: str = QUESTION,
) -> Reply:
    messages = ({"role": "user", "content": question},)
    prompt = await engine.render(conversation.followed_by(messages))
    sampling = Sampling(max_tokens=8, temperature=0, top_logprobs=VOCABULARY)
    source, cached, tokens, rows = Source.NONE, -1, [], []
    async for event in engine.generate(Generation(prompt, prefix, sampling)):
        match event:
            case Started(_, source):
                pass
            case Delta(_, _, logprobs):
                for sampled in logprobs:
                    tokens.append(sampled.drawn.token)
                    row = np.empty(VOCABULARY)
                    row[[other.token for other in sampled.top]] = [
                        other.logprob for other in sampled.top
                    ]
                    rows.append(row)
            case Finished(usage):
                cached = usage.cached_tokens
    return Reply(source, tokens, np.array(rows), cached, len(prompt))


def wait_until_in_ram(engine: LlamaEngine, prefix: Prefix) -> None:
    """What was read from disk is copied into RAM a moment later."""
    while any(block.tier != "ram" for block in engine._store.match("tenant", prefix.label).blocks):
        time.sleep(0.01)


def assert_same(reply: Reply, reference: Reply) -> None:
    assert reply.tokens == reference.tokens
    np.testing.assert_allclose(reply.logprobs, reference.logprobs, rtol=0, atol=TOLERANCE)


def evaluated(metrics: Metrics, purpose: str) -> float:
    value = metrics.registry.get_sample_value(
        "mooring_prompt_tokens_evaluated_total", {"purpose": purpose}
    )
    return value or 0.0


async def test_cached_answers_equal_the_whole_prompt_from_every_source(
    tiny_model: Path, tmp_path: Path
) -> None:
    metrics = Metrics()
    async with running(tiny_model, tmp_path, metrics, ram=1 << 28) as engine:
        prefix = await prefix_of(engine, HARBOUR)
        whole = await ask(engine, HARBOUR, None)
        assert await engine.keep(prefix) == Kept(len(prefix))
        before = evaluated(metrics, "request")
        replies = [await ask(engine, HARBOUR, prefix)]
        other = await ask(engine, NOTHING, None)  # takes the idle prefix out of the buffer
        replies.append(await ask(engine, HARBOUR, prefix))
    async with running(tiny_model, tmp_path, metrics, ram=0) as engine:
        replies.append(await ask(engine, HARBOUR, prefix))

    assert [reply.source for reply in replies] == [Source.RESIDENT, Source.RAM, Source.DISK]
    for reply in replies:
        assert_same(reply, whole)
        assert reply.cached_tokens == len(prefix)
    assert whole.cached_tokens == 0
    question = whole.prompt_tokens - len(prefix)
    assert evaluated(metrics, "request") - before == 3 * question + other.prompt_tokens
    assert evaluated(metrics, "prefix") == len(prefix)


@pytest.mark.parametrize("source", [Source.RESIDENT, Source.RAM, Source.DISK])
async def test_cached_answers_are_the_same_with_eight_others_in_the_batch(
    tiny_model: Path, tmp_path: Path, source: Source
) -> None:
    metrics = Metrics()
    other = Conversation(({"role": "system", "content": MANUAL[::-1]},), (), date(2026, 1, 1))
    async with running(tiny_model, tmp_path, metrics, ram=1 << 28) as engine:
        whole = await ask(engine, HARBOUR, None)
        prefix, other_prefix = await prefix_of(engine, HARBOUR), await prefix_of(engine, other)
        await engine.keep(other_prefix)
        await engine.keep(prefix)
        if source is Source.RAM:
            await ask(engine, other, None)
    ram = 0 if source is Source.DISK else 1 << 28
    async with running(tiny_model, tmp_path, metrics, ram) as engine:
        if source is not Source.DISK:
            await ask(engine, HARBOUR, prefix)  # from disk into the buffer, and on into RAM
        if source is Source.RAM:
            await asyncio.to_thread(wait_until_in_ram, engine, prefix)
            await ask(engine, other, None)
        reply, *others = await asyncio.gather(
            ask(engine, HARBOUR, prefix),
            *(ask(engine, HARBOUR, prefix, f"And number {n}, please?") for n in range(4)),
            *(ask(engine, other, other_prefix, f"Why {n}?") for n in range(4)),
        )
    # Whichever of the five came first brought the copy in; the others share it.
    assert {source} <= {each.source for each in (reply, *others[:4])} <= {source, Source.RESIDENT}
    assert_same(reply, whole)


async def test_whole_prompts_are_the_same_with_eight_others_in_the_batch(
    tiny_model: Path, tmp_path: Path
) -> None:
    async with running(tiny_model, tmp_path, Metrics(), ram=1 << 28) as engine:
        alone = await ask(engine, HARBOUR, None)
        among, *_ = await asyncio.gather(
            ask(engine, HARBOUR, None),
            *(ask(engine, HARBOUR, None, f"And number {n}, please?") for n in range(8)),
        )
    assert_same(among, alone)


async def test_a_changed_word_is_told_apart(tiny_model: Path, tmp_path: Path) -> None:
    changed = Conversation(
        ({"role": "system", "content": MANUAL.replace("winch", "wench", 1)},), (), date(2026, 1, 1)
    )
    async with running(tiny_model, tmp_path, Metrics(), ram=1 << 28) as engine:
        prefix = await prefix_of(engine, HARBOUR)
        await engine.keep(prefix)
        whole = await ask(engine, changed, None)
        reply = await ask(engine, changed, prefix)  # shares the beginning only
        unchanged = await ask(engine, HARBOUR, None)
    assert 0 < reply.cached_tokens < 20
    assert_same(reply, whole)
    assert np.abs(whole.logprobs[0] - unchanged.logprobs[0]).max() > 10 * TOLERANCE


async def test_equal_prefixes_are_computed_once(tiny_model: Path, tmp_path: Path) -> None:
    metrics = Metrics()
    async with running(tiny_model, tmp_path, metrics, ram=1 << 28) as engine:
        prefix = await prefix_of(engine, HARBOUR)
        kept = await asyncio.gather(*(engine.keep(prefix) for _ in range(8)))
    assert sorted(one.evaluated_tokens for one in kept) == [0] * 7 + [len(prefix)]
    assert evaluated(metrics, "prefix") == len(prefix)


async def test_a_foreign_tenants_prefix_is_another_one(tiny_model: Path, tmp_path: Path) -> None:
    async with running(tiny_model, tmp_path, Metrics(), ram=1 << 28) as engine:
        prefix = await prefix_of(engine, HARBOUR)
        await engine.keep(prefix)
        assert await engine.keep(Prefix("another", prefix.tokens)) == Kept(len(prefix))
