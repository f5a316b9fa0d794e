"""Price plans: what a token costs, in which context-length class, since when. Pure.

Money is counted in nano-units: 10**-9 of the plan's currency. Prices are published per million tokens,
so a price of 1.00 is 1,000 nano-units a token; of more than three decimals there is no whole number.
"""

import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, time
from decimal import Decimal
from importlib import resources
from typing import Any

from pydantic import TypeAdapter

from mooring.config import PlanConfig, TariffConfig
from mooring.core.errors import InvalidRequest, StartRefused

NANO = 10**9
_PER_MILLION = 1_000_000
_ANY = "any"
_CLASS = re.compile(r"([1-9][0-9]*)k")
_NEVER = 1 << 62


@dataclass(frozen=True)
class Prices:
    """What one request or cache is charged by: nano-units a token."""

    input: int
    cached_input: int
    """For prompt tokens that a cache matched."""
    output: int
    creation: int
    """Once for each cache, by the tokens it holds."""
    storage_minute: int
    """A token and begun minute."""
    call: int
    """Nano-units for each request that used a cache."""


@dataclass(frozen=True)
class Tariff:
    """A plan's prices from a moment on."""

    since: int
    """Unix seconds."""
    classes: tuple[tuple[str, Prices], ...]
    """By the context they reach to, the smallest first."""

    def prices(self, model: str, tokens: int) -> Prices:
        """Of the class that the model's name ends with, else of the smallest that holds the tokens."""
        for name, prices in self.classes:
            if model.endswith(f"-{name}"):
                return prices
        for name, prices in self.classes:
            if tokens <= _reach(name):
                return prices
        return self.classes[-1][1]


@dataclass(frozen=True)
class PricePlan:
    """Named prices in one currency, which change with a date and never backwards."""

    name: str
    currency: str
    decimals: int
    """How amounts are shown; they are exact inside."""
    tariffs: tuple[Tariff, ...]
    """The oldest first. The first one also holds for what lies before it."""

    def at(self, moment: float) -> Tariff:
        """The tariff in force."""
        index = bisect_right([tariff.since for tariff in self.tariffs], moment)
        return self.tariffs[max(0, index - 1)]

    def exactly(self, nano: int) -> str:
        """An amount with all its decimals."""
        return f"{Decimal(nano) / NANO:f}"

    def show(self, nano: int) -> str:
        """An amount in the plan's currency, cut to its decimals, as Moonshot's calculator does."""
        unit = Decimal(10) ** -self.decimals
        amount = (Decimal(nano) / NANO).quantize(unit, rounding="ROUND_DOWN")
        return f"{amount:,} {self.currency}"


@dataclass(frozen=True)
class PriceHistory:
    """The plans that were in force, one after the other, whatever the configuration says by now."""

    plans: tuple[tuple[int, PricePlan], ...]
    """Each with the Unix second it was in force from, in order. The first one also holds before."""

    def at(self, moment: float) -> PricePlan:
        """The plan in force."""
        index = bisect_right([since for since, _ in self.plans], moment)
        return self.plans[max(0, index - 1)][1]

    def next_change(self, moment: int) -> int:
        """When prices may be others than they are at this moment; far away where no change is known."""
        plans = (since for since, _ in self.plans if since > moment)
        tariffs = (tariff.since for tariff in self.at(moment).tariffs if tariff.since > moment)
        return min(min(plans, default=_NEVER), min(tariffs, default=_NEVER))


def plan_to_json(plan: PricePlan) -> dict[str, Any]:
    return asdict(plan)


def plan_from_json(stored: Mapping[str, Any]) -> PricePlan:
    return TypeAdapter(PricePlan).validate_python(stored)


def load_plans(configured: Mapping[str, PlanConfig]) -> dict[str, PricePlan]:
    """The plans that ship with Mooring, and the configured ones; a configured one wins.

    Raises:
        StartRefused: a price has more decimals than nano-units can express, or a class no size.
    """
    shipped = resources.files("mooring").joinpath("assets/plans.toml").read_text("utf-8")
    plans: dict[str, Any] = tomllib.loads(shipped)
    all_plans = TypeAdapter(dict[str, PlanConfig]).validate_python(plans) | dict(configured)
    return {name: _plan(name, plan) for name, plan in all_plans.items()}


def choose_plan(plans: Mapping[str, PricePlan], name: str, field: str) -> PricePlan:
    """Raises InvalidRequest, naming the field and the plans there are."""
    if name not in plans:
        raise InvalidRequest(
            f"{field}: there is no price plan {name!r}; there are {', '.join(plans)}", param=field
        )
    return plans[name]


def _plan(name: str, plan: PlanConfig) -> PricePlan:
    tariffs = sorted((_tariff(name, tariff) for tariff in plan.tariffs), key=lambda tariff: tariff.since)
    since = [tariff.since for tariff in tariffs]
    if len(set(since)) < len(since):
        raise StartRefused(f"billing.plans.{name}: two tariffs begin on the same day")
    return PricePlan(name, plan.currency, plan.decimals, tuple(tariffs))


def _tariff(plan: str, tariff: TariffConfig) -> Tariff:
    where = f"billing.plans.{plan}"
    for name in tariff.classes:
        if name != _ANY and not _CLASS.fullmatch(name):
            raise StartRefused(f"{where}.classes: {name!r} must be like '32k', or 'any'")
    midnight = datetime.combine(tariff.since, time(), UTC)
    classes = sorted(tariff.classes.items(), key=lambda entry: _reach(entry[0]))
    return Tariff(
        since=int(midnight.timestamp()),
        classes=tuple(
            (
                name,
                Prices(
                    input=_a_token(prices.input, f"{where}.{name}.input"),
                    cached_input=_a_token(prices.cached_input, f"{where}.{name}.cached_input"),
                    output=_a_token(prices.output, f"{where}.{name}.output"),
                    creation=_a_token(tariff.creation, f"{where}.creation"),
                    storage_minute=_a_token(tariff.storage_minute, f"{where}.storage_minute"),
                    call=_whole(tariff.call * NANO, f"{where}.call", 9),
                ),
            )
            for name, prices in classes
        ),
    )


def _reach(name: str) -> float:
    """The most tokens of a class."""
    found = _CLASS.fullmatch(name)
    return int(found[1]) * 1024 if found else float("inf")


def _a_token(price: Decimal, where: str) -> int:
    return _whole(price * NANO / _PER_MILLION, where, 3)


def _whole(nano: Decimal, where: str, decimals: int) -> int:
    if nano != int(nano):
        raise StartRefused(f"{where}: at most {decimals} decimals, so that every charge is exact")
    return int(nano)
