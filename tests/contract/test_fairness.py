"""Long prompts delay others by a chunk at most, and nobody waits for ever; counted in steps."""

import asyncio
from pathlib import Path

import pytest
from engines import answer, asked, running, tokens, until

from mooring.core.errors import Overloaded
from mooring.core.prefix import Prefix
from mooring.engine.interface import Source
from mooring.engine.llamacpp.engine import LlamaEngine
from mooring.engine.llamacpp.request import Request, Stage

pytestmark = pytest.mark.anyio


def watch(engine: LlamaEngine) -> list[dict[int, int]]:
    """After each step: how many tokens every decoding request has drawn, by its prompt's length."""
    steps, scheduler, step = [], engine._scheduler, engine._scheduler.step

    def watched() -> bool:
        worked = step()
        decoding = [
            ask
            for ask in scheduler._admitted
            if isinstance(ask, Request) and ask.stage is Stage.DECODING
        ]
        steps.append({len(ask.tokens): ask.choices[0].drawn for ask in decoding})
        return worked

    scheduler.step = watched
    return steps


async def test_running_answers_draw_a_token_in_every_step_of_a_long_prefill(
    tiny_model: Path, tmp_path: Path
) -> None:
    async with running(tiny_model, tmp_path, cells=8192, batch_tokens=128) as engine:
        steps = watch(engine)
        running_answer = asyncio.create_task(answer(engine, asked(tokens(20, seed=1), max_tokens=200)))
        await until(lambda: any(20 in step for step in steps))
        await answer(engine, asked(tokens(4000, seed=2), max_tokens=1))
        await running_answer
    drawn = [step[20] for step in steps if 20 in step]
    assert drawn == list(range(1, len(drawn) + 1))


async def test_a_short_prompt_is_not_starved_by_long_ones(tiny_model: Path, tmp_path: Path) -> None:
    """It starts within two chunks although 12,000 tokens were asked for before it."""
    async with running(tiny_model, tmp_path, cells=16_384, batch_tokens=128) as engine:
        steps = watch(engine)
        long_ones = [
            asyncio.create_task(answer(engine, asked(tokens(4000, seed=number), max_tokens=2)))
            for number in range(3)
        ]
        await until(lambda: len(steps) >= 3)
        before = len(steps)
        await answer(engine, asked(tokens(30, seed=9), max_tokens=2))
        after = len(steps)
        assert not any(task.done() for task in long_ones)
        await asyncio.gather(*long_ones)
    first = next(number for number, step in enumerate(steps[before:after]) if 30 in step)
    assert first <= 4


async def test_a_long_prompt_is_not_starved_by_short_ones(tiny_model: Path, tmp_path: Path) -> None:
    """The oldest prompt takes half of every step."""
    async with running(tiny_model, tmp_path, cells=16_384, batch_tokens=128) as engine:
        steps = watch(engine)
        long_one = asyncio.create_task(answer(engine, asked(tokens(3000, seed=1), max_tokens=2)))
        ended = 0
        while not long_one.done():
            await asyncio.gather(
                *(answer(engine, asked(tokens(60, seed=n + ended), max_tokens=1)) for n in range(4))
            )
            ended += 4
    assert len(steps) <= 3000 // 64 + ended + 10


async def test_who_waits_for_room_starts_in_order(tiny_model: Path, tmp_path: Path) -> None:
    """Nobody overtakes into room that an earlier one waits for, and nobody fails for lack of room."""
    order = []

    async def ask(number: int, size: int) -> None:
        await answer(engine, asked(tokens(size, seed=number), "a", max_tokens=20))
        order.append(number)

    async with running(tiny_model, tmp_path, cells=1024) as engine:
        await asyncio.gather(*(ask(number, 900 if number % 2 else 500) for number in range(8)))
    assert order == sorted(order)


async def test_what_waits_for_room_is_read_from_disk_meanwhile(tiny_model: Path, tmp_path: Path) -> None:
    kept = Prefix("a", tokens(600, seed=1))
    async with running(tiny_model, tmp_path, cells=1024) as engine:
        await engine.keep(kept)
    async with running(tiny_model, tmp_path, cells=1024) as engine:  # it is on disk only
        steps, queue = watch(engine), engine._scheduler._admission
        first = asyncio.create_task(answer(engine, asked(tokens(500, seed=2), max_tokens=500)))
        await until(lambda: any(500 in step for step in steps))
        second = asyncio.create_task(answer(engine, asked((*kept.tokens, 7), "a", kept)))
        await until(lambda: any(ask.restore is not None and ask.restore.fetch.done() for ask in queue))
        assert not first.done()
        came = (await asyncio.gather(first, second))[1]
    assert came.started.cached_tokens == 600
    assert came.started.source is Source.DISK


async def test_requests_beyond_the_queue_are_told_to_come_again(
    tiny_model: Path, tmp_path: Path
) -> None:
    async with running(tiny_model, tmp_path, cells=512, max_queued=3) as engine:
        asking = [answer(engine, asked(tokens(300, seed=n), max_tokens=200)) for n in range(12)]
        results = await asyncio.gather(*asking, return_exceptions=True)
    refused = [result for result in results if isinstance(result, Overloaded)]
    assert 1 <= len(refused) <= 9
    assert len(refused) + sum(hasattr(result, "usage") for result in results) == 12
