"""The room in the KV buffer: cells and sequence ids, reserved before work starts.

Whoever is admitted has all the room it can ever need. So a running request never finds the buffer
full, and those that wait, wait in a queue and not half-way.
"""

from dataclasses import dataclass

from mooring.engine.llamacpp.sequence import Segment, Sequence


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


class Cells:
    """Which sequences there are, and how many cells they hold together. A pure account."""

    def __init__(self, total: Room) -> None:
        self.total = total
        self.sequences: dict[int, Sequence] = {}
        """The open ones by id, oldest first."""
        self._segments: set[Segment] = set()
        self._ids = list(range(total.sequences - 1, -1, -1))

    @property
    def used(self) -> int:
        """Cells that are taken or promised."""
        return sum(segment.cells for segment in self._segments)

    @property
    def held(self) -> int:
        """Cells that are taken already."""
        return sum(segment.held for segment in self._segments)

    @property
    def free(self) -> Room:
        return self.total - Room(self.used, len(self.sequences))

    @property
    def segments(self) -> list[Segment]:
        """All of them, by where they begin."""
        return sorted(self._segments, key=lambda segment: segment.start)

    def open(
        self, scope: str | None, tokens: bytes, end: int, source: Sequence | None = None, share: int = 0
    ) -> Sequence:
        """A sequence that will hold positions [0, end), the first `share` of them the source's cells."""
        assert self.free.holds(Room(end - share, 1)), "ask first"
        own = Segment(share)
        sequence = Sequence(self._ids.pop(), scope, tokens, [own])
        if source is not None and share:
            borrowed = [segment for segment in source.segments if segment.start < share]
            for segment in borrowed:
                segment.users[sequence] = min(share, segment.users[source])
            sequence.segments[:0] = borrowed
        own.users[sequence] = end
        self._segments.add(own)
        self.sequences[sequence.id] = sequence
        return sequence

    def shrink(self, sequence: Sequence, end: int) -> None:
        """It will never need more than [0, end)."""
        while len(sequence.segments) > 1 and sequence.segments[-1].start >= end:
            self._leave(sequence, sequence.segments.pop())
        last = sequence.segments[-1]
        last.users[sequence] = min(last.users[sequence], end)

    def close(self, sequence: Sequence) -> None:
        for segment in sequence.segments:
            self._leave(sequence, segment)
        del self.sequences[sequence.id]
        self._ids.append(sequence.id)

    def _leave(self, sequence: Sequence, segment: Segment) -> None:
        del segment.users[sequence]
        if not segment.users:
            self._segments.discard(segment)

    def check(self) -> None:
        """Invariants, for tests."""
        assert 0 <= self.used <= self.total.cells, self.used
        users = {sequence for segment in self._segments for sequence in segment.users}
        assert users == set(self.sequences.values())
        assert sorted([*self._ids, *self.sequences]) == list(range(self.total.sequences))
        for sequence in self.sequences.values():
            starts = [segment.start for segment in sequence.segments]
            assert starts == sorted(starts), starts
            assert starts[0] == 0, starts
            ends = [segment.users[sequence] for segment in sequence.segments]
            assert starts[1:] == ends[:-1], (starts, ends)
            assert sequence.done <= sequence.end, sequence
