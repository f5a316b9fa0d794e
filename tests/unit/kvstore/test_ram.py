"""The RAM tier: a byte budget, least recently used first out."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mooring.kvstore.ram import RamTier
from mooring.kvstore.tier import KvObject


def item(size_bytes):
    return KvObject(1, np.zeros(size_bytes, np.uint8))


def filled(budget_bytes, **sizes):
    tier = RamTier(budget_bytes)
    for key, size_bytes in sizes.items():
        tier.put(key, item(size_bytes))
    return tier


def test_ram_drops_the_oldest_to_make_room():
    assert filled(30, a=10, b=10, c=10, d=10).keys() == {"b", "c", "d"}


def test_ram_drops_as_many_as_it_must():
    assert filled(30, a=10, b=10, c=10, d=25).keys() == {"d"}


def test_ram_counts_a_get_as_use():
    tier = filled(30, a=10, b=10, c=10)
    tier.get("a")
    tier.put("d", item(10))
    assert tier.keys() == {"a", "c", "d"}


def test_ram_counts_an_overwrite_as_use():
    tier = filled(30, a=10, b=10, c=10)
    tier.put("a", item(10))
    tier.put("d", item(10))
    assert tier.keys() == {"a", "c", "d"}


def test_ram_takes_an_object_as_large_as_the_budget():
    assert filled(30, a=10, b=30).keys() == {"b"}


def test_ram_does_not_hold_an_object_larger_than_the_budget():
    assert filled(30, a=31).get("a") is None


def test_ram_drops_nothing_for_an_object_it_cannot_hold():
    assert filled(30, a=10, b=31).keys() == {"a"}


def test_ram_forgets_the_old_object_when_the_new_one_is_too_large():
    tier = filled(30, a=10)
    tier.put("a", item(31))
    assert tier.get("a") is None


def test_ram_counts_an_overwritten_object_once():
    tier = filled(30, a=20)
    tier.put("a", item(5))
    assert tier.used_bytes == 5


def test_ram_gets_the_budget_back_on_delete():
    tier = filled(30, a=20)
    tier.delete("a")
    assert tier.used_bytes == 0


def test_ram_without_budget_holds_nothing():
    assert filled(0, a=1).keys() == set()


ACTIONS = st.tuples(
    st.sampled_from(["put", "get", "delete"]), st.sampled_from("abcd"), st.integers(0, 40)
)


@given(st.lists(ACTIONS, max_size=40))
def test_ram_never_holds_more_than_its_budget(actions):
    tier, sizes = RamTier(60), {}
    for action, key, size_bytes in actions:
        match action:
            case "put":
                tier.put(key, item(size_bytes))
                sizes[key] = size_bytes
            case "get":
                tier.get(key)
            case "delete":
                tier.delete(key)
        held = tier.keys()
        assert tier.used_bytes == sum(sizes[key] for key in held) <= 60
