"""What clients ask of the scheduler: answers (Request), or that a prefix be kept (Ticket)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from mooring.core.errors import MooringError
from mooring.core.prefix import Prefix, common_length
from mooring.engine.interface import Event, FinishReason, Generation, Kept, Source
from mooring.engine.llamacpp.binding import SamplerChain
from mooring.engine.llamacpp.cells import NO_ROOM, Room
from mooring.engine.llamacpp.grammar import Matcher
from mooring.engine.llamacpp.text import TextStream

Sink = Callable[[Event | Kept | MooringError], None]
"""Where a client's events go; called on the client's thread."""


class RequestStage(Enum):
    """Where a request stands: QUEUED -> (WAITING ->) FILLING -> DECODING -> ENDED."""

    QUEUED = auto()
    """No room is reserved yet."""
    WAITING = auto()
    """Admitted; its prefix is on its way into the buffer."""
    FILLING = auto()
    """Its prompt is being evaluated."""
    DECODING = auto()
    """Its choices are being drawn."""
    ENDED = auto()


@dataclass(eq=False)
class Choice:
    """One answer of a request."""

    index: int
    sequence: int
    sampler: SamplerChain
    text: TextStream
    position: int
    """Where the next token goes: tokens in the sequence so far."""
    pending: int | None = None
    """The token drawn last, to be evaluated in the next step."""
    drawn: int = 0
    matcher: Matcher | None = None
    """Its place in the request's grammar."""
    finished: FinishReason | None = None


@dataclass(eq=False)
class Request:
    """A generation on its way through the engine."""

    generation: Generation
    sink: Sink
    matcher: Matcher | None = None
    """At the beginning of the grammar that the generation asks for."""
    visible: frozenset[int] = frozenset()
    """Control tokens that show in the text."""
    stage: RequestStage = RequestStage.QUEUED
    source: Source = Source.NONE
    cached_tokens: int = 0
    choices: list[Choice] = field(default_factory=list)
    reuse: int = field(init=False)
    """Leading prompt tokens shared with the prefix: [0, reuse) are taken, [reuse, end) evaluated."""

    def __post_init__(self) -> None:
        prompt, prefix = self.generation.prompt, self.generation.prefix
        shared = 0 if prefix is None else common_length(prompt, prefix.tokens)
        self.reuse = max(0, min(shared, len(prompt) - 1))  # the last token's logits are needed

    @property
    def prefix(self) -> Prefix | None:
        """What to reuse, if anything can be."""
        return self.generation.prefix if self.reuse else None

    @property
    def room(self) -> Room:
        """All it can need beside its prefix."""
        sampling = self.generation.sampling
        own = len(self.generation.prompt) - self.reuse
        return Room(own + sampling.choices * sampling.max_tokens, sampling.choices)

    @property
    def ended(self) -> bool:
        return self.stage is RequestStage.ENDED


@dataclass(eq=False)
class Ticket:
    """Somebody waits for a prefix to be durable."""

    prefix: Prefix
    sink: Sink
    ended: bool = False
    """Answered, or its holder went away."""

    @property
    def room(self) -> Room:
        """It needs its prefix only."""
        return NO_ROOM


Ask = Request | Ticket
