"""What is written into the ledger. Amounts are nano-units of the currency, times are Unix seconds."""

from dataclasses import dataclass
from enum import StrEnum


class ChargeKind(StrEnum):
    """What a line of the ledger is for."""

    CREATION = "creation"
    """A cache was made: once, by the tokens it holds."""
    STORAGE = "storage"
    """A cache was kept: tokens times begun minutes."""
    CALL = "call"
    """A request used a cache."""
    INPUT = "input"
    """Prompt tokens that no cache matched."""
    CACHED_INPUT = "cached_input"
    """Prompt tokens that a cache matched."""
    OUTPUT = "output"
    TOP_UP = "top_up"
    """Money that came in; its amount is below 0."""


class Grouping(StrEnum):
    """What usage is added up by."""

    DAY = "day"
    """UTC."""
    MODEL = "model"
    CACHE = "cache"
    TAG = "tag"


@dataclass(frozen=True)
class Charge:
    """One line: `amount` is `quantity` times `unit`."""

    key: str
    """Unique for what it pays: the same thing is never charged twice."""
    tenant: str
    kind: ChargeKind
    quantity: int
    """Tokens; token-minutes for storage; 1 for a call."""
    unit: int
    amount: int
    plain: int
    """What the same would have cost without any caching."""
    currency: str
    plan: str
    model: str
    created_at: int
    """When what it is for began; storage is cut into lines at midnight (UTC)."""
    cache_id: str | None = None
    tag: str | None = None
    request_id: str | None = None


@dataclass(frozen=True)
class Life:
    """A time in which a cache was kept. A revived cache begins a new one."""

    serial: int
    cache_id: str
    tenant: str
    model: str
    tokens: int
    began_at: int
    until: int
    """The cache's `expired_at`: the life ends then at the latest."""

    def end(self, now: float) -> int:
        """When it ends if it is ended now; a clock that was set back ends it where it began."""
        return max(self.began_at, min(int(now), self.until))
