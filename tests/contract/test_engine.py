"""What the interface promises of an engine: embedded in this process, in a child, and over vLLM."""

import asyncio
import secrets
from contextlib import aclosing
from datetime import date
from pathlib import Path

import pytest
from any_engine import EMBEDDED, VLLM, Run
from both_engines import IN_PROCESS, LONG, asked, events_of, running, tokens, until
from templates import MERGES_SYSTEM_INTO_USER

from mooring.core.conversation import Conversation
from mooring.core.errors import EngineFailed, InvalidRequest, Overloaded, PromptTooLong
from mooring.core.prefix import Prefix
from mooring.engine.interface import (
    ChoiceFinished,
    Delta,
    Finished,
    Grammar,
    Kept,
    Progress,
    Source,
    Started,
)

KINDS = [*EMBEDDED, pytest.param(VLLM, marks=pytest.mark.vllm)]
MANUAL = Conversation(({"role": "system", "content": "Berth 9 is long."},), (), date(2026, 1, 1))
QUESTION = {"role": "user", "content": "How long?"}

pytestmark = pytest.mark.anyio


@pytest.fixture(params=KINDS)
def run(request: pytest.FixtureRequest) -> Run:
    """Starts an engine of each kind."""
    if request.param == VLLM:
        cluster = request.getfixturevalue("cluster")
        return Run(VLLM, cluster.model, cluster.served, cluster.tier)
    return Run(request.param, request.getfixturevalue("tiny_model"))


@pytest.fixture
def scope() -> str:
    """A tenant that no test before had: workers outlive the engines of this file."""
    return secrets.token_hex(8)


async def test_engine_renders_a_conversation_after_its_stable_prefix(run: Run, tmp_path: Path) -> None:
    async with run(tmp_path) as here:
        prefix = await here.engine.stable_prefix(MANUAL)
        prompt = await here.engine.render(MANUAL.followed_by((QUESTION,)))
        assert 0 < len(prefix) < len(prompt)
        assert prompt[: len(prefix)] == prefix
        assert here.engine.model.context_tokens == 2048
        assert not here.engine.failure


async def test_engine_says_what_is_wrong_with_messages(run: Run, tmp_path: Path) -> None:
    async with run(tmp_path, chat_template=MERGES_SYSTEM_INTO_USER) as here:
        twice = Conversation((QUESTION, QUESTION), (), date(2026, 1, 1))
        with pytest.raises(InvalidRequest, match="must alternate") as refused:
            await here.engine.render(twice)
        assert refused.value.param == "messages"
        long = Conversation(({"role": "user", "content": "x" * 10_000_000},), (), date(2026, 1, 1))
        with pytest.raises(PromptTooLong, match="characters do not fit"):
            await here.engine.render(long)


async def test_engine_keeps_a_prefix_once_and_tells_of_its_progress(
    run: Run, scope: str, tmp_path: Path
) -> None:
    prefix, seen = Prefix(scope, tokens(320, seed=1)), []
    async with run(tmp_path, batch_tokens=64) as here:
        assert await here.engine.keep(prefix, seen.append) == Kept(320)
        assert run.stored(tmp_path)
        assert [news.evaluated_tokens for news in seen] == sorted({n.evaluated_tokens for n in seen})
        assert seen[-1] == Progress(320, 320)
        assert await here.engine.keep(prefix) == Kept(0)
        assert await here.engine.keep(Prefix(scope, ())) == Kept(0)
        assert here.metric("mooring_prompt_tokens_evaluated_total", purpose="prefix") == 320
        with pytest.raises(PromptTooLong, match=r"3000 tokens .* of 2048"):
            await here.engine.keep(Prefix(scope, tokens(3000, seed=1)))


async def test_engine_answers_on_a_kept_prefix_and_counts_before_it_answers(
    run: Run, scope: str, tmp_path: Path
) -> None:
    prefix = Prefix(scope, tokens(320, seed=1))
    async with run(tmp_path) as here:
        await here.engine.keep(prefix)
        for number in (1, 2, 3):
            prompt = prefix.tokens + tokens(7, seed=2)
            events = await events_of(here.engine, asked(prompt, prefix, choices=2, top_logprobs=1))
            assert here.metric("mooring_prompt_tokens_evaluated_total", purpose="request") == 7 * number
            cached = here.metric("mooring_prompt_tokens_cached_total", source="resident")
            assert cached == 320 * number
            drawn = here.metric("mooring_completion_tokens_total")
            starts = [event for event in events if isinstance(event, Started)]
            ends = [event for event in events if isinstance(event, ChoiceFinished)]
            deltas = [event for event in events if isinstance(event, Delta)]
            assert starts == [Started(320, Source.RESIDENT)]
            assert sorted(end.choice for end in ends) == [0, 1]
            assert drawn == number * sum(end.completion_tokens for end in ends)
            assert deltas[0].logprobs[0].drawn.logprob <= 0
            assert isinstance(events[-1], Finished)
            assert events[-1].usage.cached_tokens == 320


