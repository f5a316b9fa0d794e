"""The engine's process dies in every situation; nobody hangs, and nothing that was promised is lost."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import aclosing
from datetime import date
from pathlib import Path

import pytest
from both_engines import CHILD, LONG, Running, asked, events_of, running, tokens, until

from mooring.config import EngineConfig, KvStoreConfig
from mooring.core.conversation import Conversation
from mooring.core.errors import (
    EngineLost,
    EngineUnavailable,
    ModelUnreadable,
    Overloaded,
    StartRefused,
)
from mooring.core.prefix import Prefix
from mooring.engine.interface import Delta, Finished, Kept, Progress, Source, Started
from mooring.engine.process import backoff
from mooring.engine.process.engine import start_engine
from mooring.telemetry import ServerMetrics
from mooring.testing import TINY, write_random_model

HELLO = Conversation(({"role": "user", "content": "Hello"},), (), date(2026, 1, 1))
PREFIX = Prefix("tenant", tokens(300, seed=1))
SMALL_STEPS = {"cells": 4096, "batch_tokens": 32}

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc"),
]


def children() -> set[int]:
    """Processes that this one has started and that have not ended."""
    listed = [path.read_text().split() for path in Path("/proc/self/task").glob("*/children")]
    return {int(pid) for pids in listed for pid in pids if is_alive(int(pid))}


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def stored(data_dir: Path) -> set[Path]:
    return set((data_dir / "kv").rglob("*.kv"))


async def is_well(here: Running) -> None:
    """It answers on the prefix that it kept, and need not compute it."""
    before = here.metric("mooring_prompt_tokens_evaluated_total", purpose="prefix")
    assert await here.engine.keep(PREFIX) == Kept(0)
    prompt = PREFIX.tokens + tokens(7, seed=2)
    events = await events_of(here.engine, asked(prompt, PREFIX))
    assert [event.cached_tokens for event in events if isinstance(event, Started)] == [300]
    assert isinstance(events[-1], Finished)
    assert here.metric("mooring_prompt_tokens_evaluated_total", purpose="prefix") == before
    assert here.engine.failure is None


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV])
async def test_engine_whose_idle_process_dies_is_back_with_all_it_kept(
    tiny_model: Path, tmp_path: Path, how: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(CHILD, tiny_model, tmp_path) as here:
        await here.engine.keep(PREFIX)
        dead = here.pid
        os.kill(dead, how)
        await until(lambda: here.engine._supervisor.running is None)
        await is_well(here)
        assert here.pid != dead
        assert here.restarts == 1
        assert f"how='signal {how.name}" in caplog.text
        assert "running=nothing" in caplog.text
    assert children() == set()


async def test_engine_answers_again_whose_process_died_before_the_answer_began(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prompt, seen = tokens(3000, seed=4), []
    async with running(CHILD, tiny_model, tmp_path, **SMALL_STEPS) as here:
        await here.engine.keep(PREFIX)
        expected = await events_of(here.engine, asked(prompt, seed=1))
        evaluated = here.metric("mooring_prompt_tokens_evaluated_total", purpose="request")
        async with aclosing(here.engine.generate(asked(prompt, seed=1))) as events:
            async for event in events:
                if isinstance(event, Progress) and not here.restarts:
                    os.kill(here.pid, signal.SIGKILL)
                    await until(lambda: here.restarts)
                seen.append(event)
        assert [event for event in seen if isinstance(event, Started)] == [Started(0, Source.NONE)]
        assert seen[-1] == expected[-1]
        assert texts(seen) == texts(expected)
        evaluated_again = here.metric("mooring_prompt_tokens_evaluated_total", purpose="request")
        assert evaluated_again > evaluated + len(prompt)
        assert "running=generate:1" in caplog.text
        await is_well(here)


def texts(events: list) -> list[str]:
    return [event.text for event in events if isinstance(event, Delta)]


async def test_engine_ends_an_answer_that_had_begun_with_an_error_that_says_what_to_do(
    tiny_model: Path, tmp_path: Path
) -> None:
    async with running(CHILD, tiny_model, tmp_path) as here:
        await here.engine.keep(PREFIX)
        with pytest.raises(EngineLost, match=r"signal SIGKILL.*send the request again"):
            async with aclosing(
                here.engine.generate(asked((5, 6), grammar=LONG, max_tokens=1500))
            ) as events:
                async for event in events:
                    if isinstance(event, Delta) and not here.restarts:
                        os.kill(here.pid, signal.SIGKILL)
                        await until(lambda: here.restarts)
        await is_well(here)
        assert here.restarts == 1


async def test_engine_keeps_what_was_being_kept_when_its_process_died(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prefix, seen = Prefix("tenant", tokens(3000, seed=5)), []

    def on_progress(progress: Progress) -> None:
        if not seen:
            os.kill(here.pid, signal.SIGKILL)
        seen.append(progress)

    async with running(CHILD, tiny_model, tmp_path, **SMALL_STEPS) as here:
        await here.engine.keep(PREFIX)
        assert await here.engine.keep(prefix, on_progress) == Kept(3000)
        assert seen[-1] == Progress(3000, 3000)
        assert here.restarts == 1
        assert "running=keep:1" in caplog.text
        assert await here.engine.keep(prefix) == Kept(0)
        await is_well(here)


async def test_engine_renders_although_its_process_has_just_died(
    tiny_model: Path, tmp_path: Path
) -> None:
    async with running(CHILD, tiny_model, tmp_path) as here:
        whole, stable = await here.engine.render(HELLO), await here.engine.stable_prefix(HELLO)
        os.kill(here.pid, signal.SIGKILL)
        renderings = (here.engine.render(HELLO), here.engine.stable_prefix(HELLO))
        assert await asyncio.gather(*renderings) == [whole, stable]
        assert here.restarts == 1


async def test_engine_tries_again_when_its_process_dies_while_it_starts(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backoff, "_FIRST_S", 0.01)
    async with running(CHILD, tiny_model, tmp_path) as here:
        await here.engine.keep(PREFIX)
        dead = here.pid
        os.kill(dead, signal.SIGKILL)
        await until(lambda: children() - {dead})
        (starting,) = children() - {dead}
        os.kill(starting, signal.SIGKILL)
        await is_well(here)
        assert here.restarts == 2
        assert "engine process did not start attempt=1" in caplog.text


async def test_engine_that_cannot_start_again_says_so_and_goes_on_trying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "_FIRST_S", 0.01)
    model = write_random_model(tmp_path / "m.gguf", TINY)
    async with running(CHILD, model, tmp_path, max_queued=2) as here:
        await here.engine.keep(PREFIX)
        away = model.rename(tmp_path / "away")
        os.kill(here.pid, signal.SIGKILL)
        await until(lambda: here.engine._supervisor.running is None)
        waiting = [asyncio.create_task(here.engine.render(HELLO)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="2 requests wait for the engine"):
            await here.engine.render(HELLO)
        for waited in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(waited, EngineUnavailable)
        assert "cannot be started again" in here.engine.failure
        assert "m.gguf" in here.engine.failure
        with pytest.raises(EngineUnavailable, match=r"m\.gguf"):
            await events_of(here.engine, asked((5, 6)))
        assert here.restarts >= 3
        away.rename(model)
        await until(lambda: here.engine.failure is None)
        await is_well(here)


async def test_engine_does_not_start_again_with_another_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "_FIRST_S", 0.01)
    model = write_random_model(tmp_path / "m.gguf", TINY)
    async with running(CHILD, model, tmp_path) as here:
        write_random_model(model, TINY, seed=1)
        os.kill(here.pid, signal.SIGKILL)
        await until(lambda: here.engine.failure)
        assert "file has changed" in here.engine.failure


async def test_engine_gives_up_on_a_request_that_was_in_two_dying_processes(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever was beside it once is served."""
    monkeypatch.setattr(backoff, "_FIRST_S", 0.01)
    killed = set()

    async def poison(ask: Callable) -> None:
        """Ends every process that evaluates it."""
        await ask(lambda: (os.kill(here.pid, signal.SIGKILL), killed.add(here.pid)))

    async def generate(kill: Callable[[], None]) -> None:
        async with aclosing(here.engine.generate(asked(tokens(3000, seed=6)))) as events:
            async for event in events:
                if isinstance(event, Progress) and here.pid not in killed:
                    kill()

    async def keep(kill: Callable[[], None]) -> None:
        prefix = Prefix("tenant", tokens(3000, seed=7))
        await here.engine.keep(prefix, lambda _: here.pid in killed or kill())

    async with running(CHILD, tiny_model, tmp_path, **SMALL_STEPS) as here:
        await here.engine.keep(PREFIX)
        for number, ask in enumerate((generate, keep), start=1):
            with pytest.raises(EngineLost, match="a second time under this request"):
                await poison(ask)
            await is_well(here)
            assert here.restarts == 2 * number


