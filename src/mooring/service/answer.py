"""What a chat gives: a stream of events, and what is known before it begins."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

from mooring.core.miss import Miss
from mooring.engine.interface import Event, Source
from mooring.service.tool_calls import ToolCallDelta


@dataclass(frozen=True)
class CacheHit:
    """What the cache did for a chat."""

    cache_id: str
    saved_tokens: int
    expired_at: int


@dataclass(frozen=True)
class Answer:
    """A chat that has begun: its prefix is attached, its events are coming."""

    id: str
    prompt_tokens: int
    cached_tokens: int
    source: Source
    hit: CacheHit | None
    miss: Miss | None
    """Why a named cache did not apply, or not to all it holds."""
    limits: Mapping[str, str]
    """What is left of the tenant's limits, as headers."""
    events: AsyncGenerator[Event | ToolCallDelta]
    """What follows `Started`."""
    source_events: AsyncGenerator[Event]
    """Where they come from."""
    renewal: asyncio.Task[None] | None
    """The cache's new end on its way to the disk."""

    async def renewed(self) -> None:
        """Back when the end of life that `hit` tells is durable: not before may a client hear of it."""
        if self.renewal is not None:
            await asyncio.shield(self.renewal)

    async def close(self) -> None:
        """Cancel what has not ended. Closing a generator that was never begun would close no other."""
        await self.events.aclose()
        await self.source_events.aclose()
        if self.renewal is not None:
            await asyncio.gather(self.renewal, return_exceptions=True)


@dataclass(frozen=True)
class DryRun:
    """What a named cache would do for a chat."""

    prompt_tokens: int
    hit: CacheHit | None
    miss: Miss | None
