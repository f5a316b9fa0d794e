"""One step's batch: which tokens of whom go into which rows. A decision, taken without running it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mooring.engine.llamacpp.binding import Batch
from mooring.engine.llamacpp.fill import Fill
from mooring.engine.llamacpp.request import Ask, Choice, Request
from mooring.engine.llamacpp.sequence import Sequence as KvSequence


@dataclass(frozen=True)
class DrawRow:
    """A row holding a choice's latest token; its logits give the next one."""

    owner: Request
    choice: Choice
    row: int

    @property
    def sequence(self) -> KvSequence:
        return self.choice.sequence

    @property
    def tokens(self) -> int:
        return 1


@dataclass(frozen=True)
class FillRows:
    """A chunk of a fill; `row` is its last."""

    fill: Fill
    tokens: int
    row: int

    @property
    def owner(self) -> Ask:
        return self.fill.owner

    @property
    def sequence(self) -> KvSequence:
        return self.fill.sequence


Rows = list[DrawRow | FillRows]


def plan_step(batch: Batch, running: Sequence[Request], fills: Sequence[Fill]) -> Rows:
    """Fill the batch: every running choice's next token, then prompts.

    Of the room for prompts the oldest fill takes half, so that it is never starved; the rest goes to the
    shortest ones first, so that a question need not wait for a manual. What is left, the oldest takes.
    """
    batch.clear()
    rows: Rows = []
    for request in running:
        for choice in request.choices:
            if choice.finished is None:
                assert choice.pending is not None
                sequence = choice.sequence
                row = batch.add([choice.pending], sequence.done, sequence.id, logits=True)
                rows.append(DrawRow(request, choice, row))
    for fill, count in _share(batch.room, fills):
        done = fill.sequence.done
        draws = count == fill.remaining and isinstance(fill.owner, Request)
        row = batch.add(fill.tokens[done : done + count], done, fill.sequence.id, logits=draws)
        rows.append(FillRows(fill, count, row))
    return rows


def _share(room: int, fills: Sequence[Fill]) -> Iterator[tuple[Fill, int]]:
    """How many tokens of which fill, none of them 0; `room` in all at most."""
    if not fills:
        return
    oldest, *younger = fills
    for_younger = room - min(oldest.remaining, -(-room // 2))
    for fill in sorted(younger, key=lambda fill: fill.remaining):
        if count := min(fill.remaining, for_younger):
            for_younger -= count
            room -= count
            yield fill, count
    if count := min(oldest.remaining, room):
        yield oldest, count
