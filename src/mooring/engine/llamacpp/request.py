"""What clients ask of the scheduler: answers (Request), or that a prefix be kept (Ticket).

    QUEUED --room--> SHARING --cells--> RESTORING --bytes--> FILLING --prompt--> DECODING --> ENDED
                                                                |------prefix--> SAVING ----> ENDED

Each stage is left in the step in which it has nothing to wait for.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from mooring.core.errors import MooringError
from mooring.core.prefix import Prefix, Tokens, common_tokens, pack
from mooring.engine.interface import Event, FinishReason, Generation, Kept, Source
from mooring.engine.llamacpp.binding import SamplerChain
from mooring.engine.llamacpp.cells import Room
from mooring.engine.llamacpp.grammar import Matcher
from mooring.engine.llamacpp.restoring import Restore
from mooring.engine.llamacpp.sequence import Sequence
from mooring.engine.text import TextStream

SHARED = (Source.RESIDENT, Source.COMPUTED)
"""What comes out of another sequence; an ask takes from one of them at most."""
Sink = Callable[[Event | Kept | MooringError], None]
"""Where a client's events go; called on the client's thread."""


class Stage(Enum):
    """Where an ask stands."""

    QUEUED = auto()
    """No room is reserved yet; stored bytes are being read ahead."""
    SHARING = auto()
    """Admitted; waits for another sequence to hold what it will share."""
    RESTORING = auto()
    """Stored blocks are on their way into its sequence."""
    FILLING = auto()
    """The rest of its tokens is being evaluated."""
    DECODING = auto()
    """A request's choices are being drawn."""
    SAVING = auto()
    """A ticket's blocks are on their way to disk."""
    ENDED = auto()


@dataclass(eq=False)
class Choice:
    """One answer of a request."""

    index: int
    sequence: Sequence
    sampler: SamplerChain
    text: TextStream
    pending: int | None = None
    """The token drawn last, to be evaluated in the next step."""
    tokens: list[int] = field(default_factory=list)
    """All that were drawn."""
    matcher: Matcher | None = None
    """Its place in the request's grammar."""
    finished: FinishReason | None = None

    @property
    def drawn(self) -> int:
        return len(self.tokens)


@dataclass(eq=False)
class Ask:
    """Tokens that are to be in the buffer, for whatever purpose."""

    sink: Sink
    stage: Stage = field(default=Stage.QUEUED, init=False)
    scope: str | None = field(init=False)
    """Whose content it may share."""
    tokens: Tokens = field(init=False)
    """What is to be in the buffer."""
    label: bytes = field(init=False)
    """The tokens, packed."""
    limit: int = field(init=False)
    """How many leading tokens may be taken from elsewhere."""
    taken_from: Counter[Source] = field(default_factory=Counter, init=False)
    """Leading tokens that were taken from elsewhere, by where that was; the others are evaluated."""
    sequences: list[Sequence] = field(default_factory=list, init=False)
    """From admission on: one for each choice, the first of which the prompt goes into."""
    behind: "Ask | None" = field(default=None, init=False)
    """Whose tokens it is waiting for."""
    restore: Restore | None = field(default=None, init=False)

    @property
    def sequence(self) -> Sequence:
        return self.sequences[0]

    @property
    def taken(self) -> int:
        """Leading tokens that were taken from elsewhere."""
        return self.taken_from.total()

    @property
    def ended(self) -> bool:
        return self.stage is Stage.ENDED

    @property
    def end(self) -> int:
        """The position that its first sequence will need at most."""
        raise NotImplementedError

    @property
    def needed(self) -> Room:
        """All it can need in an empty buffer."""
        raise NotImplementedError


@dataclass(eq=False)
class Request(Ask):
    """A generation on its way through the engine."""

    generation: Generation
    matcher: Matcher | None = None
    """At the beginning of the grammar that the generation asks for."""
    visible: frozenset[int] = frozenset()
    """Control tokens that show in the text."""
    automatic: bool = True
    """Whether it may share what was not named, and whether its own content is kept for later ones."""
    whole: bool = False
    """Whether it can begin from nothing but the whole of the prefix that it names."""
    ticket: "Ticket | None" = None
    """Computes the prefix that it names and that had been lost: this request pays for it."""
    helped: bool = False
    """A ticket was made for it."""
    choices: list[Choice] = field(default_factory=list)

    def __post_init__(self) -> None:
        generation = self.generation
        self.tokens, self.label = generation.prompt, pack(generation.prompt)
        prefix = generation.prefix
        self.automatic = self.automatic and not self.whole and generation.scope is not None
        self.scope = generation.scope if prefix is None else prefix.scope
        self.limit = len(generation.prompt) - 1  # the last token's logits are needed
        if self.whole:
            whole = prefix is not None and self.named == len(prefix) <= self.limit
            self.limit = self.named if whole else 0
        elif not self.automatic:
            self.limit = min(self.limit, self.named)

    @property
    def cached_from(self) -> Counter[Source]:
        """Prompt tokens that were computed before it came, by where they came from."""
        own = 0 if self.ticket is None else len(self.ticket.tokens) - self.ticket.taken
        shared = {source: min(own, self.taken_from[source]) for source in SHARED}
        return self.taken_from - Counter(shared)

    @property
    def source(self) -> Source:
        """Where most of what it reuses came from."""
        return max(self.taken_from, key=self.taken_from.__getitem__, default=Source.NONE)

    @property
    def named(self) -> int:
        """Leading tokens that the prompt shares with the prefix it names."""
        prefix = self.generation.prefix
        return 0 if prefix is None else common_tokens(prefix.label, self.label)

    @property
    def end(self) -> int:
        return len(self.tokens) + self.generation.sampling.max_tokens

    @property
    def needed(self) -> Room:
        sampling = self.generation.sampling
        return Room(len(self.tokens) + sampling.choices * sampling.max_tokens, sampling.choices)


@dataclass(eq=False)
class Ticket(Ask):
    """Somebody waits for a prefix to be durable."""

    prefix: Prefix

    def __post_init__(self) -> None:
        self.scope, self.tokens, self.label = self.prefix.scope, self.prefix.tokens, self.prefix.label
        self.limit = len(self.prefix)

    @property
    def end(self) -> int:
        return len(self.prefix)

    @property
    def needed(self) -> Room:
        return Room(len(self.prefix), 1)