async def test_engine_says_what_is_wrong_with_a_grammar_and_with_a_prompt(
    run: Run, tmp_path: Path
) -> None:
    async with run(tmp_path) as here:
        with pytest.raises(InvalidRequest) as refused:
            await events_of(here.engine, asked((5, 6), grammar=Grammar("start: ((", "tools")))
        assert refused.value.param == "tools"
        with pytest.raises(InvalidRequest, match="makes nothing"):
            await events_of(here.engine, asked(()))
        with pytest.raises(PromptTooLong, match="3000 tokens"):
            await events_of(here.engine, asked(tokens(2995, seed=1)))


async def test_engine_lets_go_of_what_nobody_reads_any_more(
    run: Run, scope: str, tmp_path: Path
) -> None:
    async with run(tmp_path) as here:
        for _ in range(20):
            async with aclosing(
                here.engine.generate(asked((5, 6), grammar=LONG, max_tokens=900))
            ) as all_:
                async for event in all_:
                    if isinstance(event, Delta):
                        break
        keeping = asyncio.create_task(here.engine.keep(Prefix(scope, tokens(1500, seed=3))))
        await asyncio.sleep(0)
        keeping.cancel()
        await until(lambda: here.metric("mooring_requests_running") == 0)
        all_the_room = asked((5, 6), max_tokens=2000)
        assert isinstance((await events_of(here.engine, all_the_room))[-1], Finished)


async def test_engine_serves_others_while_nobody_reads_an_answer(run: Run, tmp_path: Path) -> None:
    async with run(tmp_path, cells=512) as here:
        unread = here.engine.generate(asked((5, 6, 7), grammar=LONG, max_tokens=400))
        assert isinstance(await anext(unread), Started)
        await events_of(here.engine, asked(tokens(50, seed=2), max_tokens=300))
        rest = [event async for event in unread]
        assert sum(isinstance(event, Delta) for event in rest) <= 400
        assert rest[-1].usage.completion_tokens == 400


async def test_engine_turns_away_who_finds_the_queue_full(run: Run, tmp_path: Path) -> None:
    async with run(tmp_path, cells=512, max_queued=1) as here:
        holding = here.engine.generate(asked((5, 6), grammar=LONG, max_tokens=400))
        assert isinstance(await anext(holding), Started)
        asks = [asked((5, number), grammar=LONG, max_tokens=400) for number in range(7, 12)]
        waiting = [asyncio.create_task(events_of(here.engine, ask)) for ask in asks]
        first_done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert all(isinstance(task.exception(), Overloaded) for task in first_done)
        await holding.aclose()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert any(isinstance(result, list) for result in results)


async def test_engine_forgets_what_is_released(run: Run, scope: str, tmp_path: Path) -> None:
    first, second, third = (Prefix(scope, tokens(64, seed)) for seed in (1, 2, 3))
    async with run(tmp_path) as here:
        await here.engine.release_all_but([])
        kept = []
        for prefix in (third, second, first):
            await here.engine.keep(prefix)
            kept.append(run.stored(tmp_path))
        await here.engine.release(first.id)
        await until(lambda: run.stored(tmp_path) == kept[1])
        await here.engine.release_all_but([third.id])
        await until(lambda: run.stored(tmp_path) == kept[0])
        assert await here.engine.keep(third) == Kept(0)
        await here.engine.keep(first)
        assert run.stored(tmp_path) > kept[0]


async def test_closing_engine_fails_who_is_there_and_who_comes(
    run: Run, scope: str, tmp_path: Path
) -> None:
    async with run(tmp_path) as here:
        answer = here.engine.generate(asked((5, 6), grammar=LONG, max_tokens=1500))
        assert isinstance(await anext(answer), Started)
        await here.engine.close()
        with pytest.raises(EngineFailed, match="shutting down"):
            [event async for event in answer]
        with pytest.raises(EngineFailed, match="shutting down"):
            await here.engine.keep(Prefix(scope, (5, 6)))
        with pytest.raises(EngineFailed, match="shutting down"):
            await here.engine.render(MANUAL)
        with pytest.raises(EngineFailed, match="shutting down"):
            await events_of(here.engine, asked((5, 6)))
        await here.engine.release("ab" * 32)
        await here.engine.release_all_but([])


@pytest.mark.parametrize("kind", EMBEDDED)
async def test_engine_says_what_the_one_in_this_process_says(
    kind: str, tiny_model: Path, tmp_path: Path
) -> None:
    heard = []
    for number, where in enumerate((IN_PROCESS, kind)):
        async with running(where, tiny_model, tmp_path / str(number)) as here:
            prompt = await here.engine.render(MANUAL.followed_by((QUESTION,)))
            ask = asked(prompt, max_tokens=40, seed=3, temperature=1, top_logprobs=2)
            heard.append((here.engine.model, prompt, await events_of(here.engine, ask)))
    assert heard[0] == heard[1]
