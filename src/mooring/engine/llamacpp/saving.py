"""Makes computed prefixes durable, and tells who waits for it."""

import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from mooring.core.errors import EngineFailed, MooringError, StorageFull
from mooring.engine.interface import Kept
from mooring.engine.llamacpp.binding import DecodeContext
from mooring.engine.llamacpp.outbox import Outbox
from mooring.engine.llamacpp.prefixes import Entry
from mooring.engine.llamacpp.request import Ask, Ticket
from mooring.kvstore.store import KvStore
from mooring.kvstore.tier import KvObject

_log = logging.getLogger("mooring.saving")


@dataclass(eq=False)
class _Save:
    """Bytes on their way to disk, and who waits for them to arrive."""

    entry: Entry
    done: "Future[None]"
    tickets: list[Ticket]
    begun_by: Ask | None


class Saving:
    """Saves that are under way, at most one for each prefix."""

    def __init__(
        self, context: DecodeContext, store: KvStore, outbox: Outbox, wake: Callable[[], None]
    ) -> None:
        """`wake` is called, from another thread, when a poll would find something new."""
        self._context = context
        self._store = store
        self._outbox = outbox
        self._wake = wake
        self._saves: dict[str, _Save] = {}

    def begin(self, entry: Entry) -> None:
        """Export a resident prefix and write it through; its tickets wait for the write."""
        assert entry.sequence is not None
        tickets, entry.tickets = entry.tickets, []
        if (save := self._saves.get(entry.prefix.id)) is not None:
            save.entry = entry  # equal prefixes have equal bytes: one write serves both
            save.tickets += tickets
            return
        item = KvObject(len(entry.prefix), self._context.export_sequence(entry.sequence))
        done = self._store.keep(entry.prefix.id, item)
        self._saves[entry.prefix.id] = _Save(entry, done, tickets, entry.begun_by)
        done.add_done_callback(lambda _: self._wake())

    def join(self, ticket: Ticket) -> bool:
        """Wait for a save that is under way; False when there is none."""
        save = self._saves.get(ticket.prefix.id)
        if save is not None:
            save.tickets.append(ticket)
        return save is not None

    def under_way(self, prefix_id: str) -> bool:
        return prefix_id in self._saves

    def poll(self) -> None:
        """Answer the tickets of saves that have ended."""
        for save in [save for save in self._saves.values() if save.done.done()]:
            del self._saves[save.entry.prefix.id]
            self._ended(save)

    def forget(self, prefix_id: str, error: MooringError) -> None:
        """What is being saved is wanted no longer."""
        if (save := self._saves.pop(prefix_id, None)) is not None:
            fail(save.tickets, error, self._outbox)

    def tickets(self) -> list[Ticket]:
        return [ticket for save in self._saves.values() for ticket in save.tickets]

    def _ended(self, save: _Save) -> None:
        prefix, error = save.entry.prefix, save.done.exception()
        if error is None:
            save.entry.durable = True
            for ticket in save.tickets:
                answer(ticket, len(prefix) if save.begun_by is ticket else 0, self._outbox)
            return
        _log.error("prefix not saved prefix=%s error=%s", prefix.id[:12], error)
        if not isinstance(error, StorageFull):
            error = EngineFailed(f"the cache was not saved: {error}")
        fail(save.tickets, error, self._outbox)


def answer(ticket: Ticket, evaluated_tokens: int, outbox: Outbox) -> None:
    """Tell a ticket's holder that the prefix is durable."""
    if not ticket.ended:
        ticket.ended = True
        outbox.post(ticket.sink, Kept(evaluated_tokens))


def fail(tickets: list[Ticket], error: MooringError, outbox: Outbox) -> None:
    """Tell the holders that it will not be, and empty the list."""
    for ticket in tickets:
        if not ticket.ended:
            ticket.ended = True
            outbox.post(ticket.sink, error)
    tickets.clear()
