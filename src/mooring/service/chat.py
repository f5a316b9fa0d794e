"""A chat, from messages to a stream of events: resolve the context, render, generate."""

import logging
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace

from mooring.core.conversation import Conversation, Message, Tool
from mooring.core.errors import MooringError, PromptTooLong
from mooring.core.prefix import Prefix
from mooring.engine.interface import (
    ChoiceFinished,
    Delta,
    Engine,
    Event,
    Finished,
    Generation,
    Progress,
    Sampling,
    Source,
    Started,
)
from mooring.service.contexts import CacheUse, Contexts
from mooring.service.keeping import make_conversation
from mooring.service.models import Models

_log = logging.getLogger("mooring.chat")


@dataclass(frozen=True)
class ChatRequest:
    """What a client asks."""

    model: str
    messages: tuple[Message, ...]
    """Without the cache message: what follows the cached messages."""
    sampling: Sampling
    """Its `max_tokens` is cut to what the prompt leaves of the context."""
    tools: tuple[Tool, ...] = ()
    cache: CacheUse | None = None


@dataclass(frozen=True)
class CacheHit:
    """What the cache did for a chat."""

    cache_id: str
    saved_tokens: int
    expired_at: int


@dataclass(frozen=True)
class Answer:
    """A chat that has begun: its prefix is attached, its events are coming."""

    prompt_tokens: int
    cached_tokens: int
    source: Source
    hit: CacheHit | None
    events: AsyncGenerator[Event]
    """What follows `Started`. Close it to cancel the chat."""


class Chat:
    """Answers chats."""

    def __init__(
        self,
        engine: Engine,
        contexts: Contexts,
        models: Models,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._contexts = contexts
        self._models = models
        self._clock = clock

    async def begin(
        self,
        tenant: str,
        request: ChatRequest,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Answer:
        """Start a chat; returns when its prefix is attached, so that the reply's headers are known.

        Raises:
            ModelNotFound, ContextNotFound, ContextExpired, ContextFailed: what was named is unusable.
            PromptTooLong: the prompt leaves no room for an answer.
            InvalidRequest: the template refuses the messages.
            Overloaded: the queue is full.
        """
        begun = time.monotonic()
        self._models.check(request.model)
        opened = None
        if request.cache is not None:
            opened = await self._contexts.open(tenant, request.cache)
            conversation = opened.conversation.followed_by(request.messages)
        else:
            conversation = make_conversation(request.messages, request.tools, self._clock())
        generation = await self._generation(
            conversation, opened.prefix if opened else None, request.sampling
        )
        events = self._engine.generate(generation)
        try:
            started = await _started(events, on_progress)
            hit = None
            if opened is not None:
                end = opened.cache.expired_at
                if request.cache is not None and request.cache.reset_ttl_s is not None:
                    end = await self._contexts.extend(opened.cache, request.cache.reset_ttl_s)
                if started.cached_tokens:
                    hit = CacheHit(opened.cache.id, started.cached_tokens, end)
        except BaseException:
            await events.aclose()
            raise
        line = (
            f"tenant={tenant} model={request.model} cache={request.cache and request.cache.cache_id}"
            f" prompt_tokens={len(generation.prompt)} cached_tokens={started.cached_tokens}"
            f" source={started.source}"
        )
        logged = _logged(events, line, begun)
        return Answer(len(generation.prompt), started.cached_tokens, started.source, hit, logged)

    async def _generation(
        self, conversation: Conversation, prefix: Prefix | None, sampling: Sampling
    ) -> Generation:
        """Render, and fit the answer into what the prompt leaves of the context."""
        prompt = await self._engine.render(conversation)
        room = self._engine.model.context_tokens - len(prompt)
        if room < 1:
            raise PromptTooLong(
                f"messages: the prompt has {len(prompt)} tokens, the model's context holds"
                f" {self._engine.model.context_tokens}, answer included: shorten the messages",
                param="messages",
            )
        fitting = replace(sampling, max_tokens=min(sampling.max_tokens, room))
        return Generation(prompt, prefix, fitting)


async def _logged(events: AsyncGenerator[Event], line: str, begun: float) -> AsyncGenerator[Event]:
    """The same events; one log line when they end, whichever way."""
    outcome, ttft_s, completion_tokens = "cancelled", 0.0, 0
    try:
        async for event in events:
            match event:
                case Delta() | ChoiceFinished() if not ttft_s:
                    ttft_s = time.monotonic() - begun
                case Finished(usage):
                    outcome, completion_tokens = "done", usage.completion_tokens
            yield event
    except MooringError:
        outcome = "failed"
        raise
    finally:
        await events.aclose()
        _log.info(
            "chat %s %s completion_tokens=%d ttft_s=%.3f seconds=%.3f",
            outcome,
            line,
            completion_tokens,
            ttft_s,
            time.monotonic() - begun,
        )


async def _started(
    events: AsyncGenerator[Event], on_progress: Callable[[Progress], None] | None
) -> Started:
    async for event in events:
        if isinstance(event, Started):
            return event
        assert isinstance(event, Progress), "nothing else comes before the start"
        if on_progress is not None:
            on_progress(event)
    raise AssertionError("an engine's stream starts, or raises")
