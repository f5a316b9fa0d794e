"""Price plans: shipped, configured, and what is wrong with some."""

from datetime import date

import pytest

from mooring.config import BillingConfig, load_config
from mooring.core.errors import InvalidRequest, StartRefused
from mooring.service.pricing import choose_plan, load_plans

DAY = 86_400


def configured(text: str, tmp_path):
    path = tmp_path / "mooring.toml"
    path.write_text(text)
    return load_plans(load_config(path).billing.plans)


def plan_text(**prices: str) -> str:
    values = {"creation": "1", "input": "2", "output": "3"} | prices
    return f"""
[billing.plans.mine]
currency = "EUR"
decimals = 4
[[billing.plans.mine.tariffs]]
from = 2025-01-02
creation = "{values["creation"]}"
[billing.plans.mine.tariffs.classes.any]
input = "{values["input"]}"
output = "{values["output"]}"
"""


def test_shipped_plans_are_the_published_ones():
    plans = load_plans(BillingConfig().plans)
    assert set(plans) == {"free", "yuan-2024", "dollar-2025", "multipliers", "multipliers-hour"}
    yuan = plans["yuan-2024"].at(0).prices("moonshot-v1-8k", 0)
    assert (yuan.input, yuan.output, yuan.creation) == (12_000, 12_000, 24_000)
    assert (yuan.storage_minute, yuan.call) == (10_000, 20_000_000)
    dollar = plans["dollar-2025"].at(0).prices("moonshot-v1-128k", 0)
    assert (dollar.input, dollar.output, dollar.creation) == (2000, 5000, 1000)
    assert (dollar.storage_minute, dollar.call) == (150, 1_500_000)
    other = plans["multipliers"].at(0).prices("any", 0)
    assert (other.creation, other.cached_input) == (1250, 100)
    assert all(price == 0 for price in vars(plans["free"].at(0).prices("any", 10**6)).values())


@pytest.mark.parametrize(
    ("model", "tokens", "price"),
    [
        ("moonshot-v1-8k", 100_000, 12_000),
        ("moonshot-v1-32k", 1, 24_000),
        ("moonshot-v1", 8192, 12_000),
        ("moonshot-v1", 8193, 24_000),
        ("moonshot-v1", 32_769, 60_000),
        ("moonshot-v1", 10**9, 60_000),
        ("model-18k", 1, 12_000),
    ],
)
def test_the_class_is_named_by_the_model_or_holds_the_tokens(model, tokens, price):
    assert load_plans({})["yuan-2024"].at(0).prices(model, tokens).input == price


def test_a_configured_plan_joins_the_shipped_ones(tmp_path):
    plan = configured(plan_text(input="0.125"), tmp_path)["mine"]
    assert plan.at(0).prices("m", 1).input == 125
    assert plan.show(1_234_567_890) == "1.2345 EUR"


def test_prices_change_with_a_date(tmp_path):
    later = """
[[billing.plans.mine.tariffs]]
from = 2026-01-01
[billing.plans.mine.tariffs.classes.any]
input = "9"
output = "9"
"""
    plan = configured(plan_text() + later, tmp_path)["mine"]
    change = (date(2026, 1, 1) - date(1970, 1, 1)).days * DAY
    assert plan.at(change - 1).prices("m", 1).input == 2000
    assert plan.at(change).prices("m", 1).input == 9000


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (plan_text(input="0.0001"), "billing.plans.mine.any.input"),
        (plan_text(creation="1.23456"), "billing.plans.mine.creation"),
        (plan_text(input="-1"), "billing.plans.mine.tariffs.0.classes.any.input"),
        (plan_text().replace("classes.any", "classes.large"), "large"),
        (plan_text() + plan_text().partition("decimals = 4")[2], "same day"),
    ],
)
def test_a_wrong_plan_is_refused_and_named(text, where, tmp_path):
    with pytest.raises(StartRefused, match=where):
        configured(text, tmp_path)


def test_an_unknown_plan_is_refused_with_the_known():
    with pytest.raises(InvalidRequest, match="dollar-2025"):
        choose_plan(load_plans({}), "gold", "--plan")
