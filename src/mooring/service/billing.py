"""What caching costs and saves under a price plan. Pure arithmetic on integers.

Money is counted in nano-units: 10**-9 of the plan's currency. Prices are published per million
tokens, so a price of 1.00 is 1,000 nano-units a token. The formulas are docs/moonshot-api.md, section 6.
"""

from dataclasses import dataclass
from decimal import Decimal

NANO = 10**9
_PER_MILLION = 1_000_000


@dataclass(frozen=True)
class PricePlan:
    """Prices of one model, in nano-units a token (storage: a token and begun minute)."""

    name: str
    currency: str
    input: int
    output: int
    creation: int
    storage_minute: int
    call: int
    """Nano-units for each request that used a cache."""


def _per_million(price: str) -> int:
    return int(Decimal(price) * NANO / _PER_MILLION)


YUAN_8K = PricePlan(
    name="the yuan prices Moonshot published in July 2024 for its 8k model",
    currency="CNY",
    input=_per_million("12"),
    output=_per_million("12"),
    creation=_per_million("24"),
    storage_minute=_per_million("10"),
    call=int(Decimal("0.02") * NANO),
)


def creation_fee(plan: PricePlan, tokens: int) -> int:
    """Once for each cache, by the tokens it holds."""
    return plan.creation * tokens


def storage_fee(plan: PricePlan, tokens: int, alive_s: int) -> int:
    """For the time a cache lived; a begun minute counts whole."""
    return plan.storage_minute * tokens * -(-alive_s // 60)


def chat_fee(plan: PricePlan, *, prompt: int, cached: int, completion: int, hit: bool) -> int:
    """For one chat: the call fee on a hit, the input that no cache matched, and the output."""
    call = plan.call if hit else 0
    return call + plan.input * (prompt - cached) + plan.output * completion
