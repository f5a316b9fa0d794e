"""Who may start: in order, when the room for it is there."""

from collections import deque
from collections.abc import Iterator

from mooring.core.errors import Overloaded
from mooring.engine.llamacpp.buffer import Buffer
from mooring.engine.llamacpp.cells import Room
from mooring.engine.llamacpp.idle import Idle
from mooring.engine.llamacpp.outbox import Outbox
from mooring.engine.llamacpp.prefill import Prefill
from mooring.engine.llamacpp.request import Ask, Request, Stage
from mooring.engine.llamacpp.sequence import Sequence

_READ_AHEAD = 8
"""So many asks at the head of the queue have their stored bytes read while they wait."""


class Admission:
    """The queue of what has been asked for and has not begun."""

    def __init__(
        self,
        buffer: Buffer,
        prefill: Prefill,
        idle: Idle,
        outbox: Outbox,
        max_queued: int,
        *,
        whole: bool,
    ) -> None:
        self._buffer = buffer
        self._prefill = prefill
        self._idle = idle
        self._outbox = outbox
        self._max_queued = max_queued
        self._whole = whole
        self._queue: deque[Ask] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Iterator[Ask]:
        return iter(self._queue)

    def enter(self, ask: Ask) -> None:
        """Take a place at the end; a request is sent away when too many are before it."""
        if isinstance(ask, Request):
            waiting = sum(isinstance(other, Request) for other in self._queue)
            if waiting >= self._max_queued:
                message = f"{waiting} requests are waiting already; try again shortly"
                ask.stage = Stage.ENDED
                self._outbox.post(ask.sink, Overloaded(message))
                return
        if len(self._queue) < _READ_AHEAD:
            self._prefill.read_ahead(ask)
        self._queue.append(ask)

    def leave(self, ask: Ask) -> None:
        """It does not want to wait any longer."""
        self._queue.remove(ask)

    def admit(self) -> Iterator[Ask]:
        """What can start now, its room taken. Nobody overtakes into room that the first one waits for.

        Each must have been started before the next is asked for.
        """
        while self._queue:
            ask = self._queue[0]
            if (ticket := self._prefill.ticket_for(ask)) is not None:
                self._queue.appendleft(ticket)
                continue
            if not self._open(ask):
                return
            self._queue.popleft()
            yield ask

    def _open(self, ask: Ask) -> bool:
        """Give an ask its sequences, if there is room for all it can need."""
        source, share = self._prefill.promising(ask)
        if source is not None and 2 * share < source.done:
            # What all prompts begin with is no reason to keep a long sequence: each step would pay.
            self._idle.clear()
            source, share = self._prefill.promising(ask)
        self._idle.clear(besides=source)
        choices = ask.needed.sequences
        while not self._buffer.free.holds(Room(ask.needed.cells - share, choices)):
            if self._idle.evict_one(besides=source):
                continue
            if source is None or source not in self._idle:
                return False
            if share < source.done and not self._whole:
                self._idle.trim(source, share)
            elif self._idle.evict_one(besides=None):
                source, share = self._prefill.promising(ask)
            else:
                return False
        first = self._buffer.open(ask.scope, ask.label, ask.end, source, share)
        ask.sequences.append(first)
        while len(ask.sequences) < choices:
            # The other answers begin where the prompt ends.
            ask.sequences.append(self._fork(ask, first))
        return True

    def _fork(self, ask: Ask, first: Sequence) -> Sequence:
        return self._buffer.open(None, b"", ask.end, first, len(ask.tokens))
