"""What was computed once is not computed again, named or not, and never across tenants."""

import asyncio
from pathlib import Path

import pytest
from engines import VOCABULARY, answer, asked, evaluated, running, tokens

from mooring.core.prefix import Prefix
from mooring.engine.interface import Kept, Progress, Source
from mooring.kvstore.match import BLOCK_TOKENS
from mooring.telemetry import Metrics

TOLERANCE = 0.1  # see test_exactness
OTHER = asked(tokens(9, seed=99))
"""Takes idle sequences out of the buffer."""

pytestmark = pytest.mark.anyio


async def test_equal_prompts_of_a_tenant_are_computed_once(tiny_model: Path, tmp_path: Path) -> None:
    prompt = tokens(700, seed=1)
    async with running(tiny_model, tmp_path) as engine:
        first = await answer(engine, asked(prompt, "a"))
        resident = await answer(engine, asked(prompt, "a"))
        await answer(engine, OTHER)
        from_ram = await answer(engine, asked(prompt, "a"))
    assert (first.cached, first.source) == (0, Source.NONE)
    assert (resident.cached, resident.source) == (len(prompt) - 1, Source.RESIDENT)
    assert (from_ram.cached, from_ram.source) == (len(prompt) - 1, Source.RAM)


@pytest.mark.parametrize("between", [True, False], ids=["from the store", "resident"])
async def test_reused_tokens_give_what_computed_ones_give(
    tiny_model: Path, tmp_path: Path, between: bool
) -> None:
    beginning, end = tokens(650, seed=1), tokens(40, seed=2)
    sampling = {"max_tokens": 4, "top_logprobs": VOCABULARY}
    async with running(tiny_model, tmp_path) as engine:
        whole = await answer(engine, asked(beginning + end, **sampling))
        await answer(engine, asked(beginning + tokens(40, seed=3), "a"))
        if between:
            await answer(engine, OTHER)
        reused = await answer(engine, asked(beginning + end, "a", **sampling))
    assert reused.cached == len(beginning)
    assert reused.tokens == whole.tokens
    for got, expected in zip(reused.logprobs, whole.logprobs, strict=True):
        assert got == pytest.approx(expected, rel=0, abs=TOLERANCE)


async def test_what_another_tenant_computed_is_computed_again(tiny_model: Path, tmp_path: Path) -> None:
    prompt = tokens(600, seed=1)
    async with running(tiny_model, tmp_path) as engine:
        await answer(engine, asked(prompt, "a"))
        await engine.keep(Prefix("a", prompt))
        foreign = await answer(engine, asked(prompt, "b"))
        nobodys = await answer(engine, asked(prompt))
        beside = await asyncio.gather(
            answer(engine, asked((*prompt, 7), "a")), answer(engine, asked((*prompt, 7), "c"))
        )
    assert (foreign.cached, nobodys.cached) == (0, 0)
    assert [one.cached for one in beside] == [len(prompt), 0]


async def test_a_conversation_computes_only_what_is_new(tiny_model: Path, tmp_path: Path) -> None:
    """Eight of them in turn, so that each has left the buffer when it goes on."""
    metrics, new, drawn = Metrics(), 37, 6
    async with running(tiny_model, tmp_path, metrics=metrics) as engine:
        conversations = {number: tokens(300, seed=number) for number in range(8)}
        computed = []
        for turn in range(5):
            for number, said in conversations.items():
                prompt = said + tokens(new, seed=100 * turn + number + 10)
                came = await answer(engine, asked(prompt, "a", max_tokens=drawn, top_logprobs=0, seed=1))
                computed.append(came.evaluated)
                conversations[number] = prompt + tuple(came.tokens)
    # The token drawn last is not evaluated before the next turn.
    assert computed == [300 + new] * 8 + [new + 1] * (len(computed) - 8)
    assert evaluated(metrics) == sum(computed)


