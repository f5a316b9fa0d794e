"""The KV buffer as its users see it: reserve room, open a sequence in it, close it again."""

from mooring.engine.llamacpp.binding import DecodeContext
from mooring.engine.llamacpp.cells import Cells, Room


class Buffer:
    """Keeps llama.cpp's sequences and the accounting of their room together."""

    def __init__(self, context: DecodeContext) -> None:
        self._context = context
        self._cells = Cells(Room(context.shape.cells, context.shape.sequences))

    @property
    def total(self) -> Room:
        return self._cells.total

    @property
    def free(self) -> Room:
        return self._cells.free

    def reserve(self, room: Room) -> None:
        self._cells.reserve(room)

    def give_back(self, room: Room) -> None:
        self._cells.give_back(room)

    def open(self) -> int:
        """An empty sequence, out of a reservation."""
        return self._cells.take_id()

    def open_on(self, shared: int, tokens: int) -> int:
        """A sequence that begins with the first `tokens` cells of another; no bytes are copied."""
        sequence = self._cells.take_id()
        self._context.copy_sequence(shared, sequence, tokens)
        return sequence

    def close(self, sequence: int) -> None:
        """Forget a sequence; cells that another one shares stay."""
        self._context.cut_sequence(sequence, 0)
        self._cells.return_id(sequence)
