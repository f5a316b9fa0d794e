"""How a chat names a cache, and whether the cache applies to it. Pure."""

from dataclasses import dataclass

from mooring.core.context import CacheObject, Status
from mooring.core.conversation import Message, Tool
from mooring.core.errors import ContextExpired, ContextFailed
from mooring.core.miss import Miss, MissReason


@dataclass(frozen=True)
class CacheUse:
    """One of `cache_id` and `tag`, and what is to be done with it."""

    cache_id: str | None = None
    tag: str | None = None
    reset_ttl_s: int | None = None
    """On success the cache ends this long from then; an expired one is revived."""
    dry_run: bool = False
    """Only say whether it would apply."""
    repeated: bool = False
    """Header form: the request repeats the cached messages and tools, to be compared.

    A difference is a miss, served uncached. In message form the cache stands for them.
    """


def find_miss(
    cache: CacheObject,
    use: CacheUse,
    *,
    messages: tuple[Message, ...],
    tools: tuple[Tool, ...],
    served: list[str],
) -> Miss | None:
    """Why a request in header form cannot use the cache; None when it can.

    `served` are the model names that are served here.
    """
    if cache.status is Status.INACTIVE and use.reset_ttl_s is None:
        return Miss(MissReason.EXPIRED)
    if cache.model not in served:
        return Miss(MissReason.MODEL_CHANGED)
    if tools != cache.tools:
        return Miss(MissReason.TOOLS_CHANGED)
    for index, cached in enumerate(cache.messages):
        if index >= len(messages) or messages[index] != cached:
            return Miss(MissReason.MESSAGES_CHANGED, index)
    return None


def expired(cache: CacheObject) -> ContextExpired:
    """The error for a chat that names a cache past its end, and does not revive it."""
    return ContextExpired(
        f"the cache {cache.id} expired at {cache.expired_at}: add ;reset_ttl=<seconds> to the cache"
        " message to revive it, or create it anew",
        param="messages",
    )


def failed(cache: CacheObject) -> ContextFailed:
    """The error for a chat that names a cache that could not be made."""
    assert cache.failure is not None
    return ContextFailed(
        f"the cache {cache.id} could not be made: {cache.failure.message};"
        " delete it and create it again",
        param="messages",
    )
