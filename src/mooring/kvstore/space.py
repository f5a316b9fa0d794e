"""The accounts of the disk tier: what is on it, what is on its way, and how much more may be."""

from dataclasses import dataclass

from mooring.kvstore.disk import DiskTier

_UNKNOWN = 1 << 62


@dataclass
class DiskSpace:
    """Bytes of files, counted from when they are asked for until their removal is."""

    disk: DiskTier
    budget_bytes: int | None
    """None: what the file system has."""
    reserve_bytes: int
    """Left free on the file system in any case, so that the registry can be written."""
    used_bytes: int = 0
    pinned_bytes: int = 0
    unwritten_bytes: int = 0
    """Of `used_bytes`, what the file system does not know of yet."""
    unlinking_bytes: int = 0
    """No longer in `used_bytes`, and still on the file system."""

    def room_bytes(self) -> int:
        """What may be written now; below 0 when there is too much already."""
        free = self._free_bytes() - self.unwritten_bytes + self.unlinking_bytes
        return free if self.budget_bytes is None else min(free, self.budget_bytes - self.used_bytes)

    def budget_for_automatic_bytes(self) -> int:
        """What pins leave of the budget, whoever has it now."""
        return _UNKNOWN if self.budget_bytes is None else self.budget_bytes - self.pinned_bytes

    def room_for_pinned_bytes(self) -> int:
        """What could be written if everything that is not pinned made way."""
        return self.room_bytes() + self.used_bytes - self.pinned_bytes

    def _free_bytes(self) -> int:
        try:
            return self.disk.free_bytes() - self.reserve_bytes
        except OSError:
            return _UNKNOWN  # the truth shows on writing
