"""Stored blocks on their way into a sequence."""

from dataclasses import dataclass

from mooring.kvstore.fetch import Fetch
from mooring.kvstore.match import Match


@dataclass(eq=False)
class Restore:
    """What the store has of an ask's tokens, and the reading of it."""

    match: Match
    fetch: Fetch
    """Of the match's last blocks; what comes before them was to be had from the buffer."""
    next: int = 0
    """Which of the fetched blocks comes next."""

    @property
    def complete(self) -> bool:
        return self.next == len(self.fetch.blocks)
