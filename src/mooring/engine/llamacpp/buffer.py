"""The KV buffer as its users see it: open a sequence in it, share, export, restore, close."""

import numpy as np
from numpy.typing import NDArray

from mooring.core.prefix import common_tokens
from mooring.engine.llamacpp.binding import DecodeContext
from mooring.engine.llamacpp.cells import Cells, Room
from mooring.engine.llamacpp.sequence import Sequence


class Buffer:
    """Keeps llama.cpp's sequences and the account of their cells together."""

    def __init__(self, context: DecodeContext, *, scratch_cells: int) -> None:
        """`scratch_cells` are kept free for blocks on their way in; so is one sequence id."""
        self._context = context
        shape = context.shape
        self._cells = Cells(Room(shape.cells - scratch_cells, shape.sequences - 1))
        self._scratch = shape.sequences - 1
        self._grown: set[Sequence] = set()

    @property
    def total(self) -> Room:
        return self._cells.total

    @property
    def free(self) -> Room:
        return self._cells.free

    @property
    def sequences(self) -> list[Sequence]:
        """The open ones, oldest first."""
        return list(self._cells.sequences.values())

    def open(
        self, scope: str | None, tokens: bytes, end: int, source: Sequence | None = None, share: int = 0
    ) -> Sequence:
        """An empty sequence with room for positions [0, end), `share` of them promised by `source`."""
        return self._cells.open(scope, tokens, end, source, share)

    def share(self, source: Sequence, sequence: Sequence, end: int) -> None:
        """Let an empty sequence begin with the first `end` cells of another; no bytes are copied."""
        assert sequence.done == 0, "only an empty one"
        assert end <= source.done, "only what is there"
        self._context.copy_sequence(source.id, sequence.id, 0, end)
        sequence.done, sequence.height = end, source.height

    def restore(self, sequence: Sequence, payload: NDArray[np.uint8], start: int, end: int) -> bool:
        """Append positions [sequence.done, end) of an exported block that begins at `start`.

        False, and nothing has changed, when llama.cpp refuses the bytes.
        """
        assert start <= sequence.done < end, (start, sequence.done, end)
        if not self._context.import_sequence(self._scratch, payload):
            return False
        self._context.copy_sequence(self._scratch, sequence.id, sequence.done, end)
        self._context.cut_sequence(self._scratch, 0)
        self.grown(sequence, end)
        return True

    def export(self, sequence: Sequence, start: int, end: int) -> NDArray[np.uint8]:
        """The bytes of positions [start, end)."""
        assert 0 <= start < end <= sequence.done, (start, end, sequence.done)
        if start == 0 and end == sequence.done:
            return self._context.export_sequence(sequence.id)
        self._context.copy_sequence(sequence.id, self._scratch, start, end)
        data = self._context.export_sequence(self._scratch)
        self._context.cut_sequence(self._scratch, 0)
        return data

    def grown(self, sequence: Sequence, done: int) -> None:
        """More of a sequence has come into the buffer."""
        sequence.done = done
        self._grown.add(sequence)

    def cut(self, sequence: Sequence, end: int) -> None:
        """Forget positions [end, ...), and promise it no more room than it has."""
        assert end <= sequence.done, (end, sequence.done)
        if end < sequence.done:
            self._context.cut_sequence(sequence.id, end)
        sequence.done = end
        self._cells.shrink(sequence, end)

    def close(self, sequence: Sequence) -> None:
        """Forget a sequence; cells that another one shares stay."""
        self._context.cut_sequence(sequence.id, 0)
        self._cells.close(sequence)
        self._grown.discard(sequence)

    # Compaction

    @property
    def held(self) -> int:
        """Cells that hold something."""
        return self._cells.held

    @property
    def height(self) -> int:
        """About where the highest used cell is: attention costs every step as much as that.

        llama.cpp fills the lowest free cells first and does not say where they are; so a sequence is
        taken to reach as high as the number of cells that were in use when it last grew.
        """
        held = self.held
        for sequence in self._grown:
            sequence.height = max(sequence.height, held)
        self._grown.clear()
        return max((sequence.height for sequence in self._cells.sequences.values()), default=0)

    def compact(self) -> int:
        """Move everything to the lowest cells, shared cells staying shared; returns the bytes moved."""
        moved = []
        for segment in self._cells.segments:
            extents = {user: min(user.done, end) for user, end in segment.users.items()}
            holder = max(extents, key=lambda user: extents[user])
            if (end := extents[holder]) > segment.start:
                moved.append((segment.start, extents, self.export(holder, segment.start, end)))
        self._context.clear()
        for start, extents, payload in moved:
            imported = self._context.import_sequence(self._scratch, payload)
            assert imported, "the cells that held it are free"
            for user, end in extents.items():
                if end > start:
                    self._context.copy_sequence(self._scratch, user.id, start, end)
            self._context.cut_sequence(self._scratch, 0)
        held = self.held
        for sequence in self._cells.sequences.values():
            sequence.height = held
        return sum(payload.nbytes for _, _, payload in moved)

    def check(self) -> None:
        """Invariants, for tests: the account is consistent, and llama.cpp holds what it says."""
        self._cells.check()
        for sequence in self._cells.sequences.values():
            last = self._context.last_position(sequence.id)
            assert last == sequence.done - 1, (sequence, last)
        assert self._context.last_position(self._scratch) == -1


def shared_tokens(sequence: Sequence, scope: str | None, tokens: bytes) -> int:
    """How many leading tokens of a sequence, evaluated or planned, somebody in `scope` can share."""
    if scope is None or sequence.scope != scope:
        return 0
    return common_tokens(sequence.tokens, tokens)