async def test_engine_deletes_what_was_released_just_before_its_process_died(
    tiny_model: Path, tmp_path: Path
) -> None:
    other = Prefix("tenant", tokens(50, seed=8))
    async with running(CHILD, tiny_model, tmp_path) as here:
        await here.engine.keep(PREFIX)
        before = stored(tmp_path)
        await here.engine.keep(other)
        os.kill(here.pid, signal.SIGSTOP)  # so that it does not come to it
        await here.engine.release(other.id)
        os.kill(here.pid, signal.SIGKILL)
        await is_well(here)
        await until(lambda: stored(tmp_path) == before)


async def test_counters_go_on_and_gauges_begin_anew(tiny_model: Path, tmp_path: Path) -> None:
    async with running(CHILD, tiny_model, tmp_path) as here:
        await here.engine.keep(PREFIX)
        await events_of(here.engine, asked((5, 6)))
        drawn = here.metric("mooring_completion_tokens_total")
        assert drawn
        unread = here.engine.generate(asked((5, 6), grammar=LONG, max_tokens=1500))
        await anext(unread)
        await until(lambda: here.metric("mooring_requests_running") == 1)
        os.kill(here.pid, signal.SIGKILL)
        await until(lambda: here.restarts)
        assert here.metric("mooring_completion_tokens_total") >= drawn
        assert here.metric("mooring_requests_running") == 0
        assert here.metric("mooring_prompt_tokens_evaluated_total", purpose="prefix") == 300
        before = here.metric("mooring_completion_tokens_total")
        events = await events_of(here.engine, asked((5, 6)))
        again = events[-1].usage.completion_tokens
        assert here.metric("mooring_completion_tokens_total") == before + again
        await unread.aclose()


