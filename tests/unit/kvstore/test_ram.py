"""The RAM tier: payloads and their sum."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mooring.kvstore.ram import RamTier


def test_ram_counts_an_overwritten_payload_once():
    tier = RamTier()
    tier.put("a", np.zeros(20, np.uint8))
    tier.put("a", np.zeros(5, np.uint8))
    assert tier.used_bytes == 5


def test_ram_copies_nothing():
    tier, payload = RamTier(), np.zeros(20, np.uint8)
    tier.put("a", payload)
    assert np.shares_memory(tier.get("a"), payload)


ACTIONS = st.tuples(st.sampled_from(["put", "delete"]), st.sampled_from("abcd"), st.integers(0, 40))


@given(st.lists(ACTIONS, max_size=40))
def test_ram_counts_what_it_holds(actions):
    tier, sizes = RamTier(), {}
    for action, key, size_bytes in actions:
        if action == "put":
            tier.put(key, np.zeros(size_bytes, np.uint8))
            sizes[key] = size_bytes
        else:
            tier.delete(key)
            sizes.pop(key, None)
        assert tier.keys() == set(sizes)
        assert tier.used_bytes == sum(sizes.values())
