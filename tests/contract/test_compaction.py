"""Moving everything in the KV buffer to its lowest cells changes no answer; shared cells stay shared."""

import asyncio
from pathlib import Path

import pytest
from engines import VOCABULARY, answer, asked, counted, running, tokens

from mooring.core.prefix import Prefix
from mooring.telemetry import Metrics

TOLERANCE = 0.1  # see test_exactness

pytestmark = pytest.mark.anyio


async def test_compaction_in_every_step_changes_no_answer(tiny_model: Path, tmp_path: Path) -> None:
    prefix = Prefix("a", tokens(500, seed=1))
    prompts = [prefix.tokens + tokens(20 + number, seed=number + 5) for number in range(4)]
    sampling = {"max_tokens": 12, "top_logprobs": VOCABULARY}

    async def ask_all(*, compacted: bool) -> tuple[list, int]:
        directory = tmp_path / str(compacted)
        async with running(tiny_model, directory) as engine:
            scheduler, buffer = engine._scheduler, engine._scheduler._buffer
            used = []

            def compact() -> None:
                free = buffer.free
                if compacted:
                    buffer.compact()
                    assert buffer.free == free
                    assert buffer.height == buffer.held
                used.append(buffer.held)

            scheduler._compact = compact
            await engine.keep(prefix)
            asking = [answer(engine, asked(prompt, "a", **sampling)) for prompt in prompts]
            asking.append(
                answer(engine, asked(prompts[0], "a", max_tokens=9, choices=2, temperature=1, seed=3))
            )
            return await asyncio.gather(*asking), max(used)

    plain, plain_cells = await ask_all(compacted=False)
    moved, moved_cells = await ask_all(compacted=True)
    assert moved_cells == plain_cells
    for one, other in zip(moved[:4], plain[:4], strict=True):
        assert one.tokens == other.tokens
        for got, expected in zip(one.logprobs, other.logprobs, strict=True):
            assert got == pytest.approx(expected, rel=0, abs=TOLERANCE)


async def test_engine_compacts_when_what_runs_lies_high(tiny_model: Path, tmp_path: Path) -> None:
    """A long answer begins above a long prompt, which then leaves."""
    metrics = Metrics()
    async with running(tiny_model, tmp_path, metrics=metrics, cells=8192) as engine:
        low = asyncio.create_task(answer(engine, asked(tokens(4000, seed=1), max_tokens=3)))
        high = engine.generate(asked(tokens(50, seed=2), max_tokens=400))
        events = [event async for event in high]
        await low
        await answer(engine, asked(tokens(9, seed=3)))
    assert counted(metrics, "mooring_kv_compactions_total") == 1
    assert events
