"""The embedded engine's face to asyncio: an Engine whose work happens on one decode thread."""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Collection
from typing import TypeVar

from mooring.core.conversation import Conversation
from mooring.core.errors import EngineFailed, InvalidRequest, MooringError, PromptTooLong
from mooring.core.prefix import Prefix, Tokens
from mooring.engine.interface import (
    Event,
    Finished,
    Generation,
    Kept,
    ModelInfo,
    Progress,
)
from mooring.engine.llamacpp.binding import DecodeContext
from mooring.engine.llamacpp.grammar import Grammars
from mooring.engine.llamacpp.inbox import Inbox
from mooring.engine.llamacpp.outbox import Mail
from mooring.engine.llamacpp.rendering import rendering_threads
from mooring.engine.llamacpp.request import Request, Sink, Ticket
from mooring.engine.llamacpp.scheduler import Scheduler
from mooring.engine.prompt import Prompter
from mooring.kvstore.store import KvStore
from mooring.telemetry import Metrics

A = TypeVar("A")
R = TypeVar("R")

_log = logging.getLogger("mooring.engine")


class LlamaEngine:
    """Implements `mooring.engine.interface.Engine` over llama.cpp. Made and used in one event loop."""

    def __init__(
        self,
        context: DecodeContext,
        info: ModelInfo,
        prompter: Prompter,
        open_store: Callable[[Callable[[], None]], KvStore],
        metrics: Metrics,
        *,
        max_queued: int,
        automatic: bool = True,
        whole: bool = False,
    ) -> None:
        """`open_store` gets what the store calls, from its threads, when there is something to poll.

        `automatic`: what was not named is reused, too. `whole`: see the scheduler.
        """
        self._automatic = automatic
        self._whole = whole
        self._context = context
        self._info = info
        self._prompter = prompter
        inbox = Inbox()
        self._store = open_store(inbox.wake)
        self._loop = asyncio.get_running_loop()
        self._renderers = rendering_threads()
        self._grammars = Grammars(context.model)
        self._failure: str | None = None
        self._closed = False
        self._scheduler = Scheduler(
            context,
            self._store,
            metrics,
            inbox,
            self._deliver,
            kv_bytes_per_token=info.kv_bytes_per_token,
            max_queued=max_queued,
            whole=whole,
        )

        self._thread = threading.Thread(target=self._work, name="mooring-decode", daemon=True)
        self._thread.start()

    @property
    def model(self) -> ModelInfo:
        return self._info

    @property
    def failure(self) -> str | None:
        return self._failure

    async def render(self, conversation: Conversation) -> Tokens:
        return await self._on_renderer(self._prompter.render, conversation)

    async def stable_prefix(self, conversation: Conversation) -> Tokens:
        return await self._on_renderer(self._prompter.stable_prefix, conversation)

    async def keep(self, prefix: Prefix, on_progress: Callable[[Progress], None] | None = None) -> Kept:
        mail: asyncio.Queue[Event | Kept | MooringError] = asyncio.Queue()
        ticket = Ticket(mail.put_nowait, prefix)
        if len(prefix) == 0:  # there are templates without a common beginning
            return Kept(0)
        if not self._scheduler.could_ever_hold(ticket):
            raise PromptTooLong(
                f"{len(prefix)} tokens do not fit into this server's KV buffer of"
                f" {self._scheduler.total.cells} (engine.cells)"
            )
        self._scheduler.submit(ticket)
        try:
            while True:
                match await mail.get():
                    case Kept() as kept:
                        return kept
                    case MooringError() as error:
                        raise error
                    case Progress() as progress if on_progress is not None:
                        on_progress(progress)
        except asyncio.CancelledError:
            self._scheduler.cancel(ticket)
            raise

    async def release(self, prefix_id: str) -> None:
        self._scheduler.release(prefix_id)

    async def release_all_but(self, prefix_ids: Collection[str]) -> None:
        self._scheduler.release_all_but(prefix_ids)

    async def generate(self, generation: Generation) -> AsyncGenerator[Event]:
        mail: asyncio.Queue[Event | Kept | MooringError] = asyncio.Queue()
        request = await self._request(generation, mail.put_nowait)
        self._scheduler.submit(request)
        try:
            while True:
                event = await mail.get()
                if isinstance(event, MooringError):
                    raise event
                assert not isinstance(event, Kept), "tickets have sinks of their own"
                yield event
                if isinstance(event, Finished):
                    return
        finally:
            self._scheduler.cancel(request)  # does nothing to one that has ended

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._scheduler.close()
        await asyncio.to_thread(self._thread.join)
        # Before the model is freed: a cancelled request leaves its tokenising thread running.
        await asyncio.to_thread(self._renderers.shutdown, cancel_futures=True)
        await asyncio.to_thread(self._store.close)
        self._context.close()
        self._context.model.close()

    async def _on_renderer(self, work: Callable[[A], R], argument: A) -> R:
        try:
            running = self._loop.run_in_executor(self._renderers, work, argument)
        except RuntimeError as error:  # the pool is shut down
            raise EngineFailed("the server is shutting down; try again shortly") from error
        return await running

    async def _request(self, generation: Generation, sink: Sink) -> Request:
        if not generation.prompt:
            raise InvalidRequest(
                "messages: the model's chat template makes nothing of them", param="messages"
            )
        matcher = None
        if generation.grammar is not None:
            matcher = await self._on_renderer(self._grammars.compile, generation.grammar)
        control = self._info.control_tokens
        visible = frozenset(control[mark] for mark in generation.marks if mark in control)
        request = Request(sink, generation, matcher, visible, self._automatic, self._whole)
        return self._fitting(request)

    def _fitting(self, request: Request) -> Request:
        if self._scheduler.could_ever_hold(request):
            return request
        needed = request.needed
        raise PromptTooLong(
            f"the request needs {needed.cells} tokens of KV buffer and {needed.sequences} sequences;"
            f" this server has {self._scheduler.total.cells} and {self._scheduler.total.sequences}:"
            " lower max_tokens or n, or start it with more engine.cells"
        )

    def _work(self) -> None:
        try:
            self._scheduler.run()
        except Exception as error:  # noqa: BLE001 - the thread's last resort: say so and fail whoever waits
            _log.exception("decode thread ended")
            self._failure = f"{type(error).__name__}: {error}"
            self._scheduler.fail_everything(EngineFailed(f"the engine has stopped: {self._failure}"))

    def _deliver(self, mail: Mail) -> None:
        """From the decode thread: hand a step's events to their sinks on the event loop."""
        try:
            self._loop.call_soon_threadsafe(_hand_over, mail)
        except RuntimeError:
            _log.debug("events dropped: the event loop has closed")


def _hand_over(mail: Mail) -> None:
    for sink, event in mail:
        sink(event)
