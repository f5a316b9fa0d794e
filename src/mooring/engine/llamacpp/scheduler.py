"""Continuous batching: one thread decides, step by step, which tokens the model evaluates next.

Each step takes the next token of every running choice and fills the batch up with prompt tokens, so
that a long prompt delays running answers by one chunk and no more. Everything but the calls marked
"any thread" runs on the decode thread; nothing in a step waits for the disk.
"""

import logging
from collections.abc import Callable, Collection

from mooring.core.errors import EngineFailed, MooringError
from mooring.engine.interface import Started
from mooring.engine.llamacpp.admission import Admission
from mooring.engine.llamacpp.admitted import Admitted
from mooring.engine.llamacpp.binding import DecodeContext
from mooring.engine.llamacpp.buffer import Buffer
from mooring.engine.llamacpp.cells import Room
from mooring.engine.llamacpp.decode import Decode
from mooring.engine.llamacpp.evaluation import Evaluation, Outcome
from mooring.engine.llamacpp.idle import Idle
from mooring.engine.llamacpp.inbox import Inbox
from mooring.engine.llamacpp.outbox import Mail, Outbox
from mooring.engine.llamacpp.prefill import Prefill, nobody
from mooring.engine.llamacpp.rates import Rates
from mooring.engine.llamacpp.request import Ask, Request, Stage, Ticket
from mooring.engine.llamacpp.saving import Saving
from mooring.engine.llamacpp.step import FillRows, Rows, plan_step
from mooring.kvstore.match import BLOCK_TOKENS
from mooring.kvstore.store import KvStore
from mooring.telemetry import Metrics

_log = logging.getLogger("mooring.scheduler")
_WORTH_COMPACTING_CELLS = 2048


