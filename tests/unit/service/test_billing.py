"""What caching costs and saves (docs/moonshot-api.md, section 6)."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.core.usage import Usage
from mooring.service.billing import (
    chat_fee,
    creation_fee,
    storage_fee,
    storage_pieces,
)
from mooring.service.estimate import Workload, estimate
from mooring.service.pricing import (
    NANO,
    PriceHistory,
    PricePlan,
    Prices,
    Tariff,
    load_plans,
    plan_from_json,
    plan_to_json,
)

TOKENS = st.integers(0, 10**7)
PLANS = load_plans({})
NOW = 1_760_000_000
PRICES = Prices(input=2, cached_input=1, output=3, creation=5, storage_minute=7, call=11)


def test_creation_is_charged_by_the_token():
    assert creation_fee(PRICES, 100) == 500


@pytest.mark.parametrize(
    ("alive_s", "minutes"),
    [(-50, 0), (0, 0), (1, 1), (59, 1), (60, 1), (61, 2), (3600, 60), (3601, 61)],
)
def test_storage_is_charged_by_begun_minutes(alive_s, minutes):
    assert storage_fee(PRICES, 100, alive_s) == 7 * 100 * minutes


def test_chat_is_charged_by_whether_a_cache_matched_its_input_and_by_its_output():
    assert chat_fee(PRICES, Usage(100, 0, 10), hit=False) == 2 * 100 + 3 * 10
    assert chat_fee(PRICES, Usage(100, 90, 10), hit=True) == 11 + 2 * 10 + 1 * 90 + 3 * 10


# Vendors' published calculations, to be reproduced


def test_the_dollar_calculation_is_reproduced():
    """Ten calls in a minute of 117,965 tokens, 99.5 % of them identical: 3.01 -> 0.81, 72.89 %."""
    plan = PLANS["dollar-2025"]
    prices = plan.at(NOW).prices("moonshot-v1-128k", 117_965 + 13_107)
    found = estimate(prices, Workload(117_965, 117_965 * 995 // 1000, 13_107, calls=10, minutes=1))
    assert plan.show(found.without) == "3.01 USD"
    assert plan.show(found.with_cache) == "0.81 USD"
    assert abs(found.saving_percent - 72.89) < 0.01


def test_the_yuan_calculation_is_reproduced():
    """40 questions in ten minutes about 64,000 tokens; 11.88 was claimed, the list gives less."""
    prices = PLANS["yuan-2024"].at(NOW).prices("moonshot-v1-128k", 64_220)
    work = Workload(64_100, 64_000, 120, calls=40, minutes=10)
    found = estimate(prices, work)
    answers = 40 * 120 * prices.output
    assert (found.without - answers) / NANO == pytest.approx(153.84, abs=1e-9)
    assert found.creation / NANO == pytest.approx(1.536)
    assert found.storage / NANO == pytest.approx(6.4)
    assert found.with_cache / NANO == pytest.approx(9.264)
    assert found.with_cache / NANO < 11.88
    assert 100 * (1 - (found.with_cache - answers) / (found.without - answers)) > 92.27


# Tariffs


def storage_prices(price):
    return (("any", Prices(0, 0, 0, 0, price, 0)),)


def plan_of(*prices, name="p", currency="XXX"):
    """A plan of storage prices, each with the second it holds from."""
    return PricePlan(
        name, currency, 2, tuple(Tariff(since, storage_prices(each)) for since, each in prices)
    )


def pieces(history, began, ended):
    found = storage_pieces(history, "m", 1, began, ended)
    return [(piece.first_minute, piece.minutes, piece.plan.name, piece.unit) for piece in found]


def test_storage_across_a_change_of_prices_is_cut_at_it():
    history = PriceHistory(((0, plan_of((0, 1), (1000, 10))),))
    # Minutes begin at 900, 960 (the old price still) and 1020, 1080.
    assert pieces(history, 900, 1090) == [(0, 2, "p", 1), (2, 2, "p", 10)]
    assert pieces(history, 900, 960) == [(0, 1, "p", 1)]


def test_storage_is_cut_at_midnight():
    history = PriceHistory(((0, plan_of((0, 1))),))
    assert pieces(history, 86_400 - 90, 86_400 + 60) == [(0, 2, "p", 1), (2, 1, "p", 1)]


@pytest.mark.parametrize("ended", [900, 901, 960, 800])
def test_the_first_minute_has_begun_with_the_life(ended):
    """Times are whole seconds: no time at all may be nearly one. A clock may have been set back."""
    history = PriceHistory(((0, plan_of((0, 1))),))
    assert pieces(history, 900, ended) == [(0, 1, "p", 1)]


def test_a_plan_holds_from_when_it_was_put_in_force_and_not_from_the_date_in_its_tariffs():
    history = PriceHistory(((0, plan_of((0, 1), name="old")), (1020, plan_of((0, 9), name="new"))))
    assert pieces(history, 900, 1140) == [(0, 2, "old", 1), (2, 2, "new", 9)]


def test_a_recorded_plan_is_read_as_it_was():
    for plan in PLANS.values():
        assert plan_from_json(json.loads(json.dumps(plan_to_json(plan)))) == plan


CHANGES = st.lists(st.integers(1, 200_000), max_size=4, unique=True)


@given(st.integers(0, 200_000), st.integers(0, 200_000), CHANGES, CHANGES)
def test_pieces_are_the_minutes_of_a_life_each_once(began, length, tariffs, plans):
    """Against the slow, obvious way: minute by minute."""
    first = (0, plan_of((0, 1), *((at, at) for at in sorted(tariffs))))
    later = (
        (since, plan_of((0, 2 + number), (since + 5000, 300_000)))
        for number, since in enumerate(sorted(plans))
    )
    history = PriceHistory((first, *later))
    slowly = [
        history.at(start).at(start).prices("m", 1).storage_minute
        for start in range(began, began + max(length, 1), 60)
    ]
    found = list(storage_pieces(history, "m", 1, began, began + length))
    assert [piece.unit for piece in found for _ in range(piece.minutes)] == slowly
    starts = [0, *itertools.accumulate(piece.minutes for piece in found)][:-1]
    assert [piece.first_minute for piece in found] == starts
    for piece in found:
        assert piece.began_at == began + 60 * piece.first_minute
        last = piece.began_at + 60 * (piece.minutes - 1)
        assert piece.began_at // 86_400 == last // 86_400


@given(TOKENS, TOKENS, TOKENS)
def test_more_of_anything_never_costs_less(prompt, cached, completion):
    cached = min(cached, prompt)
    fee = chat_fee(PRICES, Usage(prompt, cached, completion), hit=False)
    assert chat_fee(PRICES, Usage(prompt + 1, cached, completion), hit=False) >= fee
    assert chat_fee(PRICES, Usage(prompt, cached, completion + 1), hit=False) > fee
    assert fee >= 0
