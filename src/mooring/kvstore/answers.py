"""What I/O threads hand over to the decode thread."""

from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any


class Answers:
    """Calls to be made on the decode thread, in the order they were posted."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """`wake` is called, from any thread, when there is something to apply."""
        self._wake = wake
        self._posted: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def post(self, answer: Callable[[], None]) -> None:
        """From any thread."""
        self._posted.put(answer)
        self._wake()

    def when_done(self, task: "Future[Any]", answer: Callable[[], None]) -> None:
        task.add_done_callback(lambda _: self.post(answer))

    def apply(self) -> None:
        while True:
            try:
                answer = self._posted.get_nowait()
            except Empty:
                return
            answer()

    @property
    def waiting(self) -> bool:
        return not self._posted.empty()
