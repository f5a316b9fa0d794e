"""A prefix on its way into the KV buffer, in it, and out of it again.

    FETCHING --the store answers--> FETCHED --import its bytes----------> RESIDENT
       ^                               |                                     |  ^
       |                               +--none, or refused--> COMPUTING -----|--+
       +-------------recalled: an earlier request needs the room-------------+

Who wants it, and in what way:
    claims    requests that are queued for it, wait for it or share its cells: it stays known
    waiting   of those, the admitted ones that start when it is RESIDENT
    tickets   keepers that wait for it to be durable
With none of them it is idle: it leaves the buffer when others need room, and is then forgotten.
"""

from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum, auto

from mooring.core.prefix import Prefix
from mooring.engine.llamacpp.cells import Room
from mooring.engine.llamacpp.request import Ask, Request, RequestStage, Ticket
from mooring.kvstore.store import Found


class PrefixStage(Enum):
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
    """One prefix that somebody asked for."""

    prefix: Prefix
    fetch: "Future[Found | None]"
    stage: PrefixStage = PrefixStage.FETCHING
    found: Found | None = None
    sequence: int | None = None
    """Its sequence id in the buffer, while COMPUTING or RESIDENT."""
    claims: set[Request] = field(default_factory=set)
    waiting: list[Request] = field(default_factory=list)
    tickets: list[Ticket] = field(default_factory=list)
    begun_by: Ask | None = None
    """Who pays for computing it: others find it done."""
    durable: bool = False
    """The store holds it on disk."""
    released: bool = False
    """Nobody wants it kept any more: do not save it, and forget it once it is idle."""

    @property
    def in_buffer(self) -> bool:
        return self.sequence is not None

    @property
    def idle(self) -> bool:
        return not self.claims and not self.tickets

    @property
    def recallable(self) -> bool:
        """Only asks that have not started want it; a resident prefix's tickets never have."""
        queued = all(request.stage is RequestStage.QUEUED for request in self.claims)
        return self.stage is PrefixStage.RESIDENT and queued

    @property
    def room(self) -> Room:
        return Room(len(self.prefix), 1)
