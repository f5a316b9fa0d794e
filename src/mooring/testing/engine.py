"""An engine that answers at once, to test and measure everything around an engine."""

from collections.abc import AsyncGenerator, Callable, Collection

from mooring.core.conversation import Conversation
from mooring.core.prefix import Prefix, Tokens, common_length
from mooring.core.usage import Usage
from mooring.engine.interface import (
    ChoiceFinished,
    Delta,
    Event,
    Finished,
    FinishReason,
    Generation,
    Kept,
    ModelInfo,
    Progress,
    Source,
    Started,
)
from mooring.engine.template import shape_message

_WORDS = ("At ", "once.")


class InstantEngine:
    """Implements `mooring.engine.interface.Engine` without a model: a token is a character.

    Prefixes are kept in memory as long as it lives, and every answer is the same two words.
    """

    model = ModelInfo(
        name="instant",
        context_tokens=1 << 20,
        kv_bytes_per_token=1,
        fingerprint="0" * 64,
        chat_template="",
        control_tokens={},
        random_weights=True,
    )
    failure: str | None = None

    def __init__(self) -> None:
        self._kept: dict[str, Prefix] = {}

    async def render(self, conversation: Conversation) -> Tokens:
        return (*await self.stable_prefix(conversation), 1)

    async def stable_prefix(self, conversation: Conversation) -> Tokens:
        text = "".join(
            f"\x02{message['role']}\x03{shape_message(message)['content']}"
            for message in conversation.messages
        )
        return tuple(map(ord, text))

    async def keep(self, prefix: Prefix, on_progress: Callable[[Progress], None] | None = None) -> Kept:
        new = prefix.id not in self._kept
        self._kept[prefix.id] = prefix
        return Kept(len(prefix) if new else 0)

    async def release(self, prefix_id: str) -> None:
        self._kept.pop(prefix_id, None)

    async def release_all_but(self, prefix_ids: Collection[str]) -> None:
        self._kept = {key: prefix for key, prefix in self._kept.items() if key in prefix_ids}

    async def generate(self, generation: Generation) -> AsyncGenerator[Event]:
        prefix, prompt = generation.prefix, generation.prompt
        cached = 0
        if prefix is not None and prefix.id in self._kept:
            cached = min(common_length(prompt, prefix.tokens), len(prompt) - 1)
        yield Started(cached, Source.RESIDENT if cached else Source.NONE)
        choices = generation.sampling.choices
        for choice in range(choices):
            for word in _WORDS:
                yield Delta(choice, word)
            yield ChoiceFinished(choice, FinishReason.STOP, len(_WORDS))
        yield Finished(Usage(len(prompt), cached, choices * len(_WORDS)))

    async def close(self) -> None:
        self._kept.clear()
