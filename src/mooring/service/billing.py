"""What caching costs and saves. Pure arithmetic on nano-units (docs/moonshot-api.md, section 6)."""

from mooring.core.usage import Usage
from mooring.service.pricing import PricePlan, Prices


def creation_fee(prices: Prices, tokens: int) -> int:
    """Once for each cache, by the tokens it holds."""
    return prices.creation * tokens


def storage_fee(prices: Prices, tokens: int, alive_s: int) -> int:
    """For the time a cache lived under one tariff; a begun minute counts whole."""
    return prices.storage_minute * tokens * begun_minutes(alive_s)


def storage_fee_between(plan: PricePlan, model: str, tokens: int, began: int, ended: int) -> int:
    """For a cache's life, in Unix seconds, under whatever tariffs were in force in it.

    Minutes count from the life's beginning; each is charged by the tariff in force when it begins.
    """
    fee, minutes = 0, begun_minutes(ended - began)
    done = 0
    while done < minutes:
        start = began + 60 * done
        tariff = plan.at(start)
        later = [other.since for other in plan.tariffs if other.since > start]
        until = minutes if not later else min(minutes, begun_minutes(min(later) - began))
        fee += tariff.prices(model, tokens).storage_minute * tokens * (until - done)
        done = until
    return fee


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
