"""A prefix on its way into the KV buffer, in it, and out of it again."""

from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum, auto

from mooring.core.prefix import Prefix
from mooring.engine.llamacpp.cells import Room
from mooring.engine.llamacpp.request import Request, Ticket
from mooring.kvstore.store import Found


class Stage(Enum):
    """Where a prefix stands."""

    FETCHING = auto()
    """The store was asked for its bytes."""
    FETCHED = auto()
    """The store has answered, with bytes or with nothing; the buffer does not hold it."""
    COMPUTING = auto()
    """Its tokens are being evaluated into its sequence."""
    RESIDENT = auto()
    """Its sequence holds all of it; requests share those cells."""


@dataclass(eq=False)
class Entry:
    """One prefix that somebody asked for. Claimed, it stays; idle, it leaves when others need room."""

    prefix: Prefix
    fetch: "Future[Found | None]"
    stage: Stage = Stage.FETCHING
    found: Found | None = None
    sequence: int | None = None
    """Its sequence id in the buffer, while COMPUTING or RESIDENT."""
    claims: set[Request] = field(default_factory=set)
    """Requests that are queued for it, wait for it or share its cells."""
    waiting: list[Request] = field(default_factory=list)
    """Admitted requests that start when it is RESIDENT, in order."""
    tickets: list[Ticket] = field(default_factory=list)
    """Who waits for it to be computed and durable."""
    begun_by: Request | Ticket | None = None
    """Who pays for computing it: others find it done."""
    durable: bool = False
    """The store holds it on disk."""
    released: bool = False
    """Nobody wants it kept any more: forget it once it is idle, and do not save it."""

    @property
    def in_buffer(self) -> bool:
        return self.sequence is not None

    @property
    def idle(self) -> bool:
        return not self.claims and not self.tickets

    @property
    def room(self) -> Room:
        return Room(len(self.prefix), 1)


@dataclass(eq=False)
class Save:
    """Bytes on their way to disk, and who waits for them to arrive."""

    entry: Entry
    done: "Future[None]"
    tickets: list[Ticket]
