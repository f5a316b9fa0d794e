"""Tokens on their way into a sequence by evaluation."""

from dataclasses import dataclass, field

from mooring.core.prefix import Tokens
from mooring.engine.interface import Progress
from mooring.engine.llamacpp.request import Ask
from mooring.engine.llamacpp.sequence import Sequence


@dataclass(eq=False)
class Fill:
    """Tokens [0, sequence.done) are in the sequence, the rest is to be evaluated."""

    owner: Ask
    sequence: Sequence
    tokens: Tokens
    first: int = field(init=False)
    """Where evaluation began: [0, first) was taken from elsewhere."""

    def __post_init__(self) -> None:
        self.first = self.sequence.done

    @property
    def remaining(self) -> int:
        return len(self.tokens) - self.sequence.done

    @property
    def progress(self) -> Progress:
        return Progress(self.sequence.done - self.first, len(self.tokens) - self.first)
