"""What caching costs and saves (docs/moonshot-api.md, section 6)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.service.billing import NANO, YUAN_8K, PricePlan, chat_fee, creation_fee, storage_fee

TOKENS = st.integers(0, 10**7)


def make_plan(*, input=2, output=3, creation=5, storage_minute=7, call=11):  # noqa: A002
    return PricePlan(
        name="test",
        currency="XXX",
        input=input,
        output=output,
        creation=creation,
        storage_minute=storage_minute,
        call=call,
    )


DOLLAR_128K = make_plan(input=2000, output=5000, creation=1000, storage_minute=150, call=1_500_000)
YUAN_128K = make_plan(
    input=60_000, output=60_000, creation=24_000, storage_minute=10_000, call=20_000_000
)


def test_published_prices_are_nano_units_a_token():
    prices = (YUAN_8K.input, YUAN_8K.output, YUAN_8K.creation, YUAN_8K.storage_minute)
    assert prices == (12_000, 12_000, 24_000, 10_000)
    assert YUAN_8K.call == 20_000_000


def test_creation_is_charged_by_the_token():
    assert creation_fee(make_plan(creation=5), 100) == 500


@pytest.mark.parametrize(
    ("alive_s", "minutes"), [(0, 0), (1, 1), (59, 1), (60, 1), (61, 2), (3600, 60), (3601, 61)]
)
def test_storage_is_charged_by_begun_minutes(alive_s, minutes):
    assert storage_fee(make_plan(storage_minute=7), 100, alive_s) == 7 * 100 * minutes


def test_chat_is_charged_for_input_that_no_cache_matched_and_for_output():
    assert chat_fee(make_plan(), prompt=100, cached=0, completion=10, hit=False) == 2 * 100 + 3 * 10


def test_chat_that_hit_is_charged_for_the_call_and_not_for_what_matched():
    plan = make_plan()
    assert chat_fee(plan, prompt=100, cached=60, completion=10, hit=True) == 11 + 2 * 40 + 3 * 10


def test_chat_that_hit_nothing_is_not_charged_for_the_call():
    assert chat_fee(make_plan(), prompt=0, cached=0, completion=0, hit=False) == 0


@given(TOKENS, TOKENS, TOKENS, st.integers(0, 10**9), st.booleans())
def test_fees_are_whole_nano_units(prompt, cached, completion, alive_s, hit):
    fees = [
        creation_fee(YUAN_8K, prompt),
        storage_fee(YUAN_8K, prompt, alive_s),
        chat_fee(YUAN_8K, prompt=prompt, cached=min(cached, prompt), completion=completion, hit=hit),
    ]
    assert all(type(fee) is int and fee >= 0 for fee in fees)


@given(TOKENS, st.integers(0, 10**6), st.integers(1, 10**6))
def test_storage_never_gets_cheaper_with_time(tokens, alive_s, longer_s):
    assert storage_fee(YUAN_8K, tokens, alive_s + longer_s) >= storage_fee(YUAN_8K, tokens, alive_s)


def test_fees_reproduce_the_published_dollar_calculation():
    """10 calls in a minute, each of 117,965 tokens, 99.5 % of them identical."""
    prompt, kept, answer = 117_965, 117_375, 13_107
    plain = 10 * chat_fee(DOLLAR_128K, prompt=prompt, cached=0, completion=answer, hit=False)
    cached = 10 * chat_fee(DOLLAR_128K, prompt=prompt, cached=kept, completion=answer, hit=True)
    cached += creation_fee(DOLLAR_128K, kept) + storage_fee(DOLLAR_128K, kept, 60)
    assert plain * 100 // NANO == 301
    assert cached * 100 // NANO == 81
    assert round(100 * (1 - cached / plain), 2) == pytest.approx(72.89, abs=0.01)


def test_fees_reproduce_the_published_yuan_calculation():
    """A manual of 64,000 tokens, 40 questions in 10 minutes; the announcement claims 11.88."""
    kept, question, answer = 64_000, 100, 120
    prompt = kept + question
    plain = 40 * chat_fee(YUAN_128K, prompt=prompt, cached=0, completion=0, hit=False)
    cached = 40 * chat_fee(YUAN_128K, prompt=prompt, cached=kept, completion=answer, hit=True)
    cached += creation_fee(YUAN_128K, kept) + storage_fee(YUAN_128K, kept, 600)
    assert plain == 153_840_000_000
    assert cached < 11_880_000_000
