"""Continuous batching: one thread decides, step by step, which tokens the model evaluates next.

Each step takes the next token of every running choice and fills the batch up with prompt tokens, so
that a long prompt delays running answers by one chunk and no more. Everything but the calls marked
"any thread" runs on the decode thread; nothing in a step waits for the disk.
"""

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from mooring.core.errors import EngineFailed, MooringError
from mooring.engine.interface import Source, Started
from mooring.engine.llamacpp.admission import Admission
from mooring.engine.llamacpp.binding import DecodeContext
from mooring.engine.llamacpp.buffer import Buffer
from mooring.engine.llamacpp.cells import Room
from mooring.engine.llamacpp.decode import Decode
from mooring.engine.llamacpp.fill import Fill
from mooring.engine.llamacpp.inbox import Inbox
from mooring.engine.llamacpp.outbox import Mail, Outbox
from mooring.engine.llamacpp.prefill import Prefill
from mooring.engine.llamacpp.prefixes import Entry, PrefixStage
from mooring.engine.llamacpp.request import Ask, Request, RequestStage, Sink, Ticket
from mooring.engine.llamacpp.step import FillRows, Rows, plan_step
from mooring.kvstore.store import KvStore
from mooring.telemetry import Metrics

_log = logging.getLogger("mooring.scheduler")
_ABORTED = 2


