"""A chat, from messages to a stream of events: resolve the context, render, generate."""

import logging
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace

from mooring.core.conversation import Conversation, Message, Tool
from mooring.core.errors import ContextMissed, InvalidRequest, PromptTooLong
from mooring.core.miss import Miss, MissReason
from mooring.core.prefix import Prefix, Tokens, common_length
from mooring.engine.interface import (
    Engine,
    Event,
    Generation,
    Progress,
    Sampling,
    Source,
    Started,
)
from mooring.service.answer import Answer, CacheHit, DryRun
from mooring.service.answer_format import FREE, AnswerFormat
from mooring.service.charging import Charging, new_request_id
from mooring.service.contexts import Contexts, OpenContext
from mooring.service.keeping import make_conversation
from mooring.service.limiting import Limiter, Slot
from mooring.service.metering import Metered, charged, logged
from mooring.service.models import Models
from mooring.service.rules import check_partial, is_continued
from mooring.service.tool_calls import (
    Reader,
    ToolCallDelta,
    find_format,
    marks_of,
    read_tool_calls,
)
from mooring.service.use import CacheUse, find_miss

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
    answer_format: AnswerFormat = FREE
    cache: CacheUse | None = None
    strict: bool = False
    """A named cache that does not apply is an error, not a slower answer."""


