"""The contract of a tier that several engines read and write at the same time."""

from typing import Protocol

from mooring.kvstore.tier import Tier


class SharedTier(Tier, Protocol):
    """A tier whose `put` returns when the payload would survive the loss of this machine's memory.

    Every method may raise OSError, because the tier is elsewhere; ENOSPC says that it is full.
    """

    @property
    def loses_copies(self) -> bool:
        """Whether copies can vanish without anybody's doing, so that somebody has to look."""

    def repair(self, key: str) -> bool:
        """Restore the promised number of copies; False while there are fewer.

        Raises:
            Rejected: what is left of it must not be used.
        """

    def remove_unfinished(self, older_than_s: float) -> None:
        """Remove what a crash left half written, if nobody can be writing it any more."""
