"""What other threads hand to the decode thread."""

from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from threading import Lock

from mooring.core.errors import MooringError
from mooring.engine.llamacpp.request import Ask, Request, Ticket

Message = Ask | Callable[[], None]
"""An ask, or something to be done between two steps."""


class Inbox:
    """A queue with a door: once closed, an ask is refused at once, and none is left inside."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Message] = SimpleQueue()
        self._door = Lock()
        self._end: MooringError | None = None

    def submit(self, ask: Ask) -> None:
        """Raises the error that the inbox was closed with."""
        with self._door:
            if self._end is not None:
                raise self._end
            self._queue.put(ask)

    def call(self, action: Callable[[], None]) -> None:
        """Have something done on the decode thread; after the end, nothing."""
        self._queue.put(action)

    def wake(self) -> None:
        """Let the decode thread look around; something that it polls has changed."""
        self._queue.put(_nothing)

    def take(self, *, wait: bool) -> Iterator[Message]:
        """Everything that has arrived; with `wait`, at least one message."""
        try:
            while True:
                message = self._queue.get(block=wait)
                wait = False
                yield message
        except Empty:
            return

    def close(self, error: MooringError) -> set[Ask]:
        """Refuse what comes with this error; returns the asks that had not been taken."""
        with self._door:
            self._end = error
        return {ask for ask in self.take(wait=False) if isinstance(ask, Request | Ticket)}


def _nothing() -> None:
    pass
