"""Continuous batching: one thread decides, step by step, which tokens the model evaluates next.

Each step takes the next token of every running choice and fills the batch up with prompt tokens, so
that a long prompt delays running answers by one chunk and no more. Everything but the calls marked
"any thread" runs on the decode thread; nothing in a step waits for the disk.
"""

import logging
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from mooring.core.errors import EngineFailed, MooringError, Overloaded
from mooring.engine.llamacpp.binding import DecodeContext
from mooring.engine.llamacpp.cells import Cells, Room
from mooring.engine.llamacpp.decode import Decode
from mooring.engine.llamacpp.fill import Fill
from mooring.engine.llamacpp.outbox import Mail, Outbox
from mooring.engine.llamacpp.prefill import Prefill
from mooring.engine.llamacpp.prefixes import Entry
from mooring.engine.llamacpp.prefixes import Stage as PrefixStage
from mooring.engine.llamacpp.request import Choice, Request, Sink, Stage, Ticket
from mooring.kvstore.store import KvStore
from mooring.telemetry import Metrics

_log = logging.getLogger("mooring.scheduler")


@dataclass(frozen=True)
class _DrawRow:
    """A batch row holding a choice's latest token; its logits give the next one."""

    request: Request
    choice: Choice
    row: int


@dataclass(frozen=True)
class _FillRows:
    """A chunk of a fill; `row` is its last."""

    fill: Fill
    tokens: int
    row: int


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
        self._max_queued = max_queued
        self._cells = Cells(Room(context.shape.cells, context.shape.sequences))
        self._outbox = Outbox(deliver)
        self._prefill = Prefill(
            context,
            self._cells,
            store,
            self._outbox,
            metrics,
            kv_bytes_per_token=kv_bytes_per_token,
            wake=self.wake,
        )
        self._decode = Decode(context, self._cells, self._outbox, metrics)
        self._queue: deque[Request | Entry] = deque()
        self._running: list[Request] = []
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._in_flight: frozenset[Request | Entry] = frozenset()
        self._closing = False

    # Any thread

    def submit(self, request: Request) -> None:
        self._inbox.put(lambda: self._submit(request))

    def cancel(self, request: Request) -> None:
        """Stop a request; no further event of it matters. Harmless when it has ended."""
        if self._in_flight == {request}:
            self._context.abort()  # nobody else's tokens are being evaluated
        self._inbox.put(lambda: self._end(request))

    def keep(self, ticket: Ticket) -> None:
        self._inbox.put(lambda: self._keep(ticket))

    def withdraw(self, ticket: Ticket) -> None:
        self._inbox.put(lambda: self._prefill.withdraw(ticket))

    def release(self, prefix_id: str) -> None:
        self._inbox.put(lambda: self._prefill.release(prefix_id))

    def release_all_but(self, prefix_ids: Collection[str]) -> None:
        self._inbox.put(lambda: self._prefill.release_all_but(prefix_ids))

    def wake(self) -> None:
        self._inbox.put(lambda: None)

    def close(self) -> None:
        self._context.abort()
        self._inbox.put(self._close)

    def could_ever_hold(self, request: Request) -> bool:
        """Whether the whole buffer has room for the request and its prefix together."""
        room = request.room
        if request.prefix is not None:
            room += Room(len(request.prefix), 1)
        return self._cells.total.holds(room)

    # The loop

    def run(self) -> None:
        """Work until closed."""
        while not self._closing:
            self._receive()
            self.step()
            self._outbox.flush()
        self.fail_everything(EngineFailed("the server is shutting down; try again shortly"))

    def step(self) -> None:
        """Admit, plan, evaluate, advance."""
        self._admit()
        self._outbox.flush()  # who has started should not hear of it a whole chunk later
        rows = self._plan()
        if rows and self._evaluate(rows):
            self._advance(rows)
        self._report()

    def _receive(self) -> None:
        """Take what has arrived; wait for something when there is nothing to do."""
        busy = bool(self._running or self._prefill.fills)
        try:
            while True:
                message = self._inbox.get(block=not busy)
                message()
                busy = True
        except Empty:
            pass
        for entry in self._prefill.poll():
            self._queue.append(entry)

    def _admit(self) -> None:
        """Start, in order, what fits. Nobody overtakes into the room that the first one waits for."""
        for item in list(self._queue):
            if isinstance(item, Request) and not self._prefill.settled(item):
                continue  # its bytes are under way; it keeps its place
            if not self._make_room(item):
                break
            self._queue.remove(item)
            self._start(item)

    def _make_room(self, item: Request | Entry) -> bool:
        entry = self._prefill.entry_of(item) if isinstance(item, Request) else item
        needed = self._prefill.room_for(entry)
        if isinstance(item, Request):
            needed += item.room
        self._prefill.drop_idle(besides=entry)
        while not self._cells.free.holds(needed):
            if not self._prefill.recall_one(besides=entry):
                return False
        return True

    def _start(self, item: Request | Entry) -> None:
        if isinstance(item, Request):
            self._cells.reserve(item.room)
            self._running.append(item)
            self._prefill.start(item)
        elif item.tickets and item.stage is PrefixStage.FETCHED:
            self._prefill.compute(item, begun_by=item.tickets[0])

    def _plan(self) -> list[_DrawRow | _FillRows]:
        """Fill the batch: every running choice's next token, then prompts in order."""
        batch = self._context.batch
        batch.clear()
        rows: list[_DrawRow | _FillRows] = []
        for request in self._running:
            for choice in request.choices:
                if choice.finished is None:
                    assert choice.pending is not None
                    row = batch.add([choice.pending], choice.position, choice.sequence, logits=True)
                    rows.append(_DrawRow(request, choice, row))
        for fill in self._prefill.fills:
            count = min(fill.remaining, batch.room)
            if count == 0:
                break
            chunk = fill.tokens[fill.done : fill.done + count]
            complete = count == fill.remaining
            logits = complete and isinstance(fill.owner, Request)
            row = batch.add(chunk, fill.done, fill.sequence, logits=logits)
            rows.append(_FillRows(fill, count, row))
        return rows

    def _evaluate(self, rows: list[_DrawRow | _FillRows]) -> bool:
        """Run the model on the batch; False when nothing came of it."""
        owners = {row.fill.owner if isinstance(row, _FillRows) else row.request for row in rows}
        self._in_flight = frozenset(owners)
        status = self._context.decode()
        self._in_flight = frozenset()
        if status == 0:
            return True
        # Back to where every sequence was, so that the step can be planned again.
        self._context.clear_abort()
        for row in rows:
            if isinstance(row, _FillRows):
                self._context.cut_sequence(row.fill.sequence, row.fill.done)
            else:
                self._context.cut_sequence(row.choice.sequence, row.choice.position)
        if status != 2:  # 2: aborted on purpose, because of a cancellation that is in the inbox
            _log.error("llama_decode failed status=%d tokens=%d", status, len(self._context.batch))
            error = EngineFailed(f"llama.cpp failed to evaluate the batch (status {status})")
            for owner in owners:
                self._fail(owner, error)
        return False

    def _advance(self, rows: list[_DrawRow | _FillRows]) -> None:
        """Account for what was evaluated, and draw where logits are due."""
        for row in rows:
            if isinstance(row, _DrawRow):
                row.choice.position += 1
                self._decode.advance(row.request, row.choice, row.row)
                self._end_if_complete(row.request)
            else:
                self._advance_fill(row)

    def _advance_fill(self, rows: _FillRows) -> None:
        fill, owner = rows.fill, rows.fill.owner
        fill.done += rows.tokens
        purpose = "request" if isinstance(owner, Request) else "prefix"
        self._metrics.evaluated_tokens.labels(purpose).inc(rows.tokens)
        for sink in self._watchers(owner):
            self._outbox.post(sink, fill.progress)
        if fill.remaining:
            return
        self._prefill.fills.remove(fill)
        if isinstance(owner, Request):
            self._decode.begin(owner, fill, rows.row)
            self._end_if_complete(owner)
        else:
            self._prefill.filled(owner)

    @staticmethod
    def _watchers(owner: Request | Entry) -> list[Sink]:
        if isinstance(owner, Request):
            return [owner.sink]
        return [ticket.sink for ticket in owner.tickets] + [request.sink for request in owner.waiting]

    def _report(self) -> None:
        self._metrics.queued_requests.set(len(self._queue))
        self._metrics.running_requests.set(len(self._running))
        self._metrics.cells_used.set(self._cells.total.cells - self._cells.free.cells)

    # Messages

    def _submit(self, request: Request) -> None:
        if len(self._queue) >= self._max_queued:
            message = f"{len(self._queue)} requests are waiting already; try again shortly"
            self._outbox.post(request.sink, Overloaded(message))
            return
        self._prefill.claim(request)
        self._queue.append(request)

    def _keep(self, ticket: Ticket) -> None:
        if (entry := self._prefill.keep(ticket)) is not None:
            self._queue.append(entry)

    def _close(self) -> None:
        self._closing = True

    # Endings

    def _end_if_complete(self, request: Request) -> None:
        if request.choices and all(choice.finished for choice in request.choices):
            self._end(request)

    def _end(self, request: Request) -> None:
        """Take a request out, wherever it is, and give back all it held."""
        if request.stage is Stage.ENDED:
            return
        if request.stage is Stage.QUEUED:
            if request in self._queue:
                self._queue.remove(request)
        else:
            self._running.remove(request)
            self._cells.give_back(request.room)
        for fill in [fill for fill in self._prefill.fills if fill.owner is request]:
            self._prefill.fills.remove(fill)
            self._context.cut_sequence(fill.sequence, 0)
            self._cells.return_id(fill.sequence)
        for choice in request.choices:
            if choice.finished is None:
                self._decode.free(choice)
        request.stage = Stage.ENDED
        self._prefill.leave(request)

    def _fail(self, owner: Request | Entry, error: MooringError) -> None:
        if isinstance(owner, Request):
            self._outbox.post(owner.sink, error)
            self._end(owner)
            return
        for request in list(owner.waiting):
            self._fail(request, error)
        self._prefill.abandon(owner, error)

    def fail_everything(self, error: MooringError) -> None:
        for request in [*self._running, *self._queue]:
            if isinstance(request, Request):
                self._fail(request, error)
        self._prefill.fail_tickets(error)
        self._outbox.flush()
