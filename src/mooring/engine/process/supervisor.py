"""Keeps a child process with an engine running: starts it again when it ends, and knows when to wait."""

import asyncio
import logging
from collections.abc import Callable

from prometheus_client import Counter

from mooring.core.errors import (
    EngineFailed,
    EngineUnavailable,
    MooringError,
    Overloaded,
    StartRefused,
)
from mooring.engine.interface import ModelInfo, OnProgress
from mooring.engine.process.backoff import Backoff
from mooring.engine.process.call import ChildEnded
from mooring.engine.process.child import Child
from mooring.engine.process.end import End
from mooring.engine.process.messages import Load

_log = logging.getLogger("mooring.engine")
_FAILED_STARTS = 3
"""So many in a row, and nobody is kept waiting for the next."""


class Supervisor:
    """Has a child, most of the time. Made and used in one event loop."""

    def __init__(
        self,
        load: Load,
        restarts: Counter,
        on_end: Callable[[], None],
        on_restart: Callable[[Child], None],
    ) -> None:
        """`on_end` is called when a child has ended, `on_restart` before the next one gets any call."""
        self._load = load
        self._restarts = restarts
        self._on_end = on_end
        self._on_restart = on_restart
        self._max_waiting = load.engine.max_queued
        self._waiting = 0
        self._backoff = Backoff()
        self._child: Child | None = None
        self._next: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        """The child that is not there yet."""
        self._keeping: asyncio.Task[None] | None = None
        self.closing = False
        self.failure: str | None = None
        """Why there is none and who asks is not kept waiting."""

    async def begin(self, on_progress: OnProgress) -> ModelInfo:
        """Start the first child.

        Raises:
            StartRefused: it must not start like this, or ended while it started.
        """
        try:
            child, model = await self._start(on_progress)
        except ChildEnded as ended:
            raise StartRefused(
                f"the engine's process ended while it was starting ({ended}); see what it printed before"
            ) from ended
        except OSError as error:
            raise StartRefused(_no_process(error)) from error
        self._child = child
        self._keeping = asyncio.create_task(self._keep_running(child, model), name="engine supervisor")
        return model

    async def child(self, *, again: bool = False) -> Child:
        """The child that serves; waits for it. `again`: for somebody who was let in before.

        Raises:
            Overloaded: too many are waiting.
            EngineUnavailable: it has not come back several times.
            EngineFailed: the server is shutting down.
        """
        if self.closing:
            raise _shutting_down()
        if self._child is not None and self._child.serves:
            return self._child
        if self.failure is not None:
            raise EngineUnavailable(self.failure)
        if self._waiting >= self._max_waiting and not again:
            raise Overloaded(
                f"{self._waiting} requests wait for the engine, which is starting again;"
                " try again shortly"
            )
        self._waiting += 1
        try:
            return await asyncio.shield(self._next)
        finally:
            self._waiting -= 1

    @property
    def running(self) -> Child | None:
        """The child that serves, if one does just now."""
        return self._child if self._child is not None and self._child.serves else None

    async def close(self) -> None:
        """Let the child end in order, and start no other."""
        self.closing = True
        self._let_nobody_wait(_shutting_down())
        if self._child is not None:
            await self._child.close()
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)

    # One child after the other

    async def _keep_running(self, child: Child, first: ModelInfo) -> None:
        while True:
            end = await child.ended()
            self._child = None
            self._on_end()
            if self.closing:
                return
            _log.error(
                "engine process ended pid=%d how=%r served_seconds=%.1f running=%s",
                child.pid,
                end.how,
                end.served_s,
                end.victims,
            )
            child = await self._start_again(end, first)
            self._on_restart(child)
            self._child, self.failure = child, None
            waited, self._next = self._next, asyncio.get_running_loop().create_future()
            waited.set_result(child)

    async def _start_again(self, end: End, first: ModelInfo) -> Child:
        """Try until there is a child."""
        failed, served_s = 0, end.served_s
        while True:
            delay_s = self._backoff.after(served_s)
            await asyncio.sleep(delay_s)
            self._restarts.inc()
            try:
                child, model = await self._start(lambda _what, _share: None)
                if model == first:
                    return child
                await child.kill()
                why = "the model's file has changed: restart the server to serve another model"
            except StartRefused as refused:
                why = refused.message
            except ChildEnded as ended:
                why = str(ended)
            except OSError as error:
                why = _no_process(error)
            failed, served_s = failed + 1, 0.0
            _log.error("engine process did not start attempt=%d why=%r", failed, why)
            if failed >= _FAILED_STARTS:
                self.failure = f"the engine cannot be started again: {why}"
                self._let_nobody_wait(EngineUnavailable(self.failure))

    async def _start(self, on_progress: OnProgress) -> tuple[Child, ModelInfo]:
        """A child that is ready."""
        child = await Child.start(self._load, on_progress)
        try:
            model = await child.ready()
        except BaseException:
            await child.kill()
            raise
        _log.info("engine process ready pid=%d", child.pid)
        return child, model

    def _let_nobody_wait(self, error: MooringError) -> None:
        waited, self._next = self._next, asyncio.get_running_loop().create_future()
        waited.set_exception(error)
        waited.exception()  # perhaps nobody waits


def _no_process(error: OSError) -> str:
    return f"no process can be made for the engine: {error.strerror}"


def _shutting_down() -> EngineFailed:
    return EngineFailed("the server is shutting down; try again shortly")
