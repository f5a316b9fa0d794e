"""Copies what was computed into the store, block by block, and makes explicit prefixes durable.

What is exported lies in RAM at once; a pin makes it durable on disk. A large prefix is pinned piece by
piece, so that it never waits in memory as a whole. A sequence that is being saved stays in the buffer
until all of it is exported.
"""

import logging
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

from mooring.core.errors import EngineFailed, MooringError, StorageFull
from mooring.core.prefix import TOKEN_BYTES
from mooring.engine.interface import Kept, Source
from mooring.engine.llamacpp.buffer import Buffer
from mooring.engine.llamacpp.outbox import Outbox
from mooring.engine.llamacpp.request import Stage, Ticket
from mooring.engine.llamacpp.sequence import Sequence
from mooring.kvstore.match import Cut
from mooring.kvstore.store import KvStore

_log = logging.getLogger("mooring.saving")
_STEP_BYTES = 32 << 20
"""Exported in one step at most, but one block always."""
_PIECE_BYTES = 64 << 20
"""So much of a prefix is exported before it has to be on disk."""


@dataclass(eq=False)
class _Export:
    """A sequence whose missing blocks are being copied out."""

    sequence: Sequence
    scope: str
    label: bytes
    cuts: deque[Cut]
    ticket: Ticket | None
    unpinned_bytes: int = 0
    """Exported for the ticket and not on its way to disk yet."""
    piece: "Future[None] | None" = None
    """What has to be on disk before more is exported."""
    pieces: list[str] = field(default_factory=list)
    """The ids under which the pieces are pinned."""

    @property
    def waits(self) -> bool:
        return self.piece is not None and not self.piece.done()


@dataclass(eq=False)
class _Pin:
    """Blocks on their way to disk, and who waits for them to arrive."""

    done: "Future[None]"
    pieces: list[str]
    """Pinned apart until all of it is."""
    tickets: list[Ticket] = field(default_factory=list)


