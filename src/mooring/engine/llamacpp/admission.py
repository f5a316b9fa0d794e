"""Who may start: in order, when the room for it is there."""

from collections import deque
from collections.abc import Iterator

from mooring.core.errors import Overloaded
from mooring.engine.llamacpp.buffer import Buffer
from mooring.engine.llamacpp.outbox import Outbox
from mooring.engine.llamacpp.prefill import Prefill
from mooring.engine.llamacpp.prefixes import Entry, PrefixStage
from mooring.engine.llamacpp.request import Ask, Request, RequestStage, Ticket


class Admission:
    """The queue of what has been asked for and has not begun."""

    def __init__(self, buffer: Buffer, prefill: Prefill, outbox: Outbox, max_queued: int) -> None:
        self._buffer = buffer
        self._prefill = prefill
        self._outbox = outbox
        self._max_queued = max_queued
        self._queue: deque[Ask] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Iterator[Ask]:
        return iter(self._queue)

    def enter(self, ask: Ask) -> None:
        """Take a place at the end; a request is sent away when too many are before it."""
        if isinstance(ask, Ticket):
            self._prefill.keep(ask)
        else:
            waiting = sum(isinstance(other, Request) and not other.ended for other in self._queue)
            if waiting >= self._max_queued:
                message = f"{waiting} requests are waiting already; try again shortly"
                ask.stage = RequestStage.ENDED
                self._outbox.post(ask.sink, Overloaded(message))
                return
            self._prefill.claim(ask)
        self._queue.append(ask)

    def admit(self) -> Iterator[tuple[Ask, Entry | None]]:
        """What can start now, with its prefix. Nobody overtakes into room that the first one waits for.

        Each must have been started before the next is asked for.
        """
        for ask in list(self._queue):
            entry = self._prefill.entry_of(ask)
            if ask.ended or (isinstance(ask, Ticket) and entry is None):
                self._queue.remove(ask)  # answered or withdrawn, or its bytes are being saved
                continue
            if entry is not None and entry.stage is PrefixStage.FETCHING:
                continue  # its bytes are under way; it keeps its place
            if not self._make_room(ask, entry):
                break
            self._queue.remove(ask)
            yield ask, entry

    def _make_room(self, ask: Ask, entry: Entry | None) -> bool:
        needed = ask.room + self._prefill.room_for(entry)
        self._prefill.drop_idle(besides=entry)
        while not self._buffer.free.holds(needed):
            if not self._prefill.recall_one(besides=entry):
                return False
        return True
