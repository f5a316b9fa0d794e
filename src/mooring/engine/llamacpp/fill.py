"""Prompt tokens on their way into a sequence."""

from dataclasses import dataclass, field

from mooring.core.prefix import Tokens
from mooring.engine.interface import Progress
from mooring.engine.llamacpp.prefixes import Entry
from mooring.engine.llamacpp.request import Request


@dataclass(eq=False)
class Fill:
    """Tokens [0, done) are in the sequence, [done, end) are to be evaluated."""

    owner: Request | Entry
    """A request's prompt, or a prefix that will be shared."""
    sequence: int
    tokens: Tokens
    done: int
    first: int = field(init=False)
    """Where evaluation began: [0, first) was shared."""

    def __post_init__(self) -> None:
        self.first = self.done

    @property
    def remaining(self) -> int:
        return len(self.tokens) - self.done

    @property
    def progress(self) -> Progress:
        return Progress(self.done - self.first, len(self.tokens) - self.first)