async def test_a_kept_prefix_serves_requests_that_never_named_it(
    tiny_model: Path, tmp_path: Path
) -> None:
    prefix = Prefix("a", tokens(BLOCK_TOKENS + 90, seed=1))
    async with running(tiny_model, tmp_path) as engine:
        await engine.keep(prefix)
        await answer(engine, OTHER)
        came = await answer(engine, asked(prefix.tokens + tokens(20, seed=2), "a"))
    async with running(tiny_model, tmp_path, ram=0) as engine:
        after_restart = await answer(engine, asked(prefix.tokens + tokens(20, seed=2), "a"))
    assert (came.cached, came.source) == (len(prefix), Source.RAM)
    assert (after_restart.cached, after_restart.source) == (len(prefix), Source.DISK)


async def test_keeping_what_was_chatted_about_computes_nothing(tiny_model: Path, tmp_path: Path) -> None:
    beginning = tokens(600, seed=1)
    async with running(tiny_model, tmp_path) as engine:
        await answer(engine, asked(beginning + tokens(30, seed=2), "a"))
        assert await engine.keep(Prefix("a", beginning)) == Kept(0)
        longer = Prefix("a", beginning + tokens(100, seed=3))
        assert await engine.keep(longer) == Kept(100)


async def test_a_beginning_that_two_prefixes_share_is_stored_once(
    tiny_model: Path, tmp_path: Path
) -> None:
    common = tokens(2 * BLOCK_TOKENS, seed=1)
    one, two = (Prefix("a", common + tokens(10, seed)) for seed in (2, 3))
    async with running(tiny_model, tmp_path) as engine:
        await engine.keep(one)
        assert await engine.keep(two) == Kept(10)
    assert len(list((tmp_path / "kv").rglob("*.kv"))) == 4  # two common blocks, two tails


async def test_requests_on_a_prompt_that_is_being_computed_wait_for_it(
    tiny_model: Path, tmp_path: Path
) -> None:
    metrics, common = Metrics(), tokens(900, seed=1)
    async with running(tiny_model, tmp_path, metrics=metrics, batch_tokens=64) as engine:
        prompts = [common + tokens(12, seed=10 + number) for number in range(6)]
        came = await asyncio.gather(*(answer(engine, asked(prompt, "a")) for prompt in prompts))
    assert sorted(one.evaluated for one in came) == [12] * 5 + [912]
    assert evaluated(metrics) == 900 + 6 * 12
    assert [one.source for one in came].count(Source.COMPUTED) == 5


async def test_the_next_one_takes_over_a_computation_whose_client_went_away(
    tiny_model: Path, tmp_path: Path
) -> None:
    common = tokens(900, seed=1)
    async with running(tiny_model, tmp_path, batch_tokens=32) as engine:
        first = engine.generate(asked((*common, 7), "a"))
        while not isinstance(await anext(first), Progress):
            pass
        rest = [
            asyncio.create_task(answer(engine, asked((*common, 8 + number), "a"))) for number in range(3)
        ]
        await anext(first)
        await first.aclose()
        came = await asyncio.gather(*rest)
    taken_over = min(one.cached for one in came)
    assert 0 < taken_over < 900
    assert sorted(one.cached for one in came)[1:] == [900, 900]


async def test_without_automatic_reuse_only_what_is_named_is_reused(
    tiny_model: Path, tmp_path: Path
) -> None:
    prefix = Prefix("a", tokens(400, seed=1))
    prompt = prefix.tokens + tokens(30, seed=2)
    async with running(tiny_model, tmp_path, automatic_reuse=False) as engine:
        await engine.keep(prefix)
        unnamed = await answer(engine, asked(prompt, "a"))
        named = await answer(engine, asked(prompt, "a", prefix))
        again = await answer(engine, asked(prompt, "a", prefix))
    assert (unnamed.cached, named.cached, again.cached) == (0, len(prefix), len(prefix))


async def test_answers_of_one_request_share_its_prompt(tiny_model: Path, tmp_path: Path) -> None:
    metrics = Metrics()
    async with running(tiny_model, tmp_path, metrics=metrics, cells=1024) as engine:
        prompt = tokens(800, seed=1)
        came = await answer(engine, asked(prompt, "a", max_tokens=50, choices=4, temperature=1))
        again = await answer(engine, asked(prompt, "a", max_tokens=50, choices=4, temperature=1))
    assert (came.evaluated, again.evaluated) == (800, 1)
