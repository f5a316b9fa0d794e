"""How much a tenant may use. None sets no bound."""

from collections.abc import Mapping
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Limits:
    """Of one tenant, or of all that have none of their own."""

    concurrent_requests: int | None = None
    """Chats at once."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Prompt and answer together."""
    tokens_per_day: int | None = None
    cached_tokens: int | None = None
    """Held by caches that are pending or ready, together."""
    cached_bytes: int | None = None
    """The same in bytes of KV state."""
    context_tokens: int | None = None
    """Of one prompt, and of one cache."""

    def overridden(self, own: Mapping[str, int]) -> "Limits":
        """These, but for what a tenant has of its own; 0 there means no bound."""
        ours = {field.name: getattr(self, field.name) for field in fields(self)}
        return Limits(**ours | {name: value or None for name, value in own.items()})


LIMIT_NAMES = tuple(field.name for field in fields(Limits))