class Chat:
    """Answers chats."""

    def __init__(
        self,
        engine: Engine,
        contexts: Contexts,
        models: Models,
        charging: Charging,
        limiter: Limiter,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._contexts = contexts
        self._models = models
        self._charging = charging
        self._limiter = limiter
        self._clock = clock
        self._tool_format = find_format(engine.model.chat_template)

    async def begin(
        self,
        tenant: str,
        request: ChatRequest,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Answer:
        """Start a chat; returns when its prefix is attached, so that the reply's headers are known.

        Raises:
            ModelNotFound, ContextNotFound, ContextExpired, ContextFailed: what was named is unusable.
            ContextMissed: the cache does not apply and the request is strict.
            PromptTooLong: the prompt leaves no room for an answer.
            InvalidRequest: the template refuses the messages.
            Overloaded: the queue is full.
            QuotaExceeded: the tenant's prepaid balance is used up.
            RateLimited: the tenant asks too much at once, or in a while.
        """
        self._models.check(request.model)
        await self._charging.admit(tenant)
        slot = await self._limiter.enter(tenant)
        try:
            return await self._begin(tenant, request, slot, on_progress)
        except BaseException:
            slot.leave()
            raise

    async def _begin(
        self,
        tenant: str,
        request: ChatRequest,
        slot: Slot,
        on_progress: Callable[[Progress], None] | None,
    ) -> Answer:
        opened, conversation, miss = await self._open(tenant, request)
        prefix = None if opened is None else opened.prefix
        generation = await self._generation(tenant, conversation, prefix, request)
        miss = miss or _moved(generation.prompt, prefix)
        if miss is not None and request.strict:
            raise ContextMissed(miss)
        prompt_tokens = len(generation.prompt)
        await self._limiter.prompt(slot, prompt_tokens)
        metered = Metered(
            new_request_id(),
            tenant,
            request.model,
            prompt_tokens,
            None if opened is None else opened.cache.id,
            None if request.cache is None else request.cache.tag,
        )
        events = logged(self._engine.generate(generation), metered)
        events = charged(events, metered, self._charging, self._limiter, slot)
        hit = renewal = None
        try:
            started = await _started(events, on_progress)
            if opened is not None:
                if started.source is Source.COMPUTED:
                    self._contexts.came_again(opened.cache)
                if request.cache is not None and request.cache.reset_ttl_s is not None:
                    renewal = self._contexts.extend(opened.cache, request.cache.reset_ttl_s)
                if started.cached_tokens:
                    end = opened.cache.expired_at if renewal is None else renewal.end
                    # More may have been reused; what the cache saved is what it holds, at most.
                    saved = min(started.cached_tokens, len(opened.prefix))
                    hit = CacheHit(opened.cache.id, saved, end)
        except BaseException:
            await events.aclose()
            raise
        return Answer(
            id=metered.request_id,
            prompt_tokens=prompt_tokens,
            cached_tokens=started.cached_tokens,
            source=started.source,
            hit=hit,
            miss=miss,
            limits=slot.headers,
            events=self._read_calls(events, conversation, request),
            source_events=events,
            renewal=None if renewal is None else renewal.durable,
        )

    def _read_calls(
        self, events: AsyncGenerator[Event], conversation: Conversation, request: ChatRequest
    ) -> AsyncGenerator[Event | ToolCallDelta]:
        if not request.answer_format.may_call(conversation.tools):
            return events
        names = [tool["function"]["name"] for tool in conversation.tools]
        return read_tool_calls(events, lambda: Reader(self._tool_format, names))

    async def count(self, tenant: str, request: ChatRequest) -> int:
        """The prompt tokens that this chat would have. Raises as `begin` does."""
        self._models.check(request.model)
        _, conversation, _ = await self._open(tenant, request, wait=False)
        return len(await self._engine.render(conversation))

    async def _open(
        self, tenant: str, request: ChatRequest, *, wait: bool = True
    ) -> tuple[OpenContext | None, Conversation, Miss | None]:
        """The cache that applies, the whole conversation, and why a named cache does not apply."""
        check_partial(request.messages)
        plain = make_conversation(request.messages, request.tools, self._clock())
        if request.cache is None:
            return None, plain, None
        open_ = self._contexts.open if wait else self._contexts.preview
        after = request.messages
        if request.cache.repeated:
            cache = await self._contexts.named(tenant, request.cache)
            miss = find_miss(
                cache,
                request.cache,
                messages=request.messages,
                tools=request.tools,
                served=self._models.names,
            )
            if miss is not None:
                return None, plain, miss
            after = request.messages[len(cache.messages) :]
        opened = await open_(tenant, request.cache)
        return opened, opened.conversation.followed_by(after), None

    async def dry_run(self, tenant: str, request: ChatRequest) -> DryRun:
        """Say whether the cache would apply; nothing is computed, waited for or changed.

        Raises as `begin` does.
        """
        self._models.check(request.model)
        opened, conversation, miss = await self._open(tenant, request, wait=False)
        prompt = await self._engine.render(conversation)
        prefix = None if opened is None else opened.prefix
        miss = miss or _moved(prompt, prefix)
        if miss is not None and request.strict:
            raise ContextMissed(miss)
        hit = None
        if opened is not None and prefix is not None:
            shared = common_length(prompt, prefix.tokens)
            hit = CacheHit(opened.cache.id, shared, opened.cache.expired_at)
        return DryRun(len(prompt), hit, miss)

    async def _generation(
        self, tenant: str, conversation: Conversation, prefix: Prefix | None, request: ChatRequest
    ) -> Generation:
        """Render, and fit the answer into what the prompt leaves of the context."""
        grammar = request.answer_format.grammar(
            conversation.tools, self._tool_format, self._engine.model
        )
        calls = request.answer_format.may_call(conversation.tools)
        field = request.answer_format.binding_field
        if field is not None and is_continued(request.messages):
            raise InvalidRequest(
                f"{field}: an answer that goes on from a partial message cannot be held to it",
                param=field,
            )
        prompt = await self._engine.render(conversation)
        room = self._engine.model.context_tokens - len(prompt)
        if room < 1:
            raise PromptTooLong(
                f"messages: the prompt has {len(prompt)} tokens, the model's context holds"
                f" {self._engine.model.context_tokens}, answer included: shorten the messages",
                param="messages",
            )
        sampling = request.sampling
        fitting = replace(sampling, max_tokens=min(sampling.max_tokens, room))
        marks = marks_of(self._tool_format) if calls else frozenset()
        return Generation(prompt, prefix, fitting, grammar, marks, tenant)


def _moved(prompt: Tokens, prefix: Prefix | None) -> Miss | None:
    """Whether the template renders the cached messages differently before these follow-ups."""
    if prefix is None or common_length(prompt, prefix.tokens) == len(prefix):
        return None
    return Miss(MissReason.TEMPLATE_MOVED_PREFIX)


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
