"""Claims: one holder at a time, and none that is dead."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from mooring.registry.claims import Claims
from mooring.registry.database import Database

LONG_S, SHORT_S = 60.0, 0.05


def test_a_claim_has_one_holder(database: Database):
    one, two = Claims(database, "one", LONG_S), Claims(database, "two", LONG_S)
    assert one.take("keep a")
    assert not two.take("keep a")
    assert two.take("keep b")
    assert one.of_others() == {"keep b"}
    one.free("keep a")
    assert two.take("keep a")


def test_what_is_ours_can_be_taken_again(database: Database):
    claims = Claims(database, "one", LONG_S)
    assert claims.take("keep a")
    assert claims.take("keep a")


def test_another_holders_claim_cannot_be_given_back(database: Database):
    one, two = Claims(database, "one", LONG_S), Claims(database, "two", LONG_S)
    one.take("keep a")
    two.free("keep a")
    assert not two.take("keep a")


def test_a_claim_that_nobody_renews_is_taken_over(database: Database):
    dead, living = Claims(database, "dead", SHORT_S), Claims(database, "living", LONG_S)
    assert dead.take("keep a")
    while not living.take("keep a"):
        pass
    assert not dead.take("keep a")
    dead.renew(["keep a"])  # too late: it is not its any more
    assert dead.of_others() == {"keep a"}


def test_a_claim_that_is_renewed_stays(database: Database):
    one, two = Claims(database, "one", SHORT_S), Claims(database, "two", LONG_S)
    assert one.take("keep a")
    Claims(database, "one", LONG_S).renew(["keep a"])
    for _ in range(200):
        assert not two.take("keep a")


def test_a_claim_that_is_not_named_is_not_renewed(database: Database):
    one = Claims(database, "one", SHORT_S)
    assert one.take("keep a")
    Claims(database, "one", LONG_S).renew(["keep b"])
    while not Claims(database, "two", LONG_S).take("keep a"):
        pass


@pytest.mark.parametrize("round_", range(3))
def test_of_many_that_reach_for_a_claim_one_gets_it(database: Database, round_: int):
    everybody = [Claims(database, str(number), LONG_S) for number in range(16)]
    with ThreadPoolExecutor(8) as threads:
        taken = list(threads.map(lambda claims: claims.take(f"keep {round_}"), everybody))
    assert taken.count(True) == 1
