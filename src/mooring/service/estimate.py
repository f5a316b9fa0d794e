"""What a workload would cost without caching and with it: the vendor's calculator. Pure."""

from dataclasses import dataclass

from mooring.core.usage import Usage
from mooring.service.billing import chat_fee, creation_fee, storage_fee
from mooring.service.pricing import Prices


@dataclass(frozen=True)
class Workload:
    """Requests that begin with the same tokens."""

    input_tokens: int
    """Of each request's prompt."""
    identical_tokens: int
    """How many of them are the same in every request: what the cache would hold."""
    output_tokens: int
    """Of each request's answer."""
    calls: int
    minutes: int
    """How long the cache is kept."""


@dataclass(frozen=True)
class Estimate:
    """Nano-units."""

    without: int
    creation: int
    storage: int
    calls: int
    """All requests with the cache, their call fees included."""

    @property
    def with_cache(self) -> int:
        return self.creation + self.storage + self.calls

    @property
    def saving_percent(self) -> float:
        """Below 0 when caching costs more; 0 when nothing costs anything."""
        return 100 * (1 - self.with_cache / self.without) if self.without else 0.0


def estimate(prices: Prices, work: Workload) -> Estimate:
    plain = Usage(work.input_tokens, 0, work.output_tokens)
    cached = Usage(work.input_tokens, work.identical_tokens, work.output_tokens)
    return Estimate(
        without=work.calls * chat_fee(prices, plain, hit=False),
        creation=creation_fee(prices, work.identical_tokens),
        storage=storage_fee(prices, work.identical_tokens, 60 * work.minutes),
        calls=work.calls * chat_fee(prices, cached, hit=work.identical_tokens > 0),
    )
