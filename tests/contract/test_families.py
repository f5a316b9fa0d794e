"""Models whose sequences cannot be cut: caches that were created are used as a whole, exactly."""

import asyncio
from pathlib import Path

import pytest
from engines import VOCABULARY, answer, asked, evaluated, running, tokens

from mooring.core.prefix import Prefix
from mooring.engine.interface import Kept, Source
from mooring.telemetry import Metrics
from mooring.testing import (
    TINY_HYBRID,
    TINY_LLAMA,
    TINY_RECURRENT,
    TINY_WINDOWED,
    Family,
    ModelShape,
    write_random_model,
)

TOLERANCE = 0.1  # see test_exactness
WHOLE = [TINY_WINDOWED, TINY_RECURRENT, TINY_HYBRID]
OTHER = asked(tokens(9, seed=99))
"""Takes idle sequences out of the buffer."""
SAMPLING = {"max_tokens": 4, "top_logprobs": VOCABULARY}

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory):
    made: dict[Family, Path] = {}

    def make(shape: ModelShape) -> Path:
        if shape.family not in made:
            path = tmp_path_factory.mktemp("families") / f"{shape.family}.gguf"
            made[shape.family] = write_random_model(path, shape)
        return made[shape.family]

    return make


def assert_same(one, other) -> None:
    assert one.tokens == other.tokens
    for got, expected in zip(one.logprobs, other.logprobs, strict=True):
        assert got == pytest.approx(expected, rel=0, abs=TOLERANCE)


@pytest.mark.parametrize("shape", [*WHOLE, TINY_LLAMA], ids=lambda shape: shape.family)
async def test_a_kept_prefix_gives_what_the_whole_prompt_gives(
    make_model, tmp_path: Path, shape: ModelShape
) -> None:
    """From the buffer, from RAM, and from disk after a restart."""
    metrics, prefix = Metrics(), Prefix("a", tokens(700, seed=1))
    prompt = prefix.tokens + tokens(30, seed=2)
    model = make_model(shape)
    async with running(model, tmp_path, metrics=metrics) as engine:
        whole = await answer(engine, asked(prompt, **SAMPLING))
        assert await engine.keep(prefix) == Kept(len(prefix))
        came = [await answer(engine, asked(prompt, None, prefix, **SAMPLING))]
        await answer(engine, OTHER)
        came.append(await answer(engine, asked(prompt, None, prefix, **SAMPLING)))
    async with running(model, tmp_path, metrics=metrics, ram=0) as engine:
        came.append(await answer(engine, asked(prompt, None, prefix, **SAMPLING)))
    for one in came:
        assert one.cached == len(prefix)
        assert_same(one, whole)
    assert evaluated(metrics) == len(prompt) + len(prefix) + 3 * 30 + 9


@pytest.mark.parametrize("shape", WHOLE, ids=lambda shape: shape.family)
async def test_requests_share_a_checkpoint_while_others_run(
    make_model, tmp_path: Path, shape: ModelShape
) -> None:
    metrics, prefix = Metrics(), Prefix("a", tokens(400, seed=1))
    prompts = [prefix.tokens + tokens(10 + number, seed=number + 5) for number in range(4)]
    async with running(make_model(shape), tmp_path, metrics=metrics) as engine:
        alone = [await answer(engine, asked(prompt, **SAMPLING)) for prompt in prompts]
        await engine.keep(prefix)
        before = evaluated(metrics)
        together = await asyncio.gather(
            *(answer(engine, asked(prompt, None, prefix, **SAMPLING)) for prompt in prompts),
            answer(engine, asked(tokens(300, seed=77), max_tokens=20)),
        )
    for one, expected in zip(together[:4], alone, strict=True):
        assert one.cached == len(prefix)
        assert_same(one, expected)
    assert evaluated(metrics) - before == 10 + 11 + 12 + 13 + 300


@pytest.mark.parametrize("shape", WHOLE, ids=lambda shape: shape.family)
async def test_a_lost_checkpoint_is_computed_again_once(
    make_model, tmp_path: Path, shape: ModelShape
) -> None:
    metrics, prefix = Metrics(), Prefix("a", tokens(400, seed=1))
    async with running(make_model(shape), tmp_path, metrics=metrics) as engine:
        prompts = [prefix.tokens + tokens(10, seed=number) for number in range(3)]
        came = await asyncio.gather(*(answer(engine, asked(prompt, "a", prefix)) for prompt in prompts))
        await answer(engine, OTHER)
        later = await answer(engine, asked(prompts[0], "a", prefix))
    assert sorted(one.cached for one in came) == [0, 400, 400]
    assert evaluated(metrics) == 400 + 4 * 10 + 9
    assert later.cached == 400


@pytest.mark.parametrize("shape", WHOLE, ids=lambda shape: shape.family)
async def test_what_does_not_begin_with_the_whole_prefix_is_computed(
    make_model, tmp_path: Path, shape: ModelShape
) -> None:
    prefix = Prefix("a", tokens(400, seed=1))
    changed = prefix.tokens[:399] + tokens(30, seed=2)
    async with running(make_model(shape), tmp_path) as engine:
        await engine.keep(prefix)
        whole = await answer(engine, asked(changed, **SAMPLING))
        came = await answer(engine, asked(changed, "a", prefix, **SAMPLING))
        unnamed = await answer(engine, asked(prefix.tokens + tokens(5, seed=3), "a"))
        itself = await answer(engine, asked(prefix.tokens, "a", prefix))
    assert (came.cached, came.source) == (0, Source.NONE)
    assert_same(came, whole)
    assert (unnamed.cached, itself.cached) == (0, 0)


@pytest.mark.parametrize("shape", WHOLE, ids=lambda shape: shape.family)
async def test_cancelled_requests_ruin_nobody(make_model, tmp_path: Path, shape: ModelShape) -> None:
    prefix = Prefix("a", tokens(300, seed=1))
    prompt = prefix.tokens + tokens(20, seed=2)
    async with running(make_model(shape), tmp_path, batch_tokens=64) as engine:
        whole = await answer(engine, asked(prompt, **SAMPLING))
        await engine.keep(prefix)
        for number in range(8):
            leaving = engine.generate(asked(tokens(500, seed=number + 10), max_tokens=50))
            await anext(leaving)
            staying = asyncio.create_task(answer(engine, asked(prompt, None, prefix, **SAMPLING)))
            await asyncio.sleep(0.003 * number)
            await leaving.aclose()
            assert_same(await staying, whole)
