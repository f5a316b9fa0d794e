"""What is particular to an engine over vLLM workers: real ones, two of them, with one shared tier."""

import asyncio
import json
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from any_engine import running_cluster
from both_engines import LONG, Running, asked, events_of, tokens, until

from mooring.core.errors import EngineUnavailable, InvalidRequest, StartRefused
from mooring.core.prefix import Prefix
from mooring.engine.interface import (
    ChoiceFinished,
    Delta,
    Event,
    Finished,
    FinishReason,
    Generation,
    Grammar,
    Kept,
    Sampling,
    Source,
    Started,
)
from mooring.engine.vllm.engine import VllmEngine
from mooring.testing import Served

pytestmark = [pytest.mark.anyio, pytest.mark.vllm]

BLOCK = 32


@dataclass
class Came:
    """What came of a generation."""

    started: Started | None = None
    text: dict[int, str] = field(default_factory=dict)
    reasons: dict[int, FinishReason] = field(default_factory=dict)
    finished: Finished | None = None
    logprobs: list = field(default_factory=list)

    @property
    def cached(self) -> int:
        assert self.started is not None
        assert self.finished is not None
        assert self.started.cached_tokens == self.finished.usage.cached_tokens
        return self.started.cached_tokens


def read(events: list[Event]) -> Came:
    came = Came()
    for event in events:
        match event:
            case Started():
                came.started = event
            case Delta(choice, text, logprobs):
                came.text[choice] = came.text.get(choice, "") + text
                came.logprobs += logprobs
            case ChoiceFinished(choice, reason, _):
                came.reasons[choice] = reason
            case Finished():
                came.finished = event
    return came


async def answer(here: Running, generation: Generation) -> Came:
    return read(await events_of(here.engine, generation))


def said(prompt, scope: str | None, **sampling) -> Generation:
    return Generation(
        prompt, None, Sampling(**{"max_tokens": 4, "temperature": 0} | sampling), scope=scope
    )


@pytest.fixture
async def here(cluster) -> AsyncIterator[Running]:
    async with running_cluster(cluster.served) as running:
        yield running
        engine = running.engine
        assert isinstance(engine, VllmEngine)
        for worker in engine.workers():
            engine.drain(worker.url, drained=False)


@pytest.fixture
def scope() -> str:
    return secrets.token_hex(8)


def only(here: Running, number: int) -> None:
    """Leave one worker to answer."""
    assert isinstance(here.engine, VllmEngine)
    for index, worker in enumerate(here.engine.workers()):
        here.engine.drain(worker.url, drained=index != number)


async def test_a_prefix_that_one_worker_kept_is_used_on_all(here: Running, scope: str) -> None:
    prefix = Prefix(scope, tokens(10 * BLOCK, seed=1))
    only(here, 0)
    assert await here.engine.keep(prefix) == Kept(320)
    question = asked(prefix.tokens + tokens(7, seed=2), prefix)
    first = await answer(here, question)
    assert first.started == Started(320, Source.RESIDENT)
    only(here, 1)
    second, third = await answer(here, question), await answer(here, question)
    assert second.started == Started(320, Source.SHARED)
    assert third.started == Started(320, Source.RESIDENT)
    assert first.text == second.text == third.text
    assert here.metric("mooring_prompt_tokens_evaluated_total", purpose="request") == 3 * 7
    assert here.metric("mooring_prompt_tokens_evaluated_total", purpose="prefix") == 320
    assert here.metric("mooring_prefix_recomputed_total") == 0


async def test_the_worker_that_holds_a_prefix_is_preferred(here: Running, scope: str) -> None:
    prefix = Prefix(scope, tokens(10 * BLOCK, seed=1))
    await here.engine.keep(prefix)
    for number in range(6):
        came = await answer(here, asked(prefix.tokens + tokens(7, seed=number), prefix))
        assert came.started == Started(320, Source.RESIDENT)


async def test_what_is_left_of_the_last_block_is_computed_and_counted(here: Running, scope: str) -> None:
    prefix = Prefix(scope, tokens(330, seed=1))
    assert await here.engine.keep(prefix) == Kept(330)
    assert await here.engine.keep(prefix) == Kept(10)
    came = await answer(here, asked(prefix.tokens + tokens(7, seed=2), prefix))
    assert came.cached == 320


