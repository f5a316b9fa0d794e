"""What any engine offers: prompts to tokens, prefixes kept, generations as streams of events.

The shape is messages: submit, events, cancel. So an engine may live in a thread, a child process or
on another machine. Nothing here knows tiers, SQL or HTTP.
"""

from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from mooring.core.conversation import Conversation
from mooring.core.prefix import Prefix, Tokens
from mooring.core.usage import Usage


@dataclass(frozen=True)
class ModelInfo:
    """The loaded model, as far as the layers above need it."""

    name: str
    context_tokens: int
    """The most tokens one request may hold, prompt and answer together."""
    kv_bytes_per_token: int
    fingerprint: str
    """Equal exactly when stored KV bytes are interchangeable."""
    random_weights: bool
    """The model says of itself that its answers mean nothing."""
    chat_template: str
    """Its source: what the model was taught to write is to be seen in it."""
    control_tokens: Mapping[str, int]
    """The vocabulary's control tokens by their texts."""


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn, in OpenAI's terms."""

    max_tokens: int
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    """None draws a fresh seed; choice `i` uses `seed + i`."""
    stop: tuple[str, ...] = ()
    choices: int = 1
    top_logprobs: int | None = None
    """None reports no log probabilities; 0 those of the drawn tokens only."""


@dataclass(frozen=True)
class Grammar:
    """What every answer must match."""

    text: str
    """In llguidance's notation: Lark with its extensions, or its JSON form."""
    param: str
    """The field of the request that it was made from, for errors."""


@dataclass(frozen=True)
class Generation:
    """One request for answers."""

    prompt: Tokens
    prefix: Prefix | None
    """A kept one; the engine uses the tokens it really shares with the prompt."""
    sampling: Sampling
    grammar: Grammar | None = None
    marks: frozenset[str] = frozenset()
    """Control tokens that show in the answer's text, by their texts; all others never do."""
    scope: str | None = None
    """The tenant, whose earlier prompts and answers may be reused, as this one may be later; None: only
    the prefix is reused, and nothing kept."""


class Source(StrEnum):
    """Where reused tokens came from; of a whole request, where most of them did."""

    NONE = "none"
    """Nothing was reused."""
    RESIDENT = "resident"
    """In the KV buffer already."""
    RAM = "ram"
    DISK = "disk"
    SHARED = "shared"
    """Some of it was loaded from the tier that several workers share."""
    COMPUTED = "computed"
    """It was computed while the request waited for it."""


@dataclass(frozen=True)
class Progress:
    """Prompt tokens evaluated so far, of those that have to be."""

    evaluated_tokens: int
    total_tokens: int


@dataclass(frozen=True)
class Started:
    """What could be reused is attached; what remains of the prompt is about to be evaluated."""

    cached_tokens: int
    source: Source


@dataclass(frozen=True)
class TokenLogprob:
    """One candidate at one position; `data` is the token's bytes."""

    token: int
    data: bytes
    logprob: float


@dataclass(frozen=True)
class SampledToken:
    """One drawn token with its log probability and the best alternatives, best first."""

    drawn: TokenLogprob
    top: tuple[TokenLogprob, ...]


@dataclass(frozen=True)
class Delta:
    """New text of one choice: whole UTF-8 characters, never part of a stop string; may be empty."""

    choice: int
    text: str
    logprobs: tuple[SampledToken, ...] = ()


class FinishReason(StrEnum):
    STOP = "stop"
    """The model ended its turn, or a stop string appeared."""
    LENGTH = "length"
    """`max_tokens` were drawn."""
    TOOL_CALLS = "tool_calls"
    """The answer calls tools. No engine says this: it is read from the text."""


@dataclass(frozen=True)
class ChoiceFinished:
    """One choice is complete."""

    choice: int
    reason: FinishReason
    completion_tokens: int


@dataclass(frozen=True)
class Finished:
    """All choices are complete; the last event."""

    usage: Usage


Event = Progress | Started | Delta | ChoiceFinished | Finished


@dataclass(frozen=True)
class Kept:
    """A prefix is durable."""

    evaluated_tokens: int
    """Those that were not to be had from the buffer or the store."""


OnProgress = Callable[[str, float], None]
"""Called with what is being done to start and the share of it that is done, 0.0 to 1.0."""


class Engine(Protocol):
    """Serves one model."""

    @property
    def model(self) -> ModelInfo: ...

    @property
    def failure(self) -> str | None:
        """Why the engine can serve no more, or None while it can."""

    async def render(self, conversation: Conversation) -> Tokens:
        """The whole prompt, ready for an answer.

        Raises:
            InvalidRequest: the chat template refuses these messages.
            PromptTooLong: so long that it was not even tokenised.
        """

    async def stable_prefix(self, conversation: Conversation) -> Tokens:
        """The tokens that any prompt continuing this conversation starts with.

        Raises:
            InvalidRequest: the chat template refuses these messages.
            PromptTooLong: so long that it was not even tokenised.
        """

    async def keep(self, prefix: Prefix, on_progress: Callable[[Progress], None] | None = None) -> Kept:
        """Compute a prefix if it must be and make it durable; equal prefixes are computed once.

        Raises:
            PromptTooLong: it can never fit into the buffer.
            StorageFull: there is no room to keep it.
            EngineFailed: the native library failed.
        """

    async def release(self, prefix_id: str) -> None:
        """Forget a prefix in all tiers. Generations that use it go on undisturbed.

        Raises:
            EngineUnavailable: nobody could be told; its bytes are still there.
        """

    async def release_all_but(self, prefix_ids: Collection[str]) -> None:
        """Forget whatever is kept and not named here. Only for who keeps all there is: `SharedStore`."""

    def generate(self, generation: Generation) -> AsyncGenerator[Event]:
        """Answer a prompt. Closing the generator cancels the work.

        Raises:
            InvalidRequest: the grammar is wrong, or too complex to be followed.
            PromptTooLong: it can never fit.
            Overloaded: the queue is full.
            EngineFailed: the native library failed.
        """

    async def close(self) -> None:
        """Stop; whatever runs fails with EngineFailed."""


@runtime_checkable
class SharedStore(Protocol):
    """An engine in whose store other servers keep prefixes, too."""

    async def kept(self) -> set[str]:
        """The ids of all that is kept there now, whoever keeps it."""
