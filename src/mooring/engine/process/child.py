"""One child process with an engine, from its start to its end, as the server sees it."""

import asyncio
import itertools
import os
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Iterator
from contextlib import contextmanager

from mooring.core.conversation import Conversation
from mooring.core.prefix import Prefix, Tokens, unpack
from mooring.engine.interface import (
    ChoiceFinished,
    Delta,
    Event,
    Finished,
    Generation,
    Kept,
    ModelInfo,
    OnProgress,
    Progress,
    Started,
)
from mooring.engine.process import messages
from mooring.engine.process.call import Call, ChildEnded
from mooring.engine.process.channel import Channel
from mooring.engine.process.end import End, how_it_ended
from mooring.engine.process.messages import LAST, Answer, Answers, Loading, Ready, Refused, Report

_LAST_BREATH_S = 10.0
"""Who has closed its end of the socket is about to end; a core dump may take a while."""
_CLOSE_S = 30.0
"""For what was begun: bytes on their way to the disk."""

Order = Callable[[int], messages.Call]
"""Makes the message of a call from its number."""


class Child:
    """Made by `start`; every call raises ChildEnded when the process ends before the answer."""

    def __init__(self, process: Process, on_loading: OnProgress) -> None:
        self._process = process
        self._on_loading = on_loading
        self._channel: Channel | None = None
        self._calls: dict[int, Call] = {}
        self._numbers = itertools.count()
        loop = asyncio.get_running_loop()
        self._model: asyncio.Future[ModelInfo] = loop.create_future()
        self._silent: asyncio.Future[None] = loop.create_future()
        """Done once it says no more."""
        self._ready_at: float | None = None
        self._end = asyncio.create_task(self._watch(), name="engine process")

    @classmethod
    async def start(cls, load: messages.Load, on_loading: OnProgress) -> "Child":
        """A process that has begun to load."""
        process, ours = await _spawn()
        child = cls(process, on_loading)
        try:
            child._channel = await Channel.over(ours, child._hear, child._hear_no_more)
        except BaseException:
            ours.close()
            child._hear_no_more()
            await child.kill()
            raise
        child._channel.send(load)
        return child

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def serves(self) -> bool:
        """It is ready, and not known to have ended."""
        return self._ready_at is not None and not self._silent.done()

    async def ready(self) -> ModelInfo:
        """The loaded model.

        Raises:
            StartRefused: it must not start like this.
            ChildEnded: it ended instead.
        """
        return await asyncio.shield(self._model)

    async def ended(self) -> End:
        """Wait for the end; says how it came."""
        return await asyncio.shield(self._end)

    async def close(self) -> None:
        """End in order; by force, if that takes too long."""
        assert self._channel is not None
        self._channel.send(messages.Stop())
        try:
            await asyncio.wait_for(self.ended(), _CLOSE_S)
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self.ended()

    # Calls

    async def render(self, conversation: Conversation, *, stable: bool) -> Tokens:
        with self._call("render", lambda call: messages.Render(call, conversation, stable)) as call:
            rendered = await call.next()
            assert isinstance(rendered, messages.Rendered)
            return unpack(rendered.tokens)

    async def keep(self, prefix: Prefix, on_progress: Callable[[Progress], None] | None) -> Kept:
        packed = messages.PackedPrefix.of(prefix)
        order = lambda call: messages.Keep(call, packed, on_progress is not None)  # noqa: E731
        with self._call("keep", order) as call:
            while not isinstance(answer := await call.next(), Kept):
                assert isinstance(answer, Progress)
                if on_progress is not None:
                    on_progress(answer)
            return answer

    async def generate(self, generation: Generation) -> AsyncGenerator[Event]:
        with self._call("generate", lambda call: messages.Generate.of(call, generation)) as call:
            while True:
                event = await call.next()
                assert isinstance(event, Progress | Started | Delta | ChoiceFinished | Finished)
                yield event
                if isinstance(event, Finished):
                    return

    async def release_all_but(self, prefix_ids: Collection[str]) -> None:
        order = lambda call: messages.ReleaseAllBut(call, frozenset(prefix_ids))  # noqa: E731
        with self._call("release", order) as call:
            await call.next()

    def release(self, prefix_id: str) -> None:
        """Asks for it and does not wait."""
        assert self._channel is not None
        self._channel.send(messages.Release(prefix_id))

    @contextmanager
    def _call(self, what: str, order: Order) -> Iterator[Call]:
        """Ask, and withdraw it when nobody waits for the answer any more."""
        assert self._channel is not None
        if self._end.done():
            raise ChildEnded(self._end.result().how)
        number, call = next(self._numbers), Call(what)
        self._calls[number] = call
        try:
            self._channel.send(order(number))
            yield call
        finally:
            if self._calls.pop(number, None) is not None:
                self._channel.send(messages.Cancel(number))

    # What the process says

    def _hear(self, report: Report) -> None:
        match report:
            case Answers(mail):
                for number, answer in mail:
                    self._hear_answer(number, answer)
            case Loading(what, share):
                self._on_loading(what, share)
            case Ready(model):
                self._ready_at = time.monotonic()
                self._model.set_result(model)
            case Refused(error):
                self._model.set_exception(error)

    def _hear_answer(self, number: int, answer: Answer) -> None:
        call = self._calls.get(number)
        if call is None:  # it was cancelled
            return
        if isinstance(answer, LAST):
            del self._calls[number]
        call.mail.put_nowait(answer)

    def _hear_no_more(self) -> None:
        if not self._silent.done():
            self._silent.set_result(None)

    async def _watch(self) -> End:
        """After its last words, fail whatever it has left unanswered."""
        await self._silent
        served_s = 0.0 if self._ready_at is None else time.monotonic() - self._ready_at
        try:
            await asyncio.wait_for(self._process.wait(), _LAST_BREATH_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        assert self._process.returncode is not None
        counts = Counter(call.what for call in self._calls.values())
        end = End(how_it_ended(self._process.returncode), served_s, counts)
        if not self._model.done():
            self._model.set_exception(ChildEnded(end.how))
            self._model.exception()  # perhaps nobody waits for it
        for call in self._calls.values():
            call.mail.put_nowait(ChildEnded(end.how))
        self._calls.clear()
        return end


async def _spawn() -> tuple[Process, socket.socket]:
    """A process, and our end of the socket to it."""
    ours, theirs = socket.socketpair()
    command = (sys.executable, "-m", "mooring.engine.process", str(theirs.fileno()), str(os.getpid()))
    try:
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=DEVNULL, stdout=DEVNULL, pass_fds=[theirs.fileno()]
            )
    except BaseException:
        ours.close()
        raise
    return process, ours
