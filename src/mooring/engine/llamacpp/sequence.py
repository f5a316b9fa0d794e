"""A sequence in the KV buffer, and the segments of cells it runs through.

    tokens      0         256        300       340
    system      [==== segment 1 ====)
    request A   [==== segment 1 ====)[= 2 =)           its own question and answer
    request B   [==== segment 1 ====)[==== 3 ====)     shares the beginning, cell by cell

A segment is counted once, to the end that the farthest of its users needs. So what a sequence shares is
reserved from the moment it is opened, whoever evaluates it in the end and whoever leaves first.
"""

from dataclasses import dataclass, field

from mooring.core.prefix import TOKEN_BYTES


@dataclass(eq=False)
class Segment:
    """Cells from position `start` on."""

    start: int
    users: dict["Sequence", int] = field(default_factory=dict)
    """Up to which position each sequence needs them; planned, not evaluated."""

    @property
    def end(self) -> int:
        return max(self.users.values(), default=self.start)

    @property
    def cells(self) -> int:
        """Taken or promised."""
        return self.end - self.start

    @property
    def held(self) -> int:
        """Of these, the ones that hold something."""
        reach = max((min(user.done, end) for user, end in self.users.items()), default=0)
        return max(0, reach - self.start)


@dataclass(eq=False)
class Sequence:
    """One of llama.cpp's sequences, with the tokens it holds or is about to hold."""

    id: int
    scope: str | None
    """Within which its content may be shared; None: not at all."""
    tokens: bytes = field(repr=False)
    """Packed: what others may share of it."""
    segments: list[Segment] = field(repr=False)
    """What it runs through, in order; the last one is its own."""
    done: int = 0
    """Positions [0, done) are in the buffer."""
    height: int = 0
    """How many cells were in use when it last took some: an estimate of its highest cell."""

    @property
    def tokens_planned(self) -> int:
        return len(self.tokens) // TOKEN_BYTES

    @property
    def end(self) -> int:
        """The position it will need at most."""
        return self.segments[-1].users[self]
