"""Brings prefixes into the KV buffer: from the store when it has them, else by computing them once.

With `saving`, the only part of the engine that touches `kvstore`. It is polled once a step and never
blocks one. `prefixes` has the picture of a prefix's stages.
"""

import logging
from collections.abc import Callable, Collection

from mooring.core.errors import EngineFailed, MooringError, StorageFull
from mooring.core.prefix import Prefix
from mooring.engine.interface import Source
from mooring.engine.llamacpp.binding import DecodeContext
from mooring.engine.llamacpp.buffer import Buffer
from mooring.engine.llamacpp.cells import NO_ROOM, Room
from mooring.engine.llamacpp.fill import Fill
from mooring.engine.llamacpp.outbox import Outbox
from mooring.engine.llamacpp.prefixes import Entry, PrefixStage
from mooring.engine.llamacpp.request import Ask, Request, Ticket
from mooring.engine.llamacpp.saving import Saving, answer, fail
from mooring.kvstore.store import KvStore
from mooring.telemetry import Metrics

_log = logging.getLogger("mooring.prefill")


class Prefill:
    """The prefixes in and around the buffer."""

    def __init__(
        self,
        context: DecodeContext,
        buffer: Buffer,
        fills: list[Fill],
        store: KvStore,
        outbox: Outbox,
        metrics: Metrics,
        *,
        kv_bytes_per_token: int,
        wake: Callable[[], None],
    ) -> None:
        """`fills` is the scheduler's list of what is to be evaluated.

        `wake` is called, from another thread, when a poll would find something new.
        """
        self._context = context
        self._buffer = buffer
        self._fills = fills
        self._store = store
        self._saving = Saving(context, store, outbox, wake)
        self._outbox = outbox
        self._metrics = metrics
        self._kv_bytes_per_token = kv_bytes_per_token
        self._wake = wake
        self._entries: set[Entry] = set()
        self._by_id: dict[str, Entry] = {}
        """What new askers find. A released entry is not here, but serves its requests to the end."""
        self._claimed: dict[Request, Entry] = {}

    # Asking

    def claim(self, request: Request) -> None:
        """A request arrived: ask for its prefix's bytes while it queues."""
        if request.prefix is not None:
            entry = self._claimed[request] = self._entry(request.prefix)
            entry.claims.add(request)

    def keep(self, ticket: Ticket) -> None:
        """Somebody wants a prefix durable; answered at once if it is."""
        if not self._saving.join(ticket):
            entry = self._entry(ticket.prefix)
            entry.tickets.append(ticket)
            self._answer_tickets(entry)

    def poll(self) -> None:
        """Take in what the store has answered."""
        for entry in list(self._entries):
            if entry.stage is PrefixStage.FETCHING and entry.fetch.done():
                self._fetched(entry)
        self._saving.poll()

    def entry_of(self, ask: Ask) -> Entry | None:
        """The prefix that an ask is about; None for a request that reuses nothing."""
        if isinstance(ask, Request):
            return self._claimed.get(ask)
        entry = self._by_id.get(ask.prefix.id)
        return entry if entry is not None and ask in entry.tickets else None

    def _entry(self, prefix: Prefix) -> Entry:
        entry = self._by_id.get(prefix.id)
        if entry is None:
            entry = self._by_id[prefix.id] = Entry(prefix, self._store.fetch(prefix.id))
            self._entries.add(entry)
            entry.fetch.add_done_callback(lambda _: self._wake())
        return entry

    def _fetched(self, entry: Entry) -> None:
        entry.stage = PrefixStage.FETCHED
        if (error := entry.fetch.exception()) is not None:  # a broken disk is as good as none
            _log.error("prefix unreadable prefix=%s error=%s", entry.prefix.id[:12], error)
            self._metrics.rejected_kv.labels("unreadable").inc()
        else:
            entry.found = entry.fetch.result()
            # Found in RAM while it is still being saved, it is not durable yet.
            saved = not self._saving.under_way(entry.prefix.id)
            entry.durable = entry.found is not None and saved
        self._answer_tickets(entry)

    def _answer_tickets(self, entry: Entry) -> None:
        """Answer who waits for a prefix that is durable, or that never can be."""
        if entry.durable:
            for ticket in entry.tickets:
                answer(ticket, 0, self._outbox)
            entry.tickets.clear()
        elif entry.tickets and entry.stage is PrefixStage.FETCHED:
            size = len(entry.prefix) * self._kv_bytes_per_token
            if not self._store.room_for(size):
                message = (
                    f"no room on disk for a cache of {len(entry.prefix)} tokens"
                    f" ({size / 1e6:.1f} MB): delete caches or free space in the data directory"
                )
                fail(entry.tickets, StorageFull(message), self._outbox)
        self._drop_if_unused(entry)

    # Bringing into the buffer

    def room_for(self, entry: Entry | None) -> Room:
        """What a prefix still needs to be in the buffer."""
        return NO_ROOM if entry is None or entry.in_buffer else entry.room

    def bring(self, entry: Entry, ask: Ask) -> Source:
        """See that a fetched prefix becomes resident, at once or by computing it; says whence."""
        source = Source.RESIDENT
        if entry.stage is PrefixStage.FETCHED:
            source = self._restore(entry) or self._compute(entry, ask)
        if entry.stage is PrefixStage.COMPUTING:
            return Source.COMPUTED
        if isinstance(ask, Ticket):  # in the buffer, but not known to be on disk
            self._saving.begin(entry)
        return source

    def _compute(self, entry: Entry, ask: Ask) -> Source:
        """Begin to evaluate a prefix that the store does not have."""
        if isinstance(ask, Request):
            self._metrics.recomputed_prefixes.inc()
            _log.warning("prefix gone, computing it again prefix=%s", entry.prefix.id[:12])
        sequence = self._enter_buffer(entry)
        entry.stage, entry.begun_by, entry.durable = PrefixStage.COMPUTING, ask, False
        self._fills.append(Fill(entry, sequence, entry.prefix.tokens, 0))
        return Source.COMPUTED

    def _restore(self, entry: Entry) -> Source | None:
        """Import the fetched bytes; None when there are none or llama.cpp refuses them."""
        found, entry.found = entry.found, None
        if found is None or found.item.tokens != len(entry.prefix):
            return None
        if not self._context.import_sequence(self._enter_buffer(entry), found.item.payload):
            self._metrics.rejected_kv.labels("refused").inc()
            self._leave_buffer(entry)
            return None
        entry.stage = PrefixStage.RESIDENT
        return Source(found.tier)

    def _enter_buffer(self, entry: Entry) -> int:
        self._buffer.reserve(entry.room)
        entry.sequence = self._buffer.open()
        return entry.sequence

    def computed(self, entry: Entry) -> None:
        """The last token of a prefix was evaluated: it is resident, and written through."""
        entry.stage = PrefixStage.RESIDENT
        if not entry.released:
            self._saving.begin(entry)

    # Letting go

    def leave(self, request: Request) -> None:
        """A request ended, by itself or by cancellation."""
        entry = self._claimed.pop(request, None)
        if entry is not None:
            entry.claims.discard(request)
            if request in entry.waiting:
                entry.waiting.remove(request)
            self._drop_if_unused(entry)

    def withdraw(self, ticket: Ticket) -> None:
        """A ticket's holder went away."""
        ticket.ended = True
        entry = self.entry_of(ticket)
        if entry is not None:
            entry.tickets.remove(ticket)
            self._drop_if_unused(entry)

    def release(self, prefix_id: str) -> None:
        """Forget a prefix everywhere; whoever uses it keeps its cells until the end."""
        self._store.forget(prefix_id)
        gone = EngineFailed("the prefix was released while it was being kept")
        self._saving.forget(prefix_id, gone)
        if (entry := self._by_id.pop(prefix_id, None)) is not None:
            entry.released = True
            fail(entry.tickets, gone, self._outbox)
            self._drop_if_unused(entry)

    def release_all_but(self, prefix_ids: Collection[str]) -> None:
        self._store.forget_all_but(prefix_ids)

    def drop_idle(self, *, besides: Entry | None) -> None:
        """Take idle prefixes out of the buffer: attention costs follow the highest used cell."""
        for entry in list(self._entries):
            if entry is not besides and entry.idle and entry.stage is PrefixStage.RESIDENT:
                self._forget(entry)

    def recall_one(self, *, besides: Entry | None) -> bool:
        """Take out a prefix that only queued requests want, so that one before them can start.

        Its bytes are asked for again; it comes back when its turn comes. False when there is none.
        """
        for entry in self._entries:
            if entry is not besides and entry.recallable:
                self._leave_buffer(entry)
                entry.stage, entry.fetch = PrefixStage.FETCHING, self._store.fetch(entry.prefix.id)
                entry.fetch.add_done_callback(lambda _: self._wake())
                return True
        return False

    def give_up(self, entry: Entry, error: MooringError) -> list[Request]:
        """The native library failed on a prefix: back to nothing; returns who waited for it."""
        waiting, entry.waiting = entry.waiting, []
        fail(entry.tickets, error, self._outbox)
        self._leave_buffer(entry)
        entry.stage, entry.begun_by = PrefixStage.FETCHED, None  # whoever is queued may try again
        self._drop_if_unused(entry)
        return waiting

    def tickets(self) -> list[Ticket]:
        """Everybody who still waits for a prefix to be durable."""
        return [*(t for entry in self._entries for t in entry.tickets), *self._saving.tickets()]

    def _drop_if_unused(self, entry: Entry) -> None:
        if not entry.idle:
            return
        match entry.stage:
            case PrefixStage.FETCHING | PrefixStage.FETCHED:
                self._forget(entry)
            case PrefixStage.COMPUTING:
                # A recomputation goes on although its client went away: else clients with short
                # patience would begin it for ever and never see it done.
                if entry.released or isinstance(entry.begun_by, Ticket):
                    self._forget(entry)
            case PrefixStage.RESIDENT:
                if entry.released:
                    self._forget(entry)

    def _forget(self, entry: Entry) -> None:
        self._leave_buffer(entry)
        self._entries.discard(entry)
        if self._by_id.get(entry.prefix.id) is entry:
            del self._by_id[entry.prefix.id]

    def _leave_buffer(self, entry: Entry) -> None:
        if entry.sequence is not None:
            self._fills[:] = [fill for fill in self._fills if fill.owner is not entry]
            self._buffer.close(entry.sequence)
            self._buffer.give_back(entry.room)
            entry.sequence = None

    def check(self) -> None:
        """Invariants, for tests to run after every step."""
        for entry in self._entries:
            computing = [fill for fill in self._fills if fill.owner is entry]
            assert bool(computing) == (entry.stage is PrefixStage.COMPUTING), entry
            assert entry.in_buffer == (entry.stage in (PrefixStage.COMPUTING, PrefixStage.RESIDENT)), (
                entry
            )
            assert set(entry.waiting) <= entry.claims, entry
            assert not entry.waiting or entry.stage is PrefixStage.COMPUTING, entry
            assert not (entry.idle and entry.stage is PrefixStage.FETCHED), entry
        assert set(self._claimed.values()) <= self._entries
        assert set(self._by_id.values()) <= self._entries

    @property
    def reserved(self) -> Room:
        """What prefixes hold of the buffer."""
        return sum((entry.room for entry in self._entries if entry.in_buffer), NO_ROOM)