class Scheduler:
    """Requests, tickets and releases in; events out."""

    def __init__(
        self,
        context: DecodeContext,
        store: KvStore,
        metrics: Metrics,
        deliver: Callable[[Mail], None],
        *,
        kv_bytes_per_token: int,
        max_queued: int,
    ) -> None:
        self._context = context
        self._metrics = metrics
        self._buffer = Buffer(context)
        self._outbox = Outbox(deliver)
        self._fills: list[Fill] = []
        """What is being prefilled, oldest first."""
        self._prefill = Prefill(
            context,
            self._buffer,
            self._fills,
            store,
            self._outbox,
            metrics,
            kv_bytes_per_token=kv_bytes_per_token,
            wake=self.wake,
        )
        self._decode = Decode(context, self._buffer, self._outbox, metrics)
        self._admission = Admission(self._buffer, self._prefill, self._outbox, max_queued)
        self._running: list[Request] = []
        self._inbox = Inbox()
        self._in_flight: frozenset[Request | Entry] = frozenset()
        self._closing = False

    # Any thread

    def submit(self, ask: Ask) -> None:
        """Hand in a request or a ticket; its sink hears the rest.

        Raises:
            MooringError: the scheduler has ended.
        """
        self._inbox.submit(ask)

    def cancel(self, ask: Ask) -> None:
        """Its client went away; no further event of it matters. Harmless when it has ended."""
        if self._in_flight == {ask}:
            self._context.abort()  # nobody else's tokens are being evaluated
        self._inbox.call(lambda: self._withdraw(ask))

    def release(self, prefix_id: str) -> None:
        self._inbox.call(lambda: self._prefill.release(prefix_id))

    def release_all_but(self, prefix_ids: Collection[str]) -> None:
        self._inbox.call(lambda: self._prefill.release_all_but(prefix_ids))

    def wake(self) -> None:
        self._inbox.call(lambda: None)

    def close(self) -> None:
        self._context.abort()
        self._inbox.call(self._close)

    def could_ever_hold(self, ask: Ask) -> bool:
        """Whether the empty buffer has room for what is asked, its prefix included."""
        room = ask.room
        if ask.prefix is not None:
            room += Room(len(ask.prefix), 1)
        return self._buffer.total.holds(room)

    def fail_everything(self, error: MooringError) -> None:
        """Let nobody wait: refuse what comes, fail what is here. Touches no native state."""
        left = self._inbox.close(error)
        for ask in {*left, *self._running, *self._admission, *self._prefill.tickets()}:
            if not ask.ended:
                self._outbox.post(ask.sink, error)
        self._outbox.flush()

    # The loop

    def run(self) -> None:
        """Work until closed."""
        worked = False
        while not self._closing:
            self._receive(wait=not worked)
            worked = self.step()
            self._outbox.flush()
        self.fail_everything(EngineFailed("the server is shutting down; try again shortly"))

    def step(self) -> bool:
        """Admit, plan, evaluate, advance; False when there was nothing to evaluate."""
        for ask, entry in self._admission.admit():
            self._start(ask, entry)
        self._outbox.flush()  # who has started should not hear of it a whole chunk later
        rows = plan_step(self._context.batch, self._running, self._fills)
        if rows and self._evaluate(rows):
            self._advance(rows)
        self._report()
        return bool(rows)

    def _receive(self, *, wait: bool) -> None:
        """Take what has arrived, or wait for something.

        It waits only after a step that evaluated nothing: whatever a step changes, freed room
        included, is seen by the next one's admission.
        """
        for message in self._inbox.take(wait=wait):
            if isinstance(message, Request | Ticket):
                self._admission.enter(message)
            else:
                message()
        self._prefill.poll()

    def _start(self, ask: Ask, entry: Entry | None) -> None:
        """The room is there: begin, or wait for the prefix."""
        if isinstance(ask, Ticket):
            assert entry is not None
            self._prefill.bring(entry, ask)
            return
        self._buffer.reserve(ask.room)
        self._running.append(ask)
        if entry is None:
            self._begin_fill(ask, self._buffer.open(), start=0)
            return
        ask.stage = RequestStage.WAITING
        entry.waiting.append(ask)
        ask.source = self._prefill.bring(entry, ask)
        if entry.stage is PrefixStage.RESIDENT:
            self._start_waiting(entry)

    def _start_waiting(self, entry: Entry) -> None:
        """A prefix is resident: who waited for it shares its cells and goes on."""
        assert entry.sequence is not None
        waiting, entry.waiting = entry.waiting, []
        for request in waiting:
            sequence = self._buffer.open_on(entry.sequence, request.reuse)
            # Who had it computed pays for it; that is what `usage` will say.
            request.cached_tokens = 0 if entry.begun_by is request else request.reuse
            self._begin_fill(request, sequence, start=request.reuse)

    def _begin_fill(self, request: Request, sequence: int, *, start: int) -> None:
        request.stage = RequestStage.FILLING
        self._fills.append(Fill(request, sequence, request.generation.prompt, start))
        if request.source is not Source.NONE:
            self._metrics.cached_tokens.labels(request.source).inc(request.cached_tokens)
        self._outbox.post(request.sink, Started(request.cached_tokens, request.source))

    def _evaluate(self, rows: Rows) -> bool:
        """Run the model on the batch; False when nothing came of it."""
        owners = {row.owner for row in rows}
        self._in_flight = frozenset(owners)
        status = self._context.decode()
        self._in_flight = frozenset()
        if status == 0:
            return True
        self._context.clear_abort()
        for row in rows:  # back to where every sequence was, so that the step can be planned again
            self._context.cut_sequence(row.sequence, row.position)
        if status != _ABORTED:  # aborted: on purpose, the cancellation is in the inbox
            _log.error("llama_decode failed status=%d tokens=%d", status, len(self._context.batch))
            error = EngineFailed(f"llama.cpp failed to evaluate the batch (status {status})")
            for owner in owners:
                self._fail(owner, error)
        return False

    def _advance(self, rows: Rows) -> None:
        """Account for what was evaluated, and draw where logits are due."""
        for row in rows:
            if isinstance(row, FillRows):
                self._advance_fill(row)
            elif not row.owner.ended:  # by the failure of another of its choices
                row.choice.position += 1
                with self._failing(row.owner):
                    self._decode.advance(row.owner, row.choice, row.row)
                self._finish_if_complete(row.owner)

    def _advance_fill(self, rows: FillRows) -> None:
        fill, owner = rows.fill, rows.owner
        fill.done += rows.tokens
        purpose = "request" if isinstance(owner, Request) else "prefix"
        self._metrics.evaluated_tokens.labels(purpose).inc(rows.tokens)
        for sink in _watchers(owner):
            self._outbox.post(sink, fill.progress)
        if fill.remaining:
            return
        self._fills.remove(fill)
        if isinstance(owner, Request):
            with self._failing(owner):
                self._decode.begin(owner, fill, rows.row)
            self._finish_if_complete(owner)
        else:
            self._prefill.computed(owner)
            self._start_waiting(owner)

    def _report(self) -> None:
        self._metrics.queued_requests.set(len(self._admission))
        self._metrics.running_requests.set(len(self._running))
        self._metrics.cells_used.set(self._buffer.total.cells - self._buffer.free.cells)

    # Endings

    def _finish_if_complete(self, request: Request) -> None:
        if request.choices and all(choice.finished for choice in request.choices):
            self._remove(request)

    def _withdraw(self, ask: Ask) -> None:
        if isinstance(ask, Ticket):
            self._prefill.withdraw(ask)
        else:
            self._remove(ask)

    def _remove(self, request: Request) -> None:
        """Take a request out, wherever it is, and give back all it held."""
        if request.ended:
            return
        if request.stage is not RequestStage.QUEUED:
            self._running.remove(request)
            self._buffer.give_back(request.room)
        for fill in [fill for fill in self._fills if fill.owner is request]:
            self._fills.remove(fill)
            self._buffer.close(fill.sequence)
        for choice in request.choices:
            if choice.finished is None:
                self._decode.free(choice)
        request.stage = RequestStage.ENDED  # the next admission takes it off the queue
        self._prefill.leave(request)

    def _fail(self, owner: Request | Entry, error: MooringError) -> None:
        failed = [owner] if isinstance(owner, Request) else self._prefill.give_up(owner, error)
        for request in failed:
            self._outbox.post(request.sink, error)
            self._remove(request)

    @contextmanager
    def _failing(self, request: Request) -> Iterator[None]:
        """What goes wrong with one request's answers ends that request alone."""
        try:
            yield
        except MooringError as error:
            self._fail(request, error)

    def _close(self) -> None:
        self._closing = True

    def check(self) -> None:
        """Invariants, for tests to run after every step: all room is accounted for."""
        self._prefill.check()
        held = sum((request.room for request in self._running), self._prefill.reserved)
        assert self._buffer.free + held == self._buffer.total, (self._buffer.free, held)
        stages = {request.stage for request in self._running}
        assert stages.isdisjoint({RequestStage.QUEUED, RequestStage.ENDED}), stages
        filling = {fill.owner for fill in self._fills if isinstance(fill.owner, Request)}
        assert filling == {request for request in self._running if request.stage is RequestStage.FILLING}


def _watchers(owner: Request | Entry) -> list[Sink]:
    """Who wants to hear how a fill comes on."""
    if isinstance(owner, Request):
        return [owner.sink]
    return [ticket.sink for ticket in owner.tickets] + [request.sink for request in owner.waiting]
