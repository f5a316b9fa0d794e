"""What caching costs and saves (docs/moonshot-api.md, section 6)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.core.usage import Usage
from mooring.service.billing import (
    begun_minutes,
    chat_fee,
    creation_fee,
    storage_fee,
    storage_fee_between,
)
from mooring.service.estimate import Workload, estimate
from mooring.service.pricing import NANO, PricePlan, Prices, Tariff, load_plans

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


def test_storage_across_a_change_of_prices_is_charged_by_the_minute():
    cheap = Prices(0, 0, 0, 0, 1, 0)
    dear = Prices(0, 0, 0, 0, 10, 0)
    plan = PricePlan("p", "XXX", 2, (Tariff(0, (("any", cheap),)), Tariff(1000, (("any", dear),))))
    # Minutes begin at 900, 960 (the old price still) and 1020, 1080.
    assert storage_fee_between(plan, "m", 1, 900, 1090) == 1 + 1 + 10 + 10
    assert storage_fee_between(plan, "m", 1, 900, 960) == 1
    assert storage_fee_between(plan, "m", 1, 2000, 1000) == 0


CHANGES = st.lists(st.integers(1, 5000), max_size=4, unique=True)


@given(st.integers(0, 5000), st.integers(0, 6000), CHANGES, st.integers(0, 1000))
def test_storage_is_the_sum_of_its_minutes(began, length, changes, tokens):
    """Against the slow, obvious way: minute by minute."""
    tariffs = tuple(
        Tariff(since, (("any", Prices(0, 0, 0, 0, price, 0)),))
        for price, since in enumerate([0, *sorted(changes)], start=1)
    )
    plan = PricePlan("p", "XXX", 2, tariffs)
    slowly = sum(
        plan.at(began + 60 * minute).prices("m", 1).storage_minute * tokens
        for minute in range(begun_minutes(length))
    )
    assert storage_fee_between(plan, "m", tokens, began, began + length) == slowly


@given(TOKENS, TOKENS, TOKENS)
def test_more_of_anything_never_costs_less(prompt, cached, completion):
    cached = min(cached, prompt)
    fee = chat_fee(PRICES, Usage(prompt, cached, completion), hit=False)
    assert chat_fee(PRICES, Usage(prompt + 1, cached, completion), hit=False) >= fee
    assert chat_fee(PRICES, Usage(prompt, cached, completion + 1), hit=False) > fee
    assert fee >= 0
