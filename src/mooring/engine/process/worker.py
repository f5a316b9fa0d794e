"""The engine's process: loads the engine, does what the server's messages say, answers.

Whatever breaks the engine ends the process: the server knows how to start another.
"""

import asyncio
import ctypes
import faulthandler
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Never

from mooring.core.errors import EngineFailed, MooringError, StartRefused
from mooring.core.prefix import pack
from mooring.engine.interface import Engine, Progress
from mooring.engine.llamacpp.loading import load_engine
from mooring.engine.process.channel import Channel
from mooring.engine.process.messages import (
    Answer,
    Answers,
    Call,
    Cancel,
    Done,
    Generate,
    Keep,
    Load,
    Loading,
    Order,
    Ready,
    Refused,
    Release,
    ReleaseAllBut,
    Render,
    Rendered,
    Stop,
)
from mooring.engine.process.shared_metrics import write_metrics_to
from mooring.engine.process.unpacking import Unpacking
from mooring.telemetry import Metrics, configure_logging

_log = logging.getLogger("mooring.engine")
_BROKEN = 70  # sysexits' EX_SOFTWARE
_PR_SET_PDEATHSIG = 1
_OOM_SCORE = Path("/proc/self/oom_score_adj")


def work(descriptor: int, parent: int) -> None:
    """Serve the parent over this socket until it says stop, or has gone."""
    _end_with(parent)
    faulthandler.enable()  # a native crash leaves its traces in the log
    end = socket.socket(fileno=descriptor)
    end.set_inheritable(False)
    asyncio.run(_serve(end))


def _end_with(parent: int) -> None:
    """Never outlive the server, whatever becomes of it, and die in its place."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        with suppress(OSError):  # when memory runs out, this process goes, and not the server
            _OOM_SCORE.write_text(str(min(1000, int(_OOM_SCORE.read_text()) + 200)))
    if os.getppid() != parent:  # it had gone before
        sys.exit(0)


async def _serve(end: socket.socket) -> None:
    orders: asyncio.Queue[Order] = asyncio.Queue()
    closing = asyncio.Event()
    closed = asyncio.Event()

    def on_end() -> None:
        if not closing.is_set():
            os._exit(0)  # the server has gone, and native threads may still run
        closed.set()

    channel = await Channel.over(end, orders.put_nowait, on_end)
    load = await orders.get()
    assert isinstance(load, Load)
    engine = await _load(load, channel)
    if engine is not None:
        worker = Worker(engine, channel)
        channel.send(Ready(engine.model))
        while not isinstance(order := await orders.get(), Stop):
            worker.obey(order)
        await worker.close()
    closing.set()
    channel.close()
    await closed.wait()


async def _load(load: Load, channel: Channel) -> Engine | None:
    """The engine; None when it is not to be, of which the server has been told."""
    configure_logging(load.log_level)
    write_metrics_to(load.metrics_dir)
    loop = asyncio.get_running_loop()

    def on_progress(what: str, share: float) -> None:
        loop.call_soon_threadsafe(channel.send, Loading(what, share))

    try:
        return await load_engine(
            load.model_path, load.name, load.engine, load.store, load.data_dir, Metrics(), on_progress
        )
    except StartRefused as error:
        channel.send(Refused(error))
        return None


class Worker:
    """Obeys orders over one engine."""

    def __init__(self, engine: Engine, channel: Channel) -> None:
        self._engine = engine
        self._channel = channel
        self._unpacking = Unpacking()
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._releases: set[asyncio.Task[None]] = set()
        self._mail: list[tuple[int, Answer]] = []

    def obey(self, order: Order) -> None:
        """Begin it; tasks begin in the order in which they were made."""
        match order:
            case Release(prefix_id):
                release = asyncio.create_task(self._engine.release(prefix_id))
                self._releases.add(release)
                release.add_done_callback(self._releases.discard)
            case Cancel(call):
                if (task := self._calls.get(call)) is not None:
                    task.cancel()
            case Render() | Keep() | Generate() | ReleaseAllBut():
                task = self._calls[order.call] = asyncio.create_task(self._answer(order))
                task.add_done_callback(lambda ended: self._ended(order.call, ended))
            case Load() | Stop():
                raise AssertionError("the first and the last order are no calls")

    async def close(self) -> None:
        """Close the engine; who still waits for an answer gets one."""
        await self._engine.close()
        await asyncio.gather(*self._calls.values(), return_exceptions=True)
        self._flush()

    def _ended(self, call: int, task: asyncio.Task[None]) -> None:
        del self._calls[call]
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not isinstance(error, MooringError):
            _log.error("engine call failed", exc_info=error)
            error = EngineFailed("the engine made a mistake; the log has the details")
        self._post(call, error)

    async def _answer(self, call: Call) -> None:
        match call:
            case Render(number, conversation, stable):
                render = self._engine.stable_prefix if stable else self._engine.render
                self._post(number, Rendered(pack(await render(conversation))))
            case Keep(number, prefix, progress):
                on_progress = self._progress_of(number) if progress else None
                kept = await self._engine.keep(self._unpacking.prefix(prefix), on_progress)
                self._post(number, kept)
            case Generate(number):
                async with aclosing(self._engine.generate(self._unpacking.generation(call))) as events:
                    async for event in events:
                        self._post(number, event)
            case ReleaseAllBut(number, prefix_ids):
                await self._engine.release_all_but(prefix_ids)
                self._post(number, Done())

    def _progress_of(self, call: int) -> Callable[[Progress], None]:
        return lambda progress: self._post(call, progress)

    def _post(self, call: int, answer: Answer) -> None:
        """To the server, in one frame with all else that is posted in this turn of the loop."""
        if not self._mail:
            asyncio.get_running_loop().call_soon(self._flush)
        self._mail.append((call, answer))

    def _flush(self) -> None:
        if self._engine.failure is not None:
            _end_broken(self._engine.failure)
        if self._mail:
            mail, self._mail = self._mail, []
            self._channel.send(Answers(tuple(mail)))


def _end_broken(failure: str) -> Never:
    """An engine that serves no more; whoever waits for it hears of the process' end instead."""
    _log.error("engine broke error=%s", failure)
    logging.shutdown()
    os._exit(_BROKEN)
