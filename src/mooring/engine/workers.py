"""What an engine of several workers offers its operator, beside the Engine interface."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class WorkerStatus:
    """One worker, as this server sees it."""

    url: str
    state: str
    """up, draining or down."""
    reason: str
    """Why it is down, else empty."""
    requests: int
    """That this server has sent it, and that have not ended."""
    pinned_prefixes: int
    """On its device, when it was last asked."""


@runtime_checkable
class WorkerPool(Protocol):
    """An engine whose workers can be taken out of service one by one."""

    def workers(self) -> Sequence[WorkerStatus]:
        """All of them, in the configuration's order."""

    def drain(self, url: str, *, drained: bool) -> WorkerStatus:
        """Give a worker no more requests, or some again. Raises WorkerNotFound."""
