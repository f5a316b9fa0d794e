"""Events collected during a step and handed over at its end: one hop between threads, not many."""

import time
from collections.abc import Callable

from mooring.core.errors import MooringError
from mooring.engine.interface import Event, Kept
from mooring.engine.llamacpp.request import Sink

_PATIENCE_S = 0.005
Mail = list[tuple[Sink, Event | Kept | MooringError]]


class Outbox:
    """`deliver` takes a batch and calls each sink on the clients' thread.

    A small model draws a token in less time than it takes to tell somebody of it, and whoever is told
    takes the processor from the model's own threads, which then wait for one another. So what is not
    urgent waits for its like, for a few milliseconds.
    """

    def __init__(self, deliver: Callable[[Mail], None]) -> None:
        self._deliver = deliver
        self._mail: Mail = []
        self._urgent = False
        self._delivered_at = 0.0

    def post(self, sink: Sink, event: Event | Kept | MooringError, *, urgent: bool = True) -> None:
        self._mail.append((sink, event))
        self._urgent = self._urgent or urgent

    def flush(self, *, everything: bool = False) -> None:
        """Deliver, if it is time to; `everything` before nothing else may come for a while."""
        now = time.monotonic()
        if self._mail and (self._urgent or everything or now - self._delivered_at >= _PATIENCE_S):
            mail, self._mail = self._mail, []
            self._urgent, self._delivered_at = False, now
            self._deliver(mail)
