"""Brings prefixes into the KV buffer: from the store when it has them, else by computing them once.

The only part of the engine that touches `kvstore`. It is polled once a step and never blocks one.
"""

import logging
from collections.abc import Callable, Collection, Iterator

from mooring.core.errors import EngineFailed, MooringError, StorageFull
from mooring.core.prefix import Prefix
from mooring.engine.interface import Kept, Source, Started
from mooring.engine.llamacpp.binding import DecodeContext
from mooring.engine.llamacpp.cells import NO_ROOM, Cells, Room
from mooring.engine.llamacpp.fill import Fill
from mooring.engine.llamacpp.outbox import Outbox
from mooring.engine.llamacpp.prefixes import Entry, Save, Stage
from mooring.engine.llamacpp.request import Request, Ticket
from mooring.engine.llamacpp.request import Stage as RequestStage
from mooring.kvstore.store import KvStore
from mooring.kvstore.tier import KvObject
from mooring.telemetry import Metrics

_log = logging.getLogger("mooring.prefill")


class Prefill:
    """The prefixes in and around the buffer, and the fills that are under way."""

    def __init__(
        self,
        context: DecodeContext,
        cells: Cells,
        store: KvStore,
        outbox: Outbox,
        metrics: Metrics,
        *,
        kv_bytes_per_token: int,
        wake: Callable[[], None],
    ) -> None:
        """`wake` is called, from another thread, when a poll would find something new."""
        self.fills: list[Fill] = []
        """In the order they are evaluated."""
        self._context = context
        self._cells = cells
        self._store = store
        self._outbox = outbox
        self._metrics = metrics
        self._kv_bytes_per_token = kv_bytes_per_token
        self._wake = wake
        self._entries: set[Entry] = set()
        self._by_id: dict[str, Entry] = {}
        """What new askers find. A released entry is not here, but serves its requests to the end."""
        self._claimed: dict[Request, Entry] = {}
        self._saves: dict[str, Save] = {}

    # Asking for prefixes

    def claim(self, request: Request) -> None:
        """A request arrived: ask for its prefix's bytes while it queues."""
        if request.prefix is not None:
            entry = self._claimed[request] = self._entry(request.prefix)
            entry.claims.add(request)

    def keep(self, ticket: Ticket) -> Entry | None:
        """Somebody wants a prefix durable. Returns the entry when it must be queued to be computed."""
        if (save := self._saves.get(ticket.prefix.id)) is not None:
            save.tickets.append(ticket)
            return None
        entry = self._entry(ticket.prefix)
        entry.tickets.append(ticket)
        return self._settle_tickets(entry)

    def poll(self) -> Iterator[Entry]:
        """Take in what the store has answered; yields entries to be queued for computing."""
        for entry in list(self._entries):
            if entry.stage is Stage.FETCHING and entry.fetch.done():
                entry.found, entry.stage = entry.fetch.result(), Stage.FETCHED
                entry.durable = entry.found is not None
                if (missing := self._settle_tickets(entry)) is not None:
                    yield missing
        for save in [save for save in self._saves.values() if save.done.done()]:
            self._saved(save)

    def settled(self, request: Request) -> bool:
        """Whether the store has answered for this request's prefix."""
        entry = self.entry_of(request)
        return entry is None or entry.stage is not Stage.FETCHING

    def entry_of(self, request: Request) -> Entry | None:
        return self._claimed.get(request)

    @property
    def idle(self) -> bool:
        """Nothing is being fetched or saved."""
        return not self._saves and all(entry.stage is not Stage.FETCHING for entry in self._entries)

    def _entry(self, prefix: Prefix) -> Entry:
        entry = self._by_id.get(prefix.id)
        if entry is None:
            entry = Entry(prefix, self._store.fetch(prefix.id))
            entry.fetch.add_done_callback(lambda _: self._wake())
            self._entries.add(entry)
            self._by_id[prefix.id] = entry
        return entry

    def _settle_tickets(self, entry: Entry) -> Entry | None:
        """Answer whoever waits, if the prefix is durable; else see that it will be."""
        if not entry.tickets or entry.stage in (Stage.FETCHING, Stage.COMPUTING):
            return None
        if entry.durable:
            for ticket in entry.tickets:
                self._outbox.post(ticket.sink, Kept(0))
            entry.tickets.clear()
            self._drop_if_unused(entry)
            return None
        if entry.stage is Stage.RESIDENT:  # computed, but an earlier save failed
            self._save(entry)
            return None
        size = len(entry.prefix) * self._kv_bytes_per_token
        if self._store.room_for(size):
            return entry
        self._fail(
            entry.tickets,
            StorageFull(
                f"no room on disk for a cache of {len(entry.prefix)} tokens ({size / 1e6:.1f} MB):"
                " delete caches or free space in the data directory"
            ),
        )
        self._drop_if_unused(entry)
        return None

    # Starting work that has its room

    def room_for(self, entry: Entry | None) -> Room:
        """What the prefix still needs to be in the buffer."""
        return NO_ROOM if entry is None or entry.in_buffer else entry.room

    def start(self, request: Request) -> None:
        """Attach a request to its prefix, or let it wait for that; its own room is reserved."""
        entry = self.entry_of(request)
        if entry is None:
            self._fill(request, shared=None)
            return
        source = Source.RESIDENT
        if entry.stage is Stage.FETCHED:
            source = Source(entry.found.tier) if entry.found else Source.COMPUTED
            if not self._restore(entry):
                self._metrics.recomputed_prefixes.inc()
                _log.warning("prefix gone, computing it again prefix=%s", entry.prefix.id[:12])
                self.compute(entry, begun_by=request)
        if entry.stage is Stage.COMPUTING:
            request.stage = RequestStage.WAITING
            entry.waiting.append(request)
        else:
            request.source = source
            self._fill(request, shared=entry)

    def compute(self, entry: Entry, *, begun_by: Request | Ticket) -> None:
        """Begin evaluating a prefix into a sequence of its own."""
        if not entry.in_buffer:
            self._enter_buffer(entry)
        assert entry.sequence is not None
        entry.stage, entry.begun_by, entry.durable = Stage.COMPUTING, begun_by, False
        self.fills.append(Fill(entry, entry.sequence, entry.prefix.tokens, 0))

    def _restore(self, entry: Entry) -> bool:
        """Import the fetched bytes; False when there are none or llama.cpp refuses them."""
        found, entry.found = entry.found, None
        if found is None or found.item.tokens != len(entry.prefix):
            return False
        self._enter_buffer(entry)
        assert entry.sequence is not None
        if self._context.import_sequence(entry.sequence, found.item.payload):
            entry.stage = Stage.RESIDENT
            return True
        self._metrics.rejected_kv.labels("refused").inc()
        return False

    def _enter_buffer(self, entry: Entry) -> None:
        self._cells.reserve(entry.room)
        entry.sequence = self._cells.take_id()

    def _fill(self, request: Request, *, shared: Entry | None) -> None:
        """Begin evaluating a prompt, behind the shared tokens where there are any."""
        sequence = self._cells.take_id()
        if shared is not None:
            assert shared.sequence is not None
            self._context.copy_sequence(shared.sequence, sequence, request.reuse)
            request.cached_tokens = 0 if shared.begun_by is request else request.reuse
            self._metrics.cached_tokens.labels(request.source).inc(request.cached_tokens)
        start = request.reuse if shared is not None else 0
        request.stage = RequestStage.FILLING
        self.fills.append(Fill(request, sequence, request.generation.prompt, start))
        self._outbox.post(request.sink, Started(request.cached_tokens, request.source))

    # Ending

    def filled(self, entry: Entry) -> None:
        """A prefix is computed: start who waits for it, and write it through."""
        entry.stage = Stage.RESIDENT
        for request in entry.waiting:
            request.source = Source.COMPUTED
            self._fill(request, shared=entry)
        entry.waiting.clear()
        if not entry.released:
            self._save(entry)

    def leave(self, request: Request) -> None:
        """A request ended, by itself or by cancellation; it holds no sequence any more."""
        entry = self._claimed.pop(request, None)
        if entry is None:
            return
        entry.claims.discard(request)
        if request in entry.waiting:
            entry.waiting.remove(request)
        self._drop_if_unused(entry)

    def withdraw(self, ticket: Ticket) -> None:
        """A ticket's holder went away."""
        if (save := self._saves.get(ticket.prefix.id)) and ticket in save.tickets:
            save.tickets.remove(ticket)
        entry = self._by_id.get(ticket.prefix.id)
        if entry is not None and ticket in entry.tickets:
            entry.tickets.remove(ticket)
            self._drop_if_unused(entry)

    def release(self, prefix_id: str) -> None:
        """Forget a prefix everywhere; whoever uses it keeps its cells until the end."""
        self._store.forget(prefix_id)
        gone = EngineFailed("the prefix was released while it was being kept")
        if (save := self._saves.pop(prefix_id, None)) is not None:
            self._fail(save.tickets, gone)
        if (entry := self._by_id.pop(prefix_id, None)) is not None:
            entry.released = True
            self._fail(entry.tickets, gone)
            self._drop_if_unused(entry)

    def release_all_but(self, prefix_ids: Collection[str]) -> None:
        self._store.forget_all_but(prefix_ids)

    def drop_idle(self, *, besides: Entry | None) -> None:
        """Take idle prefixes out of the buffer: attention costs follow the highest used cell."""
        for entry in list(self._entries):
            if entry is not besides and entry.idle and entry.stage is Stage.RESIDENT:
                self._evict(entry)

    def recall_one(self, *, besides: Entry | None) -> bool:
        """Take out a prefix that only queued requests want, so that one before them can start.

        Its bytes are asked for again; it comes back when its turn comes. False when there is none.
        """
        for entry in self._entries:
            if entry is besides or entry.stage is not Stage.RESIDENT or entry.tickets:
                continue
            if all(request.stage is RequestStage.QUEUED for request in entry.claims):
                self._leave_buffer(entry)
                entry.stage, entry.fetch = Stage.FETCHING, self._store.fetch(entry.prefix.id)
                entry.fetch.add_done_callback(lambda _: self._wake())
                return True
        return False

    def fail_tickets(self, error: MooringError) -> None:
        """The engine ends: nobody will be answered any more."""
        for entry in self._entries:
            self._fail(entry.tickets, error)
        for save in self._saves.values():
            self._fail(save.tickets, error)

    def abandon(self, entry: Entry, error: MooringError) -> None:
        """The native library failed on this prefix: fail its tickets and forget it."""
        self._fail(entry.tickets, error)
        self._evict(entry)

    def _drop_if_unused(self, entry: Entry) -> None:
        if not entry.idle:
            return
        match entry.stage:
            case Stage.FETCHING | Stage.FETCHED:
                self._forget(entry)
            case Stage.COMPUTING:
                # A recomputation goes on although its client went away: else clients with short
                # patience would begin it for ever and never see it done.
                if entry.released or isinstance(entry.begun_by, Ticket):
                    self._evict(entry)
            case Stage.RESIDENT:
                if entry.released:
                    self._evict(entry)

    def _evict(self, entry: Entry) -> None:
        self._leave_buffer(entry)
        self._forget(entry)

    def _leave_buffer(self, entry: Entry) -> None:
        assert entry.sequence is not None
        self.fills = [fill for fill in self.fills if fill.owner is not entry]
        self._context.cut_sequence(entry.sequence, 0)
        self._cells.return_id(entry.sequence)
        self._cells.give_back(entry.room)
        entry.sequence = None

    def _forget(self, entry: Entry) -> None:
        self._entries.discard(entry)
        if self._by_id.get(entry.prefix.id) is entry:
            del self._by_id[entry.prefix.id]

    # Saving

    def _save(self, entry: Entry) -> None:
        assert entry.sequence is not None
        item = KvObject(len(entry.prefix), self._context.export_sequence(entry.sequence))
        save = Save(entry, self._store.keep(entry.prefix.id, item), list(entry.tickets))
        entry.tickets.clear()
        self._saves[entry.prefix.id] = save
        save.done.add_done_callback(lambda _: self._wake())

    def _saved(self, save: Save) -> None:
        entry = save.entry
        del self._saves[entry.prefix.id]
        error = save.done.exception()
        if error is None:
            entry.durable = True
            for ticket in save.tickets:
                paid = entry.begun_by is ticket
                self._outbox.post(ticket.sink, Kept(len(entry.prefix) if paid else 0))
            return
        _log.error("prefix not saved prefix=%s error=%s", entry.prefix.id[:12], error)
        if not isinstance(error, StorageFull):
            error = EngineFailed(f"the cache was not saved: {error}")
        self._fail(save.tickets, error)

    def _fail(self, tickets: list[Ticket], error: MooringError) -> None:
        for ticket in tickets:
            self._outbox.post(ticket.sink, error)
        tickets.clear()