class Scheduler:
    """Requests, tickets and releases in; events out."""

    def __init__(
        self,
        context: DecodeContext,
        store: KvStore,
        metrics: Metrics,
        inbox: Inbox,
        deliver: Callable[[Mail], None],
        *,
        kv_bytes_per_token: int,
        max_queued: int,
        whole: bool = False,
    ) -> None:
        """`whole`: the model's sequences cannot be cut, so only whole prefixes are reused."""
        self._context = context
        self._store = store
        self._metrics = metrics
        self._whole = whole
        rates = Rates()
        self._buffer = Buffer(context, scratch_cells=BLOCK_TOKENS)
        self._outbox = Outbox(deliver)
        self._saving = Saving(self._buffer, store, self._outbox, kv_bytes_per_token)
        self._prefill = Prefill(self._buffer, store, self._saving, rates, metrics, whole=whole)
        self._idle = Idle(self._buffer, self._prefill, self._saving)
        self._evaluation = Evaluation(context, rates, whole=whole)
        self._decode = Decode(context, self._buffer, self._outbox, metrics)
        self._admission = Admission(
            self._buffer, self._prefill, self._idle, self._outbox, max_queued, whole=whole
        )
        self._admitted = Admitted(
            self._buffer, self._prefill, self._idle, self._saving, self._outbox, whole=whole
        )
        self._inbox = inbox
        self._closing = False
        self._reported = (-1, -1, -1)
        """Queued, running, cells: what the gauges show."""

    # Any thread

    def submit(self, ask: Ask) -> None:
        """Hand in a request or a ticket; its sink hears the rest.

        Raises:
            MooringError: the scheduler has ended.
        """
        self._inbox.submit(ask)

    def cancel(self, ask: Ask) -> None:
        """Its client went away; no further event of it matters. Harmless when it has ended."""
        self._evaluation.interrupt(only=ask)
        self._inbox.call(lambda: self._withdraw(ask))

    def release(self, prefix_id: str) -> None:
        self._inbox.call(lambda: self._release(prefix_id))

    def release_all_but(self, prefix_ids: Collection[str]) -> None:
        self._inbox.call(lambda: self._store.release_all_but(prefix_ids))

    def close(self) -> None:
        self._evaluation.interrupt()
        self._inbox.call(self._close)

    @property
    def total(self) -> Room:
        """What an empty buffer has room for."""
        return self._buffer.total

    def could_ever_hold(self, ask: Ask) -> bool:
        """Whether the empty buffer has room for all that an ask can need."""
        return self._buffer.total.holds(ask.needed)

    def fail_everything(self, error: MooringError) -> None:
        """Let nobody wait: refuse what comes, fail what is here. Touches no native state."""
        left = self._inbox.close(error)
        for ask in {*left, *self._admitted, *self._admission, *self._saving.tickets()}:
            if not ask.ended:
                self._outbox.post(ask.sink, error)
        self._outbox.flush(everything=True)

    # The loop

    def run(self) -> None:
        """Work until closed."""
        worked = False
        while not self._closing:
            self._receive(wait=not worked)
            worked = self.step()
            self._outbox.flush(everything=not worked)
        self.fail_everything(EngineFailed("the server is shutting down; try again shortly"))

    def step(self) -> bool:
        """Admit, prefill, decode, save; False when there is nothing to go on with."""
        self._start()
        self._compact()
        rows = plan_step(self._context.batch, self._admitted.decoding, self._admitted.fills)
        if rows and self._evaluate(rows):
            self._advance(rows)
        saved = self._saving.advance()
        if self._admitted:
            self._idle.clear()
        self._report()
        return bool(rows) or saved or self._prefill.importing()

    def _receive(self, *, wait: bool) -> None:
        """Take what has arrived, or wait for something.

        It waits only after a step that evaluated nothing: whatever a step changes, freed room
        included, is seen by the next one's admission.
        """
        for message in self._inbox.take(wait=wait):
            if isinstance(message, Ask):
                self._enter(message)
            else:
                message()
        self._store.poll()
        self._saving.poll()

    def _enter(self, ask: Ask) -> None:
        if not (isinstance(ask, Ticket) and self._saving.settle(ask)):
            self._admission.enter(ask)

    def _start(self) -> None:
        """Admit whoever there is room for, and begin to evaluate whoever has all that was to be had."""
        for ask in self._admission.admit():
            self._admitted.add(ask)
            self._prefill.begin(ask)
        for ask in self._prefill.advance():
            self._begin_fill(ask)
        self._outbox.flush()  # who has started should not hear of it a whole chunk later

    def _begin_fill(self, ask: Ask) -> None:
        if isinstance(ask, Request):
            for source, tokens in ask.cached_from.items():
                self._metrics.cached_tokens.labels(source).inc(tokens)
            self._outbox.post(ask.sink, Started(ask.cached_from.total(), ask.source))
        if not self._admitted.begin_fill(ask).remaining:
            assert isinstance(ask, Ticket)
            self._filled_prefix(ask)

    def _compact(self) -> None:
        """Everything moves to low cells when what runs has come to lie much higher than it need."""
        if not self._buffer.looser:
            return
        self._buffer.looser = False
        held, height = self._buffer.held, self._buffer.height
        if self._whole or height <= 2 * held or height - held < _WORTH_COMPACTING_CELLS:
            return
        moved = self._buffer.compact()
        self._metrics.compactions.inc()
        _log.info("buffer compacted from_cells=%d to_cells=%d bytes=%d", height, held, moved)

    def _evaluate(self, rows: Rows) -> bool:
        """Run the model on the batch; False when nothing came of it."""
        outcome = self._evaluation.run(rows)
        if outcome is Outcome.FAILED:
            error = EngineFailed(
                f"llama.cpp failed to evaluate the batch (status {self._evaluation.status})"
            )
            # Where states cannot be cut back, half-written ones can be anybody's.
            owners = list(self._admitted) if self._whole else {row.owner for row in rows}
            for owner in owners:
                self._admitted.fail(owner, error)
        return outcome is Outcome.DONE

    def _advance(self, rows: Rows) -> None:
        """Account for what was evaluated, and draw where logits are due."""
        for row in rows:
            if row.owner.ended:  # by the failure of another of its choices
                continue
            self._buffer.grown(row.sequence, row.sequence.done + row.tokens)
            if isinstance(row, FillRows):
                self._advance_fill(row)
                continue
            with self._admitted.failing(row.owner):
                self._decode.advance(row.owner, row.choice, row.row)
            self._admitted.finish_if_complete(row.owner)

    def _advance_fill(self, rows: FillRows) -> None:
        fill, owner = rows.fill, rows.owner
        purpose = "request" if isinstance(owner, Request) else "prefix"
        self._metrics.evaluated_tokens.labels(purpose).inc(rows.tokens)
        for ask in (owner, *self._prefill.behind(owner)):
            self._outbox.post(ask.sink, fill.progress, urgent=False)
        if fill.remaining:
            return
        self._admitted.end_fill(fill)
        if isinstance(owner, Request):
            self._prefill.forget(owner)
            self._recover(owner)
            with self._admitted.failing(owner):
                self._decode.begin(owner, fill, rows.row)
            self._admitted.finish_if_complete(owner)
        else:
            assert isinstance(owner, Ticket)
            self._filled_prefix(owner)

    def _recover(self, request: Request) -> None:
        """Save the prefix that a request names, if the store turned out to have lost some of it."""
        prefix = request.generation.prefix
        if prefix is None or self._whole or request.named < len(prefix) or not len(prefix):
            return
        if not (self._store.kept(prefix.id) or self._saving.under_way(prefix.id)):
            self._prefill.report_lost(prefix)
            self._saving.begin(request.sequence, prefix.label, Ticket(nobody, prefix))

    def _filled_prefix(self, ticket: Ticket) -> None:
        """A prefix is in the buffer: from here on it is being saved."""
        ticket.stage = Stage.SAVING
        self._admitted.leave(ticket)
        self._saving.begin(ticket.sequence, ticket.label, ticket)

    def _report(self) -> None:
        now = (
            len(self._admission),
            len(self._admitted),
            self._buffer.total.cells - self._buffer.free.cells,
        )
        if now != self._reported:
            self._reported = now
            self._metrics.queued_requests.set(now[0])
            self._metrics.running_requests.set(now[1])
            self._metrics.cells_used.set(now[2])

    # Endings

    def _withdraw(self, ask: Ask) -> None:
        """A client went away, wherever its ask is."""
        if ask.ended:
            return
        if ask.stage is Stage.QUEUED:
            self._admission.leave(ask)
            self._prefill.forget(ask)
        elif ask.stage is not Stage.SAVING:
            self._admitted.remove(ask)
        ask.stage = Stage.ENDED

    def _release(self, prefix_id: str) -> None:
        """Forget a prefix everywhere; whoever uses it keeps its cells until the end."""
        gone = EngineFailed("the prefix was released while it was being kept")
        self._saving.forget(prefix_id, gone)
        self._store.release(prefix_id)
        for ask in [*self._admission, *self._admitted]:
            if isinstance(ask, Ticket) and ask.prefix.id == prefix_id:
                self._outbox.post(ask.sink, gone)
                self._withdraw(ask)

    def _close(self) -> None:
        self._closing = True

    def check(self) -> None:
        """Invariants, for tests to run after every step: all room is accounted for."""
        self._buffer.check()
        self._store.check()
        self._admitted.check()
