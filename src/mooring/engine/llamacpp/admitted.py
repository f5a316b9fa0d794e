"""Who has been admitted: whose answers are drawn, what is being filled, and how each of them ends."""

from collections.abc import Iterator
from contextlib import contextmanager

from mooring.core.errors import MooringError
from mooring.core.prefix import pack
from mooring.engine.llamacpp.buffer import Buffer
from mooring.engine.llamacpp.fill import Fill
from mooring.engine.llamacpp.idle import Idle
from mooring.engine.llamacpp.outbox import Outbox
from mooring.engine.llamacpp.prefill import Prefill
from mooring.engine.llamacpp.request import Ask, Request, Stage
from mooring.engine.llamacpp.saving import Saving


class Admitted:
    """The asks that have sequences, oldest first."""

    def __init__(
        self,
        buffer: Buffer,
        prefill: Prefill,
        idle: Idle,
        saving: Saving,
        outbox: Outbox,
        *,
        whole: bool,
    ) -> None:
        self._buffer = buffer
        self._prefill = prefill
        self._idle = idle
        self._saving = saving
        self._outbox = outbox
        self._whole = whole
        self._asks: list[Ask] = []
        self.fills: list[Fill] = []
        """What is being evaluated, oldest first; only to be read from outside."""

    def __len__(self) -> int:
        return len(self._asks)

    def __iter__(self) -> Iterator[Ask]:
        return iter(self._asks)

    def add(self, ask: Ask) -> None:
        self._asks.append(ask)

    def begin_fill(self, ask: Ask) -> Fill:
        """What it has not taken from elsewhere is to be evaluated; that may be nothing."""
        fill = Fill(ask, ask.sequence, ask.tokens)
        if fill.remaining:
            self.fills.append(fill)
        return fill

    def end_fill(self, fill: Fill) -> None:
        self.fills.remove(fill)

    @property
    def decoding(self) -> list[Request]:
        """Whose answers are being drawn."""
        requests = (ask for ask in self._asks if isinstance(ask, Request))
        return [request for request in requests if request.stage is Stage.DECODING]

    def finish_if_complete(self, request: Request) -> None:
        if request.choices and all(choice.finished for choice in request.choices):
            self.remove(request)

    def remove(self, ask: Ask) -> None:
        """An ask has ended: what it held stays while nothing else needs the room."""
        self.leave(ask)
        ask.stage = Stage.ENDED
        if not isinstance(ask, Request):
            return
        for choice in ask.choices:
            choice.sampler.close()  # harmless when it is closed
        if ask.automatic and ask.sequence in self._idle:
            self._saving.begin(ask.sequence, ask.sequence.tokens)

    def leave(self, ask: Ask) -> None:
        """Nobody works on an ask's sequences any more."""
        self._asks.remove(ask)
        self._prefill.forget(ask)
        self.fills[:] = [fill for fill in self.fills if fill.owner is not ask]
        first, *others = ask.sequences
        for sequence in others:
            self._buffer.close(sequence)
        if first.done and (not self._whole or first.done == first.tokens_planned):
            self._idle.add(first, ask.label + _drawn(ask))
        else:
            self._buffer.close(first)

    def fail(self, ask: Ask, error: MooringError) -> None:
        if not ask.ended:
            self._outbox.post(ask.sink, error)
            self.remove(ask)

    @contextmanager
    def failing(self, request: Request) -> Iterator[None]:
        """What goes wrong with one request's answers ends that request alone."""
        try:
            yield
        except MooringError as error:
            self.fail(request, error)

    def check(self) -> None:
        """All sequences are an ask's or idle, and whoever fills has one fill."""
        held = {sequence for ask in self._asks for sequence in ask.sequences}
        for sequence in self._buffer.sequences:
            assert (sequence in held) != (sequence in self._idle), sequence
        stages = {ask.stage for ask in self._asks}
        assert stages.isdisjoint({Stage.QUEUED, Stage.SAVING, Stage.ENDED}), stages
        filling = {fill.owner for fill in self.fills}
        assert filling == {ask for ask in self._asks if ask.stage is Stage.FILLING}


def _drawn(ask: Ask) -> bytes:
    """The first answer's tokens, packed."""
    return pack(ask.choices[0].tokens) if isinstance(ask, Request) and ask.choices else b""
