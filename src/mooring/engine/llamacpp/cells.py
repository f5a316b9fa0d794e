"""The room in the KV buffer: cells and sequence ids, reserved before work starts.

Whoever is admitted has all the room it can ever need. So a running request never finds the buffer
full, and those that wait, wait in a queue and not half-way.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Room:
    """Cells (one a token) and sequence ids."""

    cells: int
    sequences: int

    def __add__(self, other: "Room") -> "Room":
        return Room(self.cells + other.cells, self.sequences + other.sequences)

    def __sub__(self, other: "Room") -> "Room":
        return Room(self.cells - other.cells, self.sequences - other.sequences)

    def holds(self, other: "Room") -> bool:
        return self.cells >= other.cells and self.sequences >= other.sequences


NO_ROOM = Room(0, 0)


class Cells:
    """Who may use how much of the buffer."""

    def __init__(self, total: Room) -> None:
        self.total = total
        self.free = total
        self._ids = list(range(total.sequences - 1, -1, -1))

    def reserve(self, room: Room) -> None:
        assert self.free.holds(room), "ask first"
        self.free -= room

    def give_back(self, room: Room) -> None:
        self.free += room
        assert self.total.holds(self.free)

    def take_id(self) -> int:
        """A sequence id, out of a reservation."""
        return self._ids.pop()

    def return_id(self, sequence: int) -> None:
        assert sequence not in self._ids
        self._ids.append(sequence)
