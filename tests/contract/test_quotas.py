"""Amounts and places that several servers count together."""

from concurrent.futures import ThreadPoolExecutor

from mooring.registry.database import Database
from mooring.registry.quotas import Amounts, Quotas

DAY_S = 86_400
LONG_S, SHORT_S = 60.0, 0.05


def up_to(most: int, more: int = 1):
    def decide(amounts: Amounts) -> int:
        return more if amounts.before + amounts.used + more <= most else 0

    return decide


def test_what_one_reserves_the_others_see(database: Database):
    one, two = Quotas(database, "one", LONG_S), Quotas(database, "two", LONG_S)
    assert one.reserve("north", "tokens", DAY_S, up_to(100, 60))[0] == 60
    more, amounts = two.reserve("north", "tokens", DAY_S, up_to(100, 60))
    assert (more, amounts.used + amounts.before) == (0, 60)
    assert two.reserve("south", "tokens", DAY_S, up_to(100, 60))[0] == 60
    assert two.reserve("north", "requests", DAY_S, up_to(100, 60))[0] == 60


def test_reservations_at_once_never_pass_the_limit(database: Database):
    servers = [Quotas(database, str(number), LONG_S) for number in range(8)]

    def reserve(number: int) -> int:
        return servers[number % 8].reserve("north", "requests", DAY_S, up_to(50))[0]

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(reserve, range(100))) == 50


def test_the_span_before_is_told_and_older_ones_are_forgotten(database: Database):
    """By spans so short that they pass while this waits for them."""
    quotas = Quotas(database, "one", LONG_S)
    _, first = quotas.reserve("north", "requests", 1, lambda _: 7)
    seen = set()
    while (0, 0) not in seen:
        _, amounts = quotas.reserve("north", "requests", 1, lambda _: 0)
        if int(amounts.now) - int(first.now) >= 2:
            assert (amounts.used, amounts.before) == (0, 0)
        seen.add((amounts.used, amounts.before))
    assert seen <= {(7, 0), (0, 7), (0, 0)}


def test_places_are_counted_together(database: Database):
    one, two = Quotas(database, "one", LONG_S), Quotas(database, "two", LONG_S)
    assert one.take_places("north", 2, 3)
    assert two.take_places("north", 1, 3)
    assert not two.take_places("north", 2, 3)
    assert two.take_places("south", 3, 3)
    one.renew_places({"north": 1})
    assert two.take_places("north", 2, 3)
    one.renew_places({"north": 0})
    assert two.take_places("north", 3, 3)


def test_places_of_the_dead_are_free(database: Database):
    dead, living = Quotas(database, "dead", SHORT_S), Quotas(database, "living", LONG_S)
    assert dead.take_places("north", 3, 3)
    while not living.take_places("north", 1, 3):
        pass


def test_places_taken_at_once_are_never_too_many(database: Database):
    servers = [Quotas(database, str(number), LONG_S) for number in range(20)]
    with ThreadPoolExecutor(8) as threads:
        taken = list(threads.map(lambda quotas: quotas.take_places("north", 1, 5), servers))
    assert taken.count(True) == 5