async def test_engine_process_leaves_signals_to_the_server(tiny_model: Path, tmp_path: Path) -> None:
    async with running(CHILD, tiny_model, tmp_path) as here:
        await here.engine.keep(PREFIX)
        for ignored in (signal.SIGINT, signal.SIGTERM):
            os.kill(here.pid, ignored)
        await is_well(here)
        assert here.restarts == 0


# The first start, and the end


async def test_start_is_refused_with_the_reason(tiny_model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF is not all it takes")
    with pytest.raises(ModelUnreadable, match=r"broken\.gguf"):
        await start(broken, tmp_path)
    with pytest.raises(StartRefused, match=r"engine\.context_tokens: 4096 do not fit"):
        await start(tiny_model, tmp_path, context_tokens=4096, cells=512)
    assert children() == set()


async def test_start_is_refused_when_the_process_dies(tiny_model: Path, tmp_path: Path) -> None:
    starting = asyncio.create_task(start(tiny_model, tmp_path))
    await until(children)
    os.kill(children().pop(), signal.SIGKILL)
    with pytest.raises(StartRefused, match=r"ended while it was starting \(signal SIGKILL"):
        await starting


async def test_cancelled_start_leaves_no_process(tiny_model: Path, tmp_path: Path) -> None:
    starting = asyncio.create_task(start(tiny_model, tmp_path))
    await until(children)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert children() == set()


async def test_start_tells_how_far_it_has_come(tiny_model: Path, tmp_path: Path) -> None:
    told = []
    config, metrics = EngineConfig(cells=512, threads=1), ServerMetrics()
    engine = await start_engine(
        *(tiny_model, "tiny", config, KvStoreConfig(), tmp_path, metrics),
        lambda what, share: told.append((what, share)),
    )
    await engine.close()
    assert ("Loading the model", 1.0) in told
    assert ("Fingerprinting the weights", 1.0) in told


async def start(model: Path, data_dir: Path, **config) -> None:
    config = EngineConfig(**{"threads": 1} | config)
    await start_engine(model, "tiny", config, KvStoreConfig(), data_dir, ServerMetrics())


async def test_closing_does_not_wait_for_a_process_that_is_starting(
    tiny_model: Path, tmp_path: Path
) -> None:
    async with running(CHILD, tiny_model, tmp_path) as here:
        os.kill(here.pid, signal.SIGKILL)
        await until(lambda: here.engine._supervisor.running is None)
    assert children() == set()


async def test_engine_process_ends_when_it_is_left_alone(tiny_model: Path, tmp_path: Path) -> None:
    async with running(CHILD, tiny_model, tmp_path) as here:
        pid = here.pid
        here.engine._supervisor.running._channel.close()
        await until(lambda: not is_alive(pid))
        await here.engine.render(HELLO)


PARENT = """
import asyncio, sys
from pathlib import Path
from mooring.config import EngineConfig, KvStoreConfig
from mooring.engine.process.engine import start_engine
from mooring.telemetry import ServerMetrics

async def main():
    model, data_dir = map(Path, sys.argv[1:])
    config = EngineConfig(cells=512, threads=1)
    engine = await start_engine(model, "tiny", config, KvStoreConfig(), data_dir, ServerMetrics())
    print(engine._supervisor.running.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
def test_engine_process_does_not_outlive_a_killed_server(
    tiny_model: Path, tmp_path: Path, stopped: bool
) -> None:
    command = [sys.executable, "-c", PARENT, str(tiny_model), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        if stopped:  # it cannot notice by itself
            os.kill(pid, signal.SIGSTOP)
        parent.kill()
    while is_alive(pid):
        time.sleep(0.01)
