"""The cache object: a client's named handle on a prefix, with an owner and an expiry."""

import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from mooring.core.conversation import Message, Tool

_ID_ALPHABET = string.ascii_lowercase + string.digits


class Status(StrEnum):
    """Where a cache is in its life (docs/moonshot-api.md, section 1)."""

    PENDING = "pending"
    """Accepted; its prefix is being computed or is not durable yet."""
    READY = "ready"
    """The prefix is computed and durable."""
    ERROR = "error"
    """The prefix could not be computed or kept; `failure` says why."""
    INACTIVE = "inactive"
    """Its time is over; the messages are kept, so that a new lifetime revives it."""


@dataclass(frozen=True)
class Failure:
    """Why a cache is in status `error`."""

    type: str
    message: str


@dataclass(frozen=True)
class CacheObject:
    """One named context. Times are Unix seconds."""

    id: str
    tenant: str
    model: str
    """As the client named it: a family or an alias."""
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]
    name: str
    description: str
    metadata: Mapping[str, str] | None
    created_at: int
    expired_at: int
    status: Status
    tokens: int
    """Prompt tokens held: the length of the stable prefix."""
    prefix_id: str
    """`Prefix.id` of what is kept; equal content has equal ids and is stored once."""
    failure: Failure | None = None


@dataclass(frozen=True)
class NewCache:
    """What a client asks to be kept."""

    model: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    name: str = ""
    description: str = ""
    metadata: dict[str, str] | None = None
    ttl_s: int | None = None
    expired_at: int | None = None
    tags: tuple[str, ...] = ()
    """Names to be bound to it."""


@dataclass(frozen=True)
class Tag:
    """A tenant's stable name for a cache; bound to another one, it takes its users along."""

    tenant: str
    name: str
    cache_id: str
    created_at: int
    """Unix seconds; of the name, not of its latest binding."""


@dataclass(frozen=True)
class Page:
    """Which part of a list: at most `limit` entries strictly between two, in creation order."""

    limit: int
    newest_first: bool = True
    after: str | None = None
    """The id (or tag) that the page follows, in the page's own order."""
    before: str | None = None
    """The id (or tag) that the page precedes."""
    metadata: tuple[tuple[str, str], ...] = ()
    """Keys and values that a cache must all have."""


def new_cache_id() -> str:
    """`cache-` and 20 random lower-case letters and digits (docs/moonshot-api.md, section 1)."""
    return "cache-" + "".join(secrets.choice(_ID_ALPHABET) for _ in range(20))
