"""Answers: chooses a worker, follows its stream, and goes to another one while nothing has been said."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from mooring.config import Config
from mooring.core.errors import EngineFailed, EngineLost, InvalidRequest, Overloaded
from mooring.core.prefix import Prefix
from mooring.engine.interface import Event, Generation, Source, Started
from mooring.engine.vllm.answer import Answer
from mooring.engine.vllm.ask import Ask, make_ask
from mooring.engine.vllm.cluster import Cluster
from mooring.engine.vllm.completions import generation_body, use_message
from mooring.engine.vllm.holdings import CHUNK_TOKENS
from mooring.engine.vllm.keeping import Keeping
from mooring.engine.vllm.member import Member
from mooring.engine.vllm.vocabulary import Vocabulary
from mooring.engine.vllm.worker import GenerationFailed, WorkerLost
from mooring.telemetry import ClusterMetrics

_MOST_ENDS = 2
"""A request that was in two workers when they ended may be what ended them."""


class Generating:
    """All running answers."""

    def __init__(
        self,
        cluster: Cluster,
        keeping: Keeping,
        vocabulary: Vocabulary,
        config: Config,
        metrics: ClusterMetrics,
    ) -> None:
        self._cluster = cluster
        self._keeping = keeping
        self._vocabulary = vocabulary
        self._metrics = metrics
        self._automatic = config.engine.automatic_reuse
        self._max_queued = config.engine.max_queued
        self._lease_s = config.vllm.pin_lease_s
        self._queued = 0

    async def events(self, generation: Generation) -> AsyncGenerator[Event]:
        """As `Engine.generate`."""
        identity = self._cluster.identity
        ask = make_ask(
            generation,
            context_tokens=identity.context_tokens,
            block_tokens=identity.block_tokens,
            automatic=self._automatic,
        )
        if self._queued >= self._max_queued:
            raise Overloaded(f"{self._queued} requests wait for a worker already; try again later")
        started = begun = False
        lost: set[Member] = set()
        while True:
            member, held = self._cluster.choose(ask.salt, generation.prompt, ask.used, avoid=lost)
            try:
                async with aclosing(self._answer(member, held, ask)) as events:
                    async for event in events:
                        if isinstance(event, Started):
                            if started:  # by a worker that then went away
                                continue
                            started = True
                        else:
                            begun = True
                        yield event
                return
            except WorkerLost as error:
                self._cluster.suspect(member, error)
                lost.add(member)
                if begun or len(lost) == _MOST_ENDS:
                    raise _lost(error, len(lost)) from error
                self._metrics.retries.inc()
            except GenerationFailed as error:
                if started or ask.used is None or ask.recomputed_tokens is not None:
                    raise EngineFailed(f"{member.name} could not answer: {error}") from error
                await self._bring_back(ask, ask.used)

    async def _bring_back(self, ask: Ask, prefix: Prefix) -> None:
        """The workers have lost a kept prefix: compute it again, once, for whoever waits for it."""
        kept = await self._keeping.keep(prefix, again=True)
        ask.recomputed_tokens = kept.evaluated_tokens

    async def _answer(self, member: Member, held: int, ask: Ask) -> AsyncGenerator[Event]:
        """One worker's answer. Raises WorkerLost and GenerationFailed, too."""
        to_compute = max(0, len(ask.generation.prompt) - held)
        with member.loaded(to_compute) as load:
            self._queue(+1)
            try:
                async with member.watched(), aclosing(self._events(member, held, ask)) as events:
                    async for event in events:
                        if not load.started:
                            load.started = True
                            self._queue(-1)
                            self._metrics.running_requests.inc()
                        yield event
            finally:
                if load.started:
                    self._metrics.running_requests.dec()
                else:
                    self._queue(-1)

    async def _events(self, member: Member, held: int, ask: Ask) -> AsyncGenerator[Event]:
        answer = Answer(ask.generation, self._vocabulary)
        async with aclosing(self._chunks(member, ask)) as chunks:
            async for chunk in chunks:
                if "mooring" in chunk:  # announcement.py
                    answer.cached_tokens = ask.cached(chunk["mooring"]["cached_tokens"])
                    yield self._started(member, held, ask, answer.cached_tokens)
                    continue
                drawn = answer.drawn
                events = list(answer.push(chunk))
                self._metrics.generated_tokens.inc(answer.drawn - drawn)
                for event in events:
                    yield event
                if answer.complete and not answer.ended:
                    break  # the worker goes on behind a stop string that it has not seen
        if not answer.complete:
            raise WorkerLost(f"{member.name} ended an answer in the middle")
        yield answer.finished()

    async def _chunks(self, member: Member, ask: Ask) -> AsyncGenerator[dict[str, Any]]:
        identity, use = self._cluster.identity, None
        if ask.used is not None and len(ask.used) >= identity.block_tokens:
            use = use_message(ask.used, self._lease_s)
        grammar = ask.generation.grammar
        body = generation_body(identity.model, ask.generation, ask.salt, use)
        try:
            async with aclosing(member.stream(body)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except InvalidRequest as error:
            if grammar is None:
                raise
            problem = error.message.removeprefix("Grammar error: ").strip().partition("\n")[0]
            raise InvalidRequest(
                f"{grammar.param}: no answer can be held to it: {problem}", param=grammar.param
            ) from error

    def _started(self, member: Member, held: int, ask: Ask, cached: int) -> Started:
        """Count what was reused, and remember where it is now."""
        prompt = ask.generation.prompt
        if ask.shared:
            self._cluster.holdings.record(member.name, ask.salt, prompt)
        if ask.used is not None:
            self._keeping.used(member, ask.used)
        source = Source.RESIDENT
        if ask.recomputed_tokens is not None:
            source = Source.COMPUTED
        elif not cached:
            source = Source.NONE
        elif ask.used is not None and held + CHUNK_TOKENS <= cached:
            source = Source.SHARED
        self._metrics.evaluated_tokens.labels("request").inc(
            len(prompt) - cached - (ask.recomputed_tokens or 0)
        )
        self._metrics.cached_tokens.labels(source.value).inc(cached)
        return Started(cached, source)

    def _queue(self, change: int) -> None:
        self._queued += change
        self._metrics.queued_requests.set(self._queued)


def _lost(error: WorkerLost, ends: int) -> EngineFailed:
    if ends == _MOST_ENDS:
        return EngineLost(f"{error}; it is the second worker that goes under this request")
    return EngineLost(f"{error}, while it answered: send the request again")