class Saving:
    """Exports, one after the other, and pins that are under way."""

    def __init__(self, buffer: Buffer, store: KvStore, outbox: Outbox, kv_bytes_per_token: int) -> None:
        self._buffer = buffer
        self._store = store
        self._outbox = outbox
        self._kv_bytes_per_token = kv_bytes_per_token
        self._exports: deque[_Export] = deque()
        self._pins: dict[str, _Pin] = {}
        """By prefix id."""

    # Keeping a prefix

    def settle(self, ticket: Ticket) -> bool:
        """Whether a ticket needs no computation: it is answered, or will be when a write has ended."""
        prefix = ticket.prefix
        if self._store.kept(prefix.id):
            answer(ticket, 0, self._outbox)
            return True
        if (pin := self._pins.get(prefix.id)) is not None:
            ticket.stage, ticket.taken_from[Source.COMPUTED] = Stage.SAVING, len(prefix)
            pin.tickets.append(ticket)
            return True
        missing = sum(cut.end - cut.start for cut in self._store.missing(prefix.scope, prefix.label))
        if not missing:
            ticket.taken_from[Source.DISK] = len(prefix)
            self._pin(ticket, [])
            return True
        size = missing * self._kv_bytes_per_token
        if not self._store.room_for(size):
            message = (
                f"no room on disk for a cache of {len(prefix)} tokens ({size / 1e6:.1f} MB more): delete"
                " caches, raise kvstore.disk_bytes or free space in the data directory"
            )
            fail([ticket], StorageFull(message), self._outbox)
            return True
        return False

    def under_way(self, prefix_id: str) -> bool:
        """Whether a prefix is computed and will be kept soon."""
        exporting = (export.ticket for export in self._exports if export.ticket is not None)
        return prefix_id in self._pins or any(ticket.prefix.id == prefix_id for ticket in exporting)

    # Exporting

    def begin(self, sequence: Sequence, label: bytes, ticket: Ticket | None = None) -> None:
        """Copy out what the store does not have of a sequence's tokens; then pin it for a ticket."""
        assert sequence.scope is not None
        cuts = deque(self._store.missing(sequence.scope, label))
        self._exports.append(_Export(sequence, sequence.scope, label, cuts, ticket))

    def exporting(self, sequence: Sequence) -> bool:
        return any(export.sequence is sequence for export in self._exports)

    def advance(self) -> bool:
        """Export a step's worth; False when there was nothing to export."""
        budget, worked = _STEP_BYTES, False
        while budget > 0 and (export := next((e for e in self._exports if not e.waits), None)):
            budget -= self._export_next(export)
            worked = True
        return worked

    def finish(self, sequence: Sequence) -> None:
        """Export all that is left of a sequence now: its cells are needed."""
        for export in [export for export in self._exports if export.sequence is sequence]:
            while export in self._exports:
                self._export_next(export)

    def _export_next(self, export: _Export) -> int:
        """One block, or the end of the export; returns the bytes copied."""
        if export.cuts:
            cut = export.cuts.popleft()
            payload = self._buffer.export(export.sequence, cut.start, cut.end)
            self._store.add(export.scope, export.label, cut, payload)
            self._pin_piece(export, cut, payload.nbytes)
            return int(payload.nbytes)
        self._exports.remove(export)
        if export.ticket is not None and not export.ticket.ended:
            self._pin(export.ticket, export.pieces)
        else:
            self._unpin(export.pieces)
        return 0

    def _pin_piece(self, export: _Export, cut: Cut, size_bytes: int) -> None:
        """Have what was exported of a large prefix written before the rest of it follows."""
        if export.ticket is None or not export.cuts:
            return
        export.unpinned_bytes += size_bytes
        if export.unpinned_bytes >= _PIECE_BYTES:
            piece = f"{export.ticket.prefix.id}-{cut.end}"
            export.piece = self._store.pin(piece, export.scope, export.label[: cut.end * TOKEN_BYTES])
            export.pieces.append(piece)
            export.unpinned_bytes = 0

    def _unpin(self, pieces: list[str]) -> None:
        for piece in pieces:
            self._store.release(piece)

    # Pinning

    def _pin(self, ticket: Ticket, pieces: list[str]) -> None:
        prefix = ticket.prefix
        ticket.stage = Stage.SAVING
        if (pin := self._pins.get(prefix.id)) is None:
            done = self._store.pin(prefix.id, prefix.scope, prefix.label)
            pin = self._pins[prefix.id] = _Pin(done, pieces)
        else:
            pin.pieces += pieces
        pin.tickets.append(ticket)

    def poll(self) -> None:
        """Answer the tickets of pins that have ended."""
        for prefix_id, pin in [item for item in self._pins.items() if item[1].done.done()]:
            del self._pins[prefix_id]
            self._unpin(pin.pieces)
            error = pin.done.exception()
            if error is None:
                for ticket in pin.tickets:
                    answer(ticket, len(ticket.tokens) - ticket.taken, self._outbox)
                continue
            _log.error("prefix not saved prefix=%s error=%s", prefix_id[:12], error)
            if not isinstance(error, MooringError):
                error = EngineFailed(f"the cache was not saved: {error}")
            fail(pin.tickets, error, self._outbox)

    def forget(self, prefix_id: str, error: MooringError) -> None:
        """What is being saved is wanted no longer."""
        for export in [e for e in self._exports if e.ticket and e.ticket.prefix.id == prefix_id]:
            assert export.ticket is not None
            fail([export.ticket], error, self._outbox)
            self._exports.remove(export)
            self._unpin(export.pieces)
        if (pin := self._pins.pop(prefix_id, None)) is not None:
            self._unpin(pin.pieces)
            fail(pin.tickets, error, self._outbox)

    def tickets(self) -> list[Ticket]:
        """Who waits."""
        exporting = [export.ticket for export in self._exports if export.ticket is not None]
        return [*exporting, *(ticket for pin in self._pins.values() for ticket in pin.tickets)]

    @property
    def idle(self) -> bool:
        return not self._exports and not self._pins


def answer(ticket: Ticket, evaluated_tokens: int, outbox: Outbox) -> None:
    """Tell a ticket's holder that the prefix is durable."""
    if not ticket.ended:
        ticket.stage = Stage.ENDED
        outbox.post(ticket.sink, Kept(evaluated_tokens))


def fail(tickets: list[Ticket], error: MooringError, outbox: Outbox) -> None:
    """Tell the holders that it will not be."""
    for ticket in tickets:
        if not ticket.ended:
            ticket.stage = Stage.ENDED
            outbox.post(ticket.sink, error)
