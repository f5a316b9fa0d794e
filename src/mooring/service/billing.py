"""What caching costs and saves. Pure arithmetic on nano-units (docs/moonshot-api.md, section 6)."""

from collections.abc import Iterator
from dataclasses import dataclass

from mooring.core.usage import Usage
from mooring.service.pricing import PriceHistory, PricePlan, Prices

_DAY_S = 86_400


@dataclass(frozen=True)
class StoragePiece:
    """Minutes of a cache's life that are of one day and one price."""

    first_minute: int
    """Counted from the life's beginning."""
    minutes: int
    began_at: int
    """Unix seconds."""
    plan: PricePlan
    unit: int
    """Nano-units a token and minute."""


def creation_fee(prices: Prices, tokens: int) -> int:
    """Once for each cache, by the tokens it holds."""
    return prices.creation * tokens


def storage_fee(prices: Prices, tokens: int, alive_s: int) -> int:
    """For the time a cache lived under one tariff; a begun minute counts whole."""
    return prices.storage_minute * tokens * begun_minutes(alive_s)


def storage_pieces(
    history: PriceHistory, model: str, tokens: int, began: int, ended: int
) -> Iterator[StoragePiece]:
    """A cache's life, in Unix seconds, cut where a day (UTC) or another price begins.

    Minutes count from the life's beginning, and each belongs to the day and the price in force when it
    begins. The first one has begun with the life, however short it was.
    """
    first, minutes = 0, max(1, begun_minutes(ended - began))
    while first < minutes:
        start = began + 60 * first
        plan = history.at(start)
        cut = min(history.next_change(start), (start // _DAY_S + 1) * _DAY_S)
        until = min(minutes, begun_minutes(cut - began))
        unit = plan.at(start).prices(model, tokens).storage_minute
        yield StoragePiece(first, until - first, start, plan, unit)
        first = until


def chat_fee(prices: Prices, usage: Usage, *, hit: bool) -> int:
    """For one chat: the call fee on a hit, input by whether a cache matched it, and the output."""
    call = prices.call if hit else 0
    new = usage.prompt_tokens - usage.cached_tokens
    return (
        call
        + prices.input * new
        + prices.cached_input * usage.cached_tokens
        + prices.output * usage.completion_tokens
    )


def begun_minutes(seconds: int) -> int:
    """0 for no time at all, and for a clock that ran backwards."""
    return max(0, -(-seconds // 60))
