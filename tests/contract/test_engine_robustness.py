"""The engine under load and under faults: nothing hangs, nothing leaks, nothing is promised in vain.

The scheduler's invariants are checked after every step of every engine here.
"""

import asyncio
import contextlib
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import engines
import pytest
from engines import HANG_S, VOCABULARY, tokens, until

from mooring.core.errors import EngineFailed, MooringError, PromptTooLong
from mooring.core.prefix import Prefix, Tokens, pack
from mooring.engine.interface import (
    ChoiceFinished,
    Delta,
    Finished,
    Generation,
    Kept,
    Progress,
    Sampling,
    Source,
    Started,
)
from mooring.engine.llamacpp.engine import LlamaEngine
from mooring.kvstore.block import child_digest, root_digest
from mooring.kvstore.codec import Rejected, Rejection
from mooring.kvstore.match import BLOCK_TOKENS

TOLERANCE = 0.1  # see test_exactness

pytestmark = pytest.mark.anyio


running = partial(engines.running, sequences=4)


class Brake:
    """Holds every evaluation until the test lets it pass, or says what is to be told of it."""

    def __init__(self, engine: LlamaEngine) -> None:
        self.begun = 0
        self._decode = engine._context.decode
        self._orders: SimpleQueue[int | None] = SimpleQueue()
        self._released = False

    def decode(self) -> int:
        self.begun += 1
        told = None if self._released else self._orders.get()
        status = self._decode()
        return status if told is None else told

    async def next(self, status: int | None = None) -> None:
        """Let the held batch be evaluated, and wait until the next one is held."""
        begun = self.begun
        self._orders.put(status)
        await until(lambda: self.begun > begun)

    def release(self, status: int | None = None) -> None:
        self._released = True
        self._orders.put(status)


@contextmanager
def braked(engine: LlamaEngine) -> Iterator[Brake]:
    brake = Brake(engine)
    engine._context.decode = brake.decode
    try:
        yield brake
    finally:
        brake.release()


@contextmanager
def held(part: object, method: str) -> Iterator[threading.Event]:
    """Calls of one method wait for the event, which is set at the end in any case."""
    call, go = getattr(part, method), threading.Event()

    def waiting(*arguments: object, **options: object) -> object:
        go.wait()
        return call(*arguments, **options)

    setattr(part, method, waiting)
    try:
        yield go
    finally:
        go.set()


def asked(prompt: Tokens, prefix: Prefix | None = None, max_tokens: int = 5, **sampling) -> Generation:
    return engines.asked(prompt, None, prefix, max_tokens, **sampling)


async def answer(engine: LlamaEngine, generation: Generation) -> Started:
    """Follow a generation to its end; returns how it began."""
    started = (await engines.answer(engine, generation)).started
    assert started is not None
    return started


def begin(engine: LlamaEngine, generation: Generation) -> asyncio.Task[Started]:
    return asyncio.create_task(answer(engine, generation))


async def ended(*tasks: asyncio.Task) -> list[object]:
    """What became of each: its result or its exception."""
    return await asyncio.gather(*tasks, return_exceptions=True)


def files(data_dir: Path, prefix: Prefix) -> list[Path]:
    """The prefix's blocks on disk, in order."""
    paths, digest = [], root_digest(prefix.scope)
    for start in range(0, len(prefix), BLOCK_TOKENS):
        digest = child_digest(digest, pack(prefix.tokens[start : start + BLOCK_TOKENS]))
        paths.append(data_dir / "kv" / "blocks" / f"{digest.hex()}.kv")
    return [path for path in paths if path.exists()]


async def assert_nothing_is_left(engine: LlamaEngine) -> None:
    """Whatever is still in the buffer is idle, and without it the buffer is as at the start."""
    scheduler = engine._scheduler
    buffer, prefill = scheduler._buffer, scheduler._prefill
    await until(lambda: not scheduler._admitted and scheduler._saving.idle)
    emptied = threading.Event()

    def empty() -> None:
        while scheduler._idle.evict_one(besides=None):
            pass
        emptied.set()

    scheduler._inbox.call(empty)
    await asyncio.to_thread(emptied.wait)
    assert engine.failure is None
    assert not len(scheduler._admission)
    assert not scheduler._admitted.fills
    assert not prefill._arriving
    assert not prefill._producing
    assert buffer.free == buffer.total
    positions = [
        engine._context.last_position(sequence) for sequence in range(engine._context.shape.sequences)
    ]
    assert set(positions) == {-1}