async def test_a_prefix_shorter_than_a_block_is_computed_each_time(here: Running, scope: str) -> None:
    prefix = Prefix(scope, tokens(BLOCK - 1, seed=1))
    assert await here.engine.keep(prefix) == Kept(0)
    came = await answer(here, asked(prefix.tokens + tokens(7, seed=2), prefix))
    assert came.started == Started(0, Source.NONE)


async def test_a_kept_prefix_whose_bytes_are_lost_is_computed_again_once_and_not_called_cached(
    here: Running, cluster, scope: str
) -> None:
    prefix = Prefix(scope, tokens(10 * BLOCK, seed=1))
    await here.engine.keep(prefix)
    async with running_cluster(cluster.served) as other:
        await other.engine.release(prefix.id)  # behind the first one's back
    only(here, 0)
    # On the device unpinned blocks may still be found; without them nothing is left.
    for number in range(4):
        await answer(here, said(tokens(1900, seed=20 + number), scope=None))
    came = await answer(here, asked(prefix.tokens + tokens(7, seed=2), prefix))
    assert came.started == Started(0, Source.COMPUTED)
    assert here.metric("mooring_prefix_recomputed_total") == 1
    again = await answer(here, asked(prefix.tokens + tokens(7, seed=3), prefix))
    assert again.cached == 320


async def test_a_prefix_that_many_want_kept_is_computed_once(here: Running, scope: str) -> None:
    prefix = Prefix(scope, tokens(20 * BLOCK, seed=9))
    keeps = [asyncio.create_task(here.engine.keep(prefix)) for _ in range(4)]
    await asyncio.sleep(0)
    keeps[0].cancel()  # who goes takes nothing away from the others
    assert await asyncio.gather(*keeps[1:]) == [Kept(640)] * 3
    assert here.metric("mooring_prompt_tokens_evaluated_total", purpose="prefix") == 640


async def test_a_keep_that_was_given_up_can_be_asked_for_again(here: Running, scope: str) -> None:
    prefix = Prefix(scope, tokens(20 * BLOCK, seed=10))
    given_up = asyncio.create_task(here.engine.keep(prefix))
    await asyncio.sleep(0)
    given_up.cancel()
    again = asyncio.create_task(here.engine.keep(prefix))
    assert (await asyncio.gather(given_up, again, return_exceptions=True))[1] in (
        Kept(640),
        Kept(0),
    )
    assert (await answer(here, asked((*prefix.tokens, 5), prefix))).cached == 640


async def test_automatic_reuse_stays_within_a_tenant(here: Running, scope: str) -> None:
    prompt = tokens(10 * BLOCK + 5, seed=4)
    assert (await answer(here, said(prompt, scope))).cached == 0
    assert (await answer(here, said(prompt, scope))).cached == 320
    assert (await answer(here, said(prompt, scope + "-other"))).cached == 0
    assert (await answer(here, said(prompt, None))).cached == 0
    assert (await answer(here, said(prompt, None))).cached == 0


async def test_without_automatic_reuse_only_what_was_named_counts(cluster, scope: str) -> None:
    async with running_cluster(cluster.served, automatic_reuse=False) as here:
        prompt = tokens(10 * BLOCK + 5, seed=5)
        assert (await answer(here, said(prompt, scope))).cached == 0
        assert (await answer(here, said(prompt, scope))).cached == 0


async def test_the_next_turn_of_a_conversation_goes_where_the_last_one_went(
    here: Running, scope: str
) -> None:
    for conversation in range(4):
        prompt = tokens(6 * BLOCK + 5, seed=30 + conversation)
        held = 0
        for turn in range(3):
            came = await answer(here, said(prompt, scope))
            assert came.cached == held
            held = len(prompt) // BLOCK * BLOCK
            prompt += tokens(50 + turn, seed=40 + turn)


