"""Events collected during a step and handed over at its end: one hop between threads, not many."""

from collections.abc import Callable

from mooring.core.errors import MooringError
from mooring.engine.interface import Event, Kept
from mooring.engine.llamacpp.request import Sink

Mail = list[tuple[Sink, Event | Kept | MooringError]]


class Outbox:
    """`deliver` takes a batch and calls each sink on the clients' thread."""

    def __init__(self, deliver: Callable[[Mail], None]) -> None:
        self._deliver = deliver
        self._mail: Mail = []

    def post(self, sink: Sink, event: Event | Kept | MooringError) -> None:
        self._mail.append((sink, event))

    def flush(self) -> None:
        if self._mail:
            mail, self._mail = self._mail, []
            self._deliver(mail)