# Load


class Crowd:
    """Clients that come, ask, lose patience and go, as a seed decides."""

    def __init__(self, engine: LlamaEngine, seed: int) -> None:
        self._engine = engine
        self._random = random.Random(seed)
        lengths = [self._random.randrange(5, 1500) for _ in range(8)]
        self.prefixes = [
            Prefix(f"tenant-{number % 2}", tokens(length, number))
            for number, length in enumerate(lengths)
        ]

    async def come(self, count: int) -> None:
        coming = []
        for number in range(count):
            act = self._random.choices([self._generate, self._keep, self._release], [6, 2, 1])[0]
            coming.append(asyncio.create_task(act(number)))
            if self._random.random() < 0.5:
                await asyncio.sleep(self._random.random() * 0.03)
        await asyncio.gather(*coming)

    async def _generate(self, number: int) -> None:
        choose = self._random
        prefix = choose.choice(self.prefixes)
        cut = choose.choice([len(prefix), len(prefix), len(prefix) // 2, 1, 0])
        prompt = prefix.tokens[:cut] + tokens(choose.randrange(1, 40), 1000 + number)
        sampling = Sampling(
            max_tokens=choose.randrange(1, 40),
            temperature=0.8,
            choices=choose.choice([1, 1, 1, 2, 3]),
            stop=("a",) if choose.random() < 0.2 else (),
        )
        offered = prefix if choose.random() < 0.85 else None
        scope = choose.choice([None, prefix.scope])
        generation = Generation(prompt, offered, sampling, scope=scope)
        reading = self._read(generation, choose.choice([None, None, 1, 3]))
        await self._with_patience(reading, choose.random() < 0.3)

    async def _read(self, generation: Generation, most_events: int | None) -> None:
        """Read a stream, perhaps not to its end, and look whether it is well-formed."""
        seen = []
        async with aclosing(self._engine.generate(generation)) as events:
            async for event in events:
                seen.append(event)
                if len(seen) == most_events:
                    return
                if self._random.random() < 0.05:
                    await asyncio.sleep(self._random.random() * 0.02)
        assert_well_formed(seen, generation)

    async def _keep(self, _: int) -> None:
        keeping = self._engine.keep(self._random.choice(self.prefixes))
        with contextlib.suppress(EngineFailed):  # released while it was being kept
            await self._with_patience(keeping, self._random.random() < 0.4)

    async def _release(self, _: int) -> None:
        await self._engine.release(self._random.choice(self.prefixes).id)

    async def _with_patience(self, doing, gives_up: bool) -> None:
        task = asyncio.create_task(doing)
        if gives_up:
            await asyncio.sleep(self._random.random() * 0.1)
            task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            assert gives_up


def assert_well_formed(events: list, generation: Generation) -> None:
    """Progress while it waits, one start, all choices, one end."""
    (start,) = (index for index, event in enumerate(events) if isinstance(event, Started))
    assert all(isinstance(event, Progress) for event in events[:start])
    finished = [event for event in events if isinstance(event, ChoiceFinished)]
    assert sorted(event.choice for event in finished) == list(range(generation.sampling.choices))
    usage = events[-1].usage
    assert usage.completion_tokens == sum(event.completion_tokens for event in finished)
    assert usage.prompt_tokens == len(generation.prompt)
    assert usage.cached_tokens == events[start].cached_tokens < usage.prompt_tokens


async def first_logprobs(engine: LlamaEngine, generation: Generation) -> dict[int, float]:
    """Of every token of the vocabulary at the first drawn position."""
    async with aclosing(engine.generate(generation)) as events:
        async for event in events:
            if isinstance(event, Delta):
                return {other.token: other.logprob for other in event.logprobs[0].top}
    raise AssertionError("nothing was drawn")


@pytest.mark.parametrize("ram", [0, 1 << 28])
@pytest.mark.parametrize("seed", [1, 2])
async def test_engine_serves_a_crowd_and_is_as_before(
    tiny_model: Path, tmp_path: Path, seed: int, ram: int
) -> None:
    async with running(tiny_model, tmp_path, ram=ram, max_queued=1000) as engine:
        crowd = Crowd(engine, seed)
        await crowd.come(120)
        await assert_nothing_is_left(engine)
        for prefix in crowd.prefixes[:3]:
            prompt = prefix.tokens + tokens(7, seed=50)
            sampling = {"max_tokens": 1, "top_logprobs": VOCABULARY}
            cached = await first_logprobs(engine, asked(prompt, prefix, **sampling))
            whole = await first_logprobs(engine, asked(prompt, **sampling))
            assert cached == pytest.approx(whole, rel=0, abs=TOLERANCE)
        await assert_nothing_is_left(engine)


async def test_engine_serves_a_crowd_while_the_library_and_the_disk_fail_now_and_then(
    tiny_model: Path, tmp_path: Path
) -> None:
    async with running(tiny_model, tmp_path, ram=0, max_queued=1000) as engine:
        crowd, generate = Crowd(engine, seed=3), Crowd._generate
        trouble, troubled = random.Random(3), True
        context, disk = engine._context, engine._store._reads._disk
        decode, put, get = context.decode, disk.put, disk.get

        def or_fail(call: Callable, share: float, error: Exception) -> Callable:
            def calling(*arguments: object, **options: object) -> object:
                if troubled and trouble.random() < share:
                    raise error
                return call(*arguments, **options)

            return calling

        async def generate_or_fail(number: int) -> None:
            with contextlib.suppress(EngineFailed):
                await generate(crowd, number)

        context.decode = lambda: -3 if troubled and trouble.random() < 0.02 else decode()
        disk.put = or_fail(put, 0.3, OSError("the disk is broken"))
        disk.get = or_fail(get, 0.3, Rejected(Rejection.UNREADABLE))
        crowd._generate = generate_or_fail
        await crowd.come(120)
        troubled = False
        await assert_nothing_is_left(engine)


async def test_engine_keeps_nothing_of_two_hundred_requests_that_were_cancelled(
    tiny_model: Path, tmp_path: Path
) -> None:
    """At every stage: queued, waiting for another's tokens, restoring, filling, drawing."""
    shared = Prefix("tenant", tokens(500, seed=1))
    async with running(tiny_model, tmp_path, max_queued=1000) as engine:
        await engine.keep(shared)
        chance = random.Random(4)

        async def come_and_go(number: int) -> None:
            prompt = shared.tokens[: chance.choice([0, 300, 500])] + tokens(60, seed=number % 20)
            generation = Generation(
                prompt,
                shared,
                Sampling(60, temperature=0, choices=chance.choice([1, 2])),
                scope="tenant",
            )
            async with aclosing(engine.generate(generation)) as events:
                async for seen, _ in aenumerate(events):
                    if seen == number % 12:
                        return

        async def leave_at_once(number: int) -> None:
            coming = asyncio.create_task(come_and_go(number))
            await asyncio.sleep(chance.random() * 0.05)
            coming.cancel()
            await ended(coming)

        await asyncio.gather(*((come_and_go, leave_at_once)[n % 2](n) for n in range(200)))
        await assert_nothing_is_left(engine)
        started = await answer(engine, asked(shared.tokens + tokens(9, seed=1), shared))
        assert started.cached_tokens == len(shared)


async def aenumerate(items):
    number = 0
    async for item in items:
        yield number, item
        number += 1


# Waiting for room


async def test_engine_refuses_a_prefix_larger_than_the_buffer_and_serves_on(
    tiny_model: Path, tmp_path: Path
) -> None:
    async with running(tiny_model, tmp_path, cells=512) as engine:
        with pytest.raises(PromptTooLong, match=r"600 tokens .* KV buffer of 512"):
            await engine.keep(Prefix("tenant", tokens(600, seed=1)))
        await answer(engine, asked(tokens(5, seed=2)))
        await engine.keep(Prefix("tenant", tokens(512, seed=3)))
        await assert_nothing_is_left(engine)


async def test_engine_forgets_a_withdrawn_keep_that_waits_for_room(
    tiny_model: Path, tmp_path: Path
) -> None:
    prefix = Prefix("tenant", tokens(300, seed=2))
    async with running(tiny_model, tmp_path, cells=512) as engine:
        queue = engine._scheduler._admission
        with braked(engine) as brake:
            first = begin(engine, asked(tokens(40, seed=1), max_tokens=400))
            await until(lambda: brake.begun == 1)
            keeping = asyncio.create_task(engine.keep(prefix))
            await asyncio.sleep(0)  # it is submitted
            await brake.next()
            assert [ask.prefix for ask in queue] == [prefix]
            keeping.cancel()
            await ended(keeping)
            await brake.next()
            assert not queue
            assert not engine._scheduler._saving.tickets()
            first.cancel()
        await ended(first)
        assert files(tmp_path, prefix) == []
        await assert_nothing_is_left(engine)


async def test_engine_starts_who_waits_although_nobody_reads_the_first_answer(
    tiny_model: Path, tmp_path: Path
) -> None:
    async with running(tiny_model, tmp_path, cells=512) as engine:
        unread = engine.generate(asked(tokens(50, seed=1), max_tokens=400))
        assert isinstance(await anext(unread), Started)
        await answer(engine, asked(tokens(50, seed=2), max_tokens=300))
        rest = [event async for event in unread]
        assert isinstance(rest[-1], Finished)
        await assert_nothing_is_left(engine)


async def test_engine_does_not_count_who_has_left_the_queue(tiny_model: Path, tmp_path: Path) -> None:
    async with running(tiny_model, tmp_path, cells=512, max_queued=2) as engine:
        with braked(engine) as brake:
            first = begin(engine, asked(tokens(40, seed=1), max_tokens=400))
            await until(lambda: brake.begun == 1)
            waiting, impatient = (
                begin(engine, asked(tokens(40, seed), max_tokens=400)) for seed in (2, 3)
            )
            await asyncio.sleep(0)
            await brake.next()
            impatient.cancel()
            await ended(impatient)
            await brake.next()
            late = begin(engine, asked(tokens(40, seed=4), max_tokens=2))
            await asyncio.sleep(0)
            await brake.next()
        results = await ended(first, waiting, late)
        assert [type(result) for result in results] == [Started] * 3


@pytest.mark.parametrize("prompt", [(), tokens(5, seed=2)], ids=["an empty prompt", "a prompt"])
async def test_engine_ends_a_request_with_an_empty_prefix(
    tiny_model: Path, tmp_path: Path, prompt: Tokens
) -> None:
    """Templates exist that render nothing at all, and conversations without a common beginning."""
    nothing = Prefix("tenant", ())
    async with running(tiny_model, tmp_path) as engine:
        both = asyncio.gather(
            engine.keep(nothing), answer(engine, asked(prompt, nothing)), return_exceptions=True
        )
        await answer(engine, asked(tokens(5, seed=1)))
        assert all(isinstance(result, Kept | Started | MooringError) for result in await both)
        await assert_nothing_is_left(engine)


# Saving


def saves(engine: LlamaEngine) -> list:
    return list(engine._scheduler._saving._pins.values())


async def test_engine_answers_all_keeps_of_a_prefix_when_it_is_written(
    tiny_model: Path, tmp_path: Path
) -> None:
    """Who asks in between uses it, and does not have it computed again."""
    prefix, puts = Prefix("tenant", tokens(300, seed=1)), []
    async with running(tiny_model, tmp_path, ram=0) as engine:
        disk = engine._store._reads._disk
        with held(disk, "put") as go:
            put = disk.put
            disk.put = lambda key, *rest, **options: (puts.append(key), put(key, *rest, **options))
            first = asyncio.create_task(engine.keep(prefix))
            await until(lambda: bool(puts))
            await answer(engine, asked(tokens(9, seed=2)))  # takes the idle prefix out of the buffer
            again = await answer(engine, asked(prefix.tokens + tokens(5, seed=3), prefix))
            second = asyncio.create_task(engine.keep(prefix))
            await asyncio.sleep(0)
            await answer(engine, asked(tokens(9, seed=4)))
            assert not first.done()
            assert not second.done()
            go.set()
            assert await ended(first, second) == [Kept(len(prefix)), Kept(0)]
        assert again == Started(len(prefix), Source.RAM)
        assert len(set(puts)) == 2
        assert len(files(tmp_path, prefix)) == 2
        await assert_nothing_is_left(engine)


async def test_engine_serves_a_prefix_that_could_not_be_saved(tiny_model: Path, tmp_path: Path) -> None:
    """It is in the buffer and in RAM; a keep that wants it saved stops nobody."""
    prefix = Prefix("tenant", tokens(700, seed=1))
    async with running(tiny_model, tmp_path) as engine:
        disk, put = engine._store._reads._disk, engine._store._reads._disk.put

        def fail(*_: object, **__: object) -> None:
            raise OSError("the disk is broken")

        disk.put = fail
        for _ in range(2):
            with pytest.raises(EngineFailed, match="the disk is broken"):
                await engine.keep(prefix)
            started = await answer(engine, asked(prefix.tokens + tokens(5, seed=2), prefix))
            assert started.cached_tokens == len(prefix)
            await answer(engine, asked(tokens(10, seed=3), max_tokens=1900))
        assert files(tmp_path, prefix) == []
        disk.put = put
        assert await engine.keep(prefix) == Kept(0)
        assert len(files(tmp_path, prefix)) == 3
        await assert_nothing_is_left(engine)


@pytest.mark.parametrize("ram", [0, 1 << 28])
async def test_engine_computes_again_what_was_removed_behind_its_back(
    tiny_model: Path, tmp_path: Path, ram: int
) -> None:
    """Only what is gone: the first block of two stays."""
    prefix = Prefix("tenant", tokens(300, seed=1))
    async with running(tiny_model, tmp_path, ram=ram) as engine:
        await engine.keep(prefix)
    async with running(tiny_model, tmp_path, ram=ram) as engine:
        files(tmp_path, prefix)[1].unlink()
        prompt = prefix.tokens + tokens(5, seed=3)
        # What was read ahead tells that the block is gone; until then it counts as kept.
        first = await answer(engine, asked(prompt, prefix))
        assert first.cached_tokens == BLOCK_TOKENS
        second = await answer(engine, asked(prompt, prefix))
        assert second.cached_tokens in (BLOCK_TOKENS, len(prefix))
        await until(lambda: not saves(engine))
        assert len(files(tmp_path, prefix)) == 2
        assert await engine.keep(prefix) == Kept(0)
        await assert_nothing_is_left(engine)
    await assert_on_disk(tiny_model, tmp_path, prefix)


async def test_engine_survives_a_folder_where_a_file_should_be(tiny_model: Path, tmp_path: Path) -> None:
    prefix = Prefix("tenant", tokens(200, seed=1))
    digest = child_digest(root_digest("tenant"), prefix.label)
    folder = tmp_path / "kv" / "blocks" / f"{digest.hex()}.kv"
    (folder / "something").mkdir(parents=True)
    async with running(tiny_model, tmp_path) as engine:
        with pytest.raises(EngineFailed, match="not saved"):
            await engine.keep(prefix)
        started = await answer(engine, asked(prefix.tokens + tokens(5, seed=3), prefix))
        assert started.cached_tokens == len(prefix)
        await assert_nothing_is_left(engine)
        await engine.release(prefix.id)
        shutil.rmtree(folder)
        assert await engine.keep(prefix) == Kept(0)
        await assert_nothing_is_left(engine)
    await assert_on_disk(tiny_model, tmp_path, prefix)


# Releasing


async def assert_on_disk(model: Path, data_dir: Path, prefix: Prefix) -> None:
    """A new engine finds the prefix and need not compute it."""
    async with running(model, data_dir) as engine:
        started = await answer(engine, asked(prefix.tokens + tokens(5, seed=3), prefix))
    assert started == Started(len(prefix), Source.DISK)


async def test_engine_keeps_what_was_released_just_before(tiny_model: Path, tmp_path: Path) -> None:
    """Twice, while the deletions are still under way."""
    prefix = Prefix("tenant", tokens(300, seed=1))
    async with running(tiny_model, tmp_path, ram=0) as engine:
        await engine.keep(prefix)
        with held(engine._store._reads._disk, "delete") as go:
            await engine.release(prefix.id)
            dropped = asyncio.create_task(engine.keep(prefix))
            await until(lambda: dropped.done() or bool(saves(engine)))
            await engine.release(prefix.id)
            keeping = asyncio.create_task(engine.keep(prefix))
            await until(lambda: keeping.done() or bool(saves(engine)))
            go.set()
            assert isinstance(await keeping, Kept)
            assert type((await ended(dropped))[0]) in (EngineFailed, Kept)
        await assert_nothing_is_left(engine)
    await assert_on_disk(tiny_model, tmp_path, prefix)


async def test_engine_keeps_what_is_among_the_forgotten_of_a_former_process(
    tiny_model: Path, tmp_path: Path
) -> None:
    prefix = Prefix("tenant", tokens(300, seed=1))
    async with running(tiny_model, tmp_path) as engine:
        await engine.keep(prefix)
    async with running(tiny_model, tmp_path, ram=0) as engine:
        with held(engine._store._reads._disk, "delete"):
            await engine.release_all_but([])
            keeping = asyncio.create_task(engine.keep(prefix))
            await until(lambda: keeping.done() or bool(saves(engine)))
        await keeping
    await assert_on_disk(tiny_model, tmp_path, prefix)


async def test_engine_holds_nothing_of_a_released_prefix(tiny_model: Path, tmp_path: Path) -> None:
    """What was read from disk for a chat is not brought back into RAM."""
    prefix = Prefix("tenant", tokens(300, seed=1))
    async with running(tiny_model, tmp_path) as engine:
        await engine.keep(prefix)
    async with running(tiny_model, tmp_path) as engine:
        started = await answer(engine, asked(prefix.tokens + tokens(5, seed=3), prefix))
        await engine.release(prefix.id)
        await until(lambda: not files(tmp_path, prefix) and not engine._store.ram_bytes)
        assert engine._store.blocks == 0
    assert started.source is Source.DISK


async def test_engine_lets_who_uses_a_released_prefix_go_on(tiny_model: Path, tmp_path: Path) -> None:
    prefix = Prefix("tenant", tokens(300, seed=1))
    async with running(tiny_model, tmp_path) as engine:
        await engine.keep(prefix)
        events = engine.generate(asked(prefix.tokens + tokens(5, seed=3), prefix, max_tokens=20))
        assert isinstance(await anext(events), Started)
        await engine.release(prefix.id)
        assert isinstance([event async for event in events][-1], Finished)
        await until(lambda: not files(tmp_path, prefix))
        await assert_nothing_is_left(engine)


# Faults of the library


@pytest.mark.parametrize("withdrawn", [None, 0, 1, 2, 3])
async def test_engine_fails_who_is_in_a_failing_batch_and_serves_the_others(
    tiny_model: Path, tmp_path: Path, withdrawn: int | None
) -> None:
    """The first keep is being computed, a request and a second keep wait for it, another is queued."""
    prefix = Prefix("tenant", tokens(400, seed=1))
    prompt = prefix.tokens + tokens(5, seed=2)
    async with running(tiny_model, tmp_path, batch_tokens=64) as engine:
        with braked(engine) as brake:
            tasks = [asyncio.create_task(engine.keep(prefix))]
            await until(lambda: brake.begun == 1)
            tasks.append(begin(engine, asked(prompt, prefix)))
            tasks.append(asyncio.create_task(engine.keep(prefix)))
            tasks.append(begin(engine, asked(prompt, prefix, max_tokens=1640)))  # not beside the others
            await asyncio.sleep(0)
            await brake.next()
            assert len(engine._scheduler._admission) == 1
            if withdrawn is not None:
                tasks[withdrawn].cancel()
                await ended(tasks[withdrawn])
            brake.release(-3)
        results = await ended(*tasks)
        expected = [EngineFailed, Started, Kept, Started]
        if withdrawn is not None:
            expected[withdrawn] = asyncio.CancelledError
        assert [type(result) for result in results] == expected
        assert engine.failure is None
        assert await engine.keep(prefix) == Kept(0)
        await assert_nothing_is_left(engine)


@pytest.mark.parametrize("status", [1, -1, -3])
async def test_engine_fails_a_request_whose_batch_fails_and_serves_on(
    tiny_model: Path, tmp_path: Path, status: int
) -> None:
    async with running(tiny_model, tmp_path) as engine:
        with braked(engine) as brake:
            asking = begin(engine, asked(tokens(9, seed=1), max_tokens=40, temperature=1, choices=3))
            await until(lambda: brake.begun == 1)
            await brake.next()
            brake.release(status)
        with pytest.raises(EngineFailed, match=f"status {status}"):
            await asking
        await assert_nothing_is_left(engine)


@pytest.mark.parametrize("told", [None, 2], ids=["before its evaluation", "after it"])
async def test_engine_takes_up_a_batch_again_that_was_interrupted(
    tiny_model: Path, tmp_path: Path, told: int | None
) -> None:
    prompt = tokens(300, seed=1)
    async with running(tiny_model, tmp_path, batch_tokens=64) as engine:
        sampling = {"max_tokens": 1, "top_logprobs": VOCABULARY}
        expected = await first_logprobs(engine, asked(prompt, **sampling))
        with braked(engine) as brake:
            asking = asyncio.create_task(first_logprobs(engine, asked(prompt, **sampling)))
            await until(lambda: brake.begun == 1)
            await brake.next()
            if told is None:
                engine._context.abort()  # as a cancellation would that comes too late for its own batch
            await brake.next(told)
        assert await asking == pytest.approx(expected, rel=0, abs=TOLERANCE)
        await assert_nothing_is_left(engine)


async def test_dead_engine_fails_everybody_and_says_so(tiny_model: Path, tmp_path: Path) -> None:
    reached, go = threading.Event(), threading.Event()

    def die() -> bool:
        reached.set()
        go.wait()
        raise RuntimeError("the step went wrong")

    async with running(tiny_model, tmp_path) as engine:
        with braked(engine) as brake:
            tasks = [begin(engine, asked(tokens(40, seed=1), max_tokens=900))]
            await until(lambda: brake.begun == 1)
            tasks.append(begin(engine, asked(tokens(40, seed=2), max_tokens=1900)))
            tasks.append(asyncio.create_task(engine.keep(Prefix("tenant", tokens(1500, seed=3)))))
            await asyncio.sleep(0)
            await brake.next()
            engine._scheduler.step = die
        await until(reached.is_set)
        tasks.append(begin(engine, asked(tokens(9, seed=4))))
        tasks.append(asyncio.create_task(engine.keep(Prefix("tenant", tokens(9, seed=5)))))
        await asyncio.sleep(0)
        go.set()
        results = await ended(*tasks)
        assert [type(result) for result in results] == [EngineFailed] * 5
        assert engine.failure == "RuntimeError: the step went wrong"
        with pytest.raises(EngineFailed, match="the step went wrong"):
            await engine.keep(Prefix("tenant", tokens(9, seed=6)))
        with pytest.raises(EngineFailed, match="the step went wrong"):
            await answer(engine, asked(tokens(9, seed=7)))
        await engine.release("ab" * 32)


# The end


async def test_closed_engine_refuses_instead_of_keeping_anybody_waiting(
    tiny_model: Path, tmp_path: Path
) -> None:
    async with running(tiny_model, tmp_path) as engine:
        pass
    async with asyncio.timeout(HANG_S):
        with pytest.raises(EngineFailed, match="shutting down"):
            await engine.keep(Prefix("tenant", tokens(9, seed=1)))
        with pytest.raises(EngineFailed, match="shutting down"):
            await answer(engine, asked(tokens(9, seed=2)))
        await engine.release("ab" * 32)
        await engine.release_all_but([])


async def test_closing_engine_fails_whoever_is_still_there(tiny_model: Path, tmp_path: Path) -> None:
    async with running(tiny_model, tmp_path, cells=512) as engine:
        with braked(engine) as brake:
            tasks = [begin(engine, asked(tokens(40, seed=1), max_tokens=400))]
            await until(lambda: brake.begun == 1)
            tasks.append(begin(engine, asked(tokens(40, seed=2), max_tokens=400)))
            tasks.append(asyncio.create_task(engine.keep(Prefix("tenant", tokens(300, seed=3)))))
            await asyncio.sleep(0)
            await brake.next()
            closing = asyncio.create_task(engine.close())
            await asyncio.sleep(0)
        await closing
        assert [type(result) for result in await ended(*tasks)] == [EngineFailed] * 3
    with contextlib.suppress(EngineFailed):
        await engine.keep(Prefix("tenant", tokens(9, seed=4)))