async def test_choices_stop_strings_and_log_probabilities(here: Running, scope: str) -> None:
    prompt = tokens(40, seed=6)
    plain = await answer(here, said(prompt, scope, max_tokens=12))
    text = plain.text[0]
    stop = text[len(text) // 2 :][:3]
    cut = await answer(here, said(prompt, scope, max_tokens=12, stop=(stop,)))
    assert cut.text.get(0, "") == text[: text.index(stop)]
    assert cut.reasons == {0: FinishReason.STOP}

    twice = await answer(here, said(prompt, scope, max_tokens=12, choices=2))
    assert twice.text == {0: text, 1: text}

    told = await answer(here, said(prompt, scope, max_tokens=12, top_logprobs=3))
    assert told.text == plain.text
    drawn = b"".join(sampled.drawn.data for sampled in told.logprobs)
    assert drawn.decode(errors="ignore").startswith(text.rstrip("\N{REPLACEMENT CHARACTER}"))
    for sampled in told.logprobs:
        assert sampled.top[0].token == sampled.drawn.token  # greedy
        assert [each.logprob for each in sampled.top] == sorted(
            (each.logprob for each in sampled.top), reverse=True
        )


async def test_equal_seeds_draw_equal_answers_and_choices_differ(here: Running, scope: str) -> None:
    ask = said(tokens(40, seed=7), scope, max_tokens=12, temperature=1, seed=11, choices=2)
    first, second = await answer(here, ask), await answer(here, ask)
    assert first.text == second.text
    assert first.text[0] != first.text[1]


async def test_answers_follow_a_grammar_with_control_tokens(here: Running, scope: str) -> None:
    control = here.engine.model.control_tokens
    mark = "<|im_start|>"
    grammar = Grammar(f'start: <[{control[mark]}]> "quay " /[0-9]{{3}}/', "tools")
    ask = Generation(
        tokens(9, seed=8), None, Sampling(40, temperature=1), grammar, frozenset({mark}), scope
    )
    came = await answer(here, ask)
    assert came.text[0].startswith(f"{mark}quay ")
    assert came.reasons == {0: FinishReason.STOP}
    hidden = await answer(here, Generation(tokens(9, seed=8), None, Sampling(40), grammar, scope=scope))
    assert hidden.text[0].startswith("quay ")


async def test_a_grammar_too_large_to_be_sent_is_refused(here: Running) -> None:
    large = Grammar("start: " + '"x" ' * 20_000, "response_format")
    with pytest.raises(InvalidRequest, match="response_format: no answer can be held to it"):
        await events_of(here.engine, asked((5, 6), grammar=large))


async def test_an_answer_nobody_reads_any_more_is_stopped_on_its_worker(here: Running) -> None:
    async with aclosing(here.engine.generate(asked((5, 6), grammar=LONG, max_tokens=1900))) as all_:
        async for event in all_:
            if isinstance(event, Delta):
                break
    assert isinstance(here.engine, VllmEngine)
    await until(lambda: all(worker.requests == 0 for worker in here.engine.workers()))


async def test_no_worker_that_takes_requests_is_a_clear_error(here: Running) -> None:
    only(here, 2)
    with pytest.raises(EngineUnavailable, match=r"is draining; .* is draining"):
        await events_of(here.engine, asked((5, 6)))
    assert here.engine.failure is not None
    only(here, 0)
    assert here.engine.failure is None
    assert isinstance((await events_of(here.engine, asked((5, 6))))[-1], Finished)


async def test_a_cluster_starts_with_what_there_is(cluster) -> None:
    nobody = "http://127.0.0.1:9"
    with pytest.raises(StartRefused, match=r"no vLLM worker can be used: .*:9 cannot be reached"):
        async with running_cluster(Served(cluster.model, (nobody,))):
            pass
    async with running_cluster(Served(cluster.model, (nobody, *cluster.served.workers))) as here:
        assert isinstance(here.engine, VllmEngine)
        assert [worker.state for worker in here.engine.workers()] == ["down", "up", "up"]
        assert isinstance((await events_of(here.engine, asked((5, 6))))[-1], Finished)


async def test_a_model_with_another_vocabulary_is_refused(cluster, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(cluster.model, other)
    description = json.loads((other / "tokenizer.json").read_text())
    ids = description["model"]["vocab"]
    ids["e"], ids["a"] = ids["a"], ids["e"]
    (other / "tokenizer.json").write_text(json.dumps(description))
    with pytest.raises(StartRefused, match="another vocabulary than --model"):
        async with running_cluster(Served(other, cluster.served.workers)):
            pass


async def test_whoever_names_no_worker_or_model_is_told(cluster) -> None:
    with pytest.raises(StartRefused, match="--worker"):
        async with running_cluster(Served(cluster.model, ())):
            pass
