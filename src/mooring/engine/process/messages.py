"""What the server and the engine's process say to each other.

Tokens travel packed: the bytes of a kept prefix are made once, and taken as they are.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from mooring.config import EngineConfig, KvStoreConfig
from mooring.core.conversation import Conversation
from mooring.core.errors import MooringError, StartRefused
from mooring.core.prefix import Prefix, pack
from mooring.engine.interface import (
    Event,
    Finished,
    Generation,
    Kept,
    ModelInfo,
)


@dataclass(frozen=True)
class PackedPrefix:
    """A prefix; its id goes along, so that it need not be computed again."""

    id: str
    scope: str
    tokens: bytes

    @classmethod
    def of(cls, prefix: Prefix) -> "PackedPrefix":
        return cls(prefix.id, prefix.scope, prefix.label)


# To the engine's process


@dataclass(frozen=True)
class Load:
    """The first message: what to serve."""

    model_path: Path
    name: str
    engine: EngineConfig
    store: KvStoreConfig
    data_dir: Path
    metrics_dir: Path
    log_level: str


@dataclass(frozen=True)
class Render:
    """Render a conversation: whole, or its stable prefix."""

    call: int
    conversation: Conversation
    stable: bool


@dataclass(frozen=True)
class Keep:
    """Make a prefix durable; `progress` asks for news while it is computed."""

    call: int
    prefix: PackedPrefix
    progress: bool


@dataclass(frozen=True)
class Generate:
    """Answer a prompt."""

    call: int
    prompt: bytes
    """Without the prefix, when `continues`."""
    prefix: PackedPrefix | None
    continues: bool
    """The prompt begins with the whole prefix."""
    rest: Generation
    """All else; its own prompt and prefix are left out."""

    @classmethod
    def of(cls, call: int, generation: Generation) -> "Generate":
        prompt, prefix = pack(generation.prompt), generation.prefix
        rest = replace(generation, prompt=(), prefix=None)
        if prefix is None:
            return cls(call, prompt, None, False, rest)
        continues = prompt.startswith(prefix.label)
        prompt = prompt.removeprefix(prefix.label)
        return cls(call, prompt, PackedPrefix.of(prefix), continues, rest)


@dataclass(frozen=True)
class Release:
    """Forget a prefix; nothing is answered."""

    prefix_id: str


@dataclass(frozen=True)
class ReleaseAllBut:
    """Forget whatever is not named."""

    call: int
    prefix_ids: frozenset[str]


@dataclass(frozen=True)
class Cancel:
    """Nobody waits for a call any more."""

    call: int


@dataclass(frozen=True)
class Stop:
    """End in order."""


Call = Render | Keep | Generate | ReleaseAllBut
Order = Load | Call | Release | Cancel | Stop


# From the engine's process


@dataclass(frozen=True)
class Loading:
    """How far starting has come."""

    what: str
    share: float


@dataclass(frozen=True)
class Refused:
    """It must not start like this; the process ends."""

    error: StartRefused


@dataclass(frozen=True)
class Ready:
    """It serves."""

    model: ModelInfo


@dataclass(frozen=True)
class Rendered:
    """A call's answer: packed tokens."""

    tokens: bytes


@dataclass(frozen=True)
class Done:
    """A call's answer when there is nothing to tell."""


Answer = Event | Kept | Rendered | Done | MooringError
LAST = (Finished, Kept, Rendered, Done, MooringError)
"""After one of these, a call is over."""


@dataclass(frozen=True)
class Answers:
    """What has happened to calls since the last such message, in order."""

    mail: tuple[tuple[int, Answer], ...]


Report = Loading | Refused | Ready | Answers
