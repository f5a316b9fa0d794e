"""What every tier promises. One suite, run over each of them."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mooring.kvstore.disk import DiskTier
from mooring.kvstore.ram import RamTier
from mooring.kvstore.tier import KvObject

A, B = "aa" * 32, "ab" * 32  # on disk, two files of one folder
TIERS = {
    "ram": lambda _: RamTier(1 << 20),
    "disk": lambda root: DiskTier(root / "kv", "fingerprint"),
}

pytestmark = pytest.mark.parametrize("make_tier", TIERS.values(), ids=TIERS)


def item(value=1, *, tokens=7, size_bytes=5000):
    return KvObject(tokens, np.full(size_bytes, value, np.uint8))


def test_tier_gets_what_was_put(make_tier, tmp_path):
    tier, payload = make_tier(tmp_path), np.arange(10_000).astype(np.uint8)
    tier.put(A, KvObject(7, payload))
    found = tier.get(A)
    assert found.tokens == 7
    assert np.array_equal(found.payload, payload)


def test_tier_gets_bytes_as_a_flat_array(make_tier, tmp_path):
    tier = make_tier(tmp_path)
    tier.put(A, item(size_bytes=123))
    payload = tier.get(A).payload
    assert (payload.dtype, payload.shape) == (np.uint8, (123,))


def test_tier_gets_an_object_without_bytes(make_tier, tmp_path):
    tier = make_tier(tmp_path)
    tier.put(A, item(tokens=0, size_bytes=0))
    assert tier.get(A).size_bytes == 0


def test_tier_gets_nothing_for_an_unknown_key(make_tier, tmp_path):
    tier = make_tier(tmp_path)
    tier.put(A, item())
    assert tier.get(B) is None


def test_tier_gets_the_same_every_time(make_tier, tmp_path):
    tier = make_tier(tmp_path)
    tier.put(A, item(5))
    assert [tier.get(A).payload.tolist() for _ in range(2)] == [[5] * 5000] * 2


def test_tier_tells_keys_apart(make_tier, tmp_path):
    tier = make_tier(tmp_path)
    tier.put(A, item(1))
    tier.put(B, item(2))
    assert (tier.get(A).payload[0], tier.get(B).payload[0]) == (1, 2)


def test_tier_overwrites(make_tier, tmp_path):
    tier = make_tier(tmp_path)
    tier.put(A, item(1))
    tier.put(A, item(2, tokens=9, size_bytes=10))
    found = tier.get(A)
    assert (found.tokens, found.payload.tolist()) == (9, [2] * 10)


def test_tier_keeps_the_bytes_of_an_object_that_is_overwritten(make_tier, tmp_path):
    tier = make_tier(tmp_path)
    tier.put(A, item(1))
    held = tier.get(A)
    tier.put(A, item(2))
    assert set(held.payload.tolist()) == {1}


def test_tier_keeps_the_bytes_of_an_object_that_is_deleted(make_tier, tmp_path):
    tier = make_tier(tmp_path)
    tier.put(A, item(1))
    held = tier.get(A)
    tier.delete(A)
    assert set(held.payload.tolist()) == {1}


def test_tier_forgets_what_is_deleted(make_tier, tmp_path):
    tier = make_tier(tmp_path)
    tier.put(A, item())
    tier.delete(A)
    assert tier.get(A) is None


def test_tier_deletes_nothing_else(make_tier, tmp_path):
    tier = make_tier(tmp_path)
    tier.put(A, item())
    tier.put(B, item())
    tier.delete(A)
    assert tier.get(B) is not None


def test_tier_deletes_an_unknown_key_without_complaint(make_tier, tmp_path):
    make_tier(tmp_path).delete(A)


def test_tier_holds_again_what_was_deleted(make_tier, tmp_path):
    tier = make_tier(tmp_path)
    tier.put(A, item(1))
    tier.delete(A)
    tier.put(A, item(2))
    assert tier.get(A).payload[0] == 2


def test_tier_is_empty_at_first(make_tier, tmp_path):
    assert make_tier(tmp_path).keys() == set()


def test_tier_lists_the_keys_it_holds(make_tier, tmp_path):
    tier = make_tier(tmp_path)
    for key in (A, B, "cc" * 32):
        tier.put(key, item())
    tier.put(A, item())
    tier.delete(B)
    assert tier.keys() == {A, "cc" * 32}


def test_tier_never_shows_half_an_object_to_concurrent_readers(make_tier, tmp_path):
    """Each object is made of one value, told by its tokens too."""
    tier, rounds = make_tier(tmp_path), range(25)
    tier.put(A, item(0, tokens=0))

    def write(writer):
        for step in rounds:
            value = writer * len(rounds) + step
            tier.put(A, item(value, tokens=value))

    def read(_):
        found = [tier.get(A) for _ in range(4 * len(rounds))]
        return all(set(held.payload.tolist()) == {held.tokens} for held in found)

    with ThreadPoolExecutor(8) as threads:
        writing = [threads.submit(write, writer) for writer in range(4)]
        reading = [threads.submit(read, reader) for reader in range(4)]
        assert [done.result() for done in writing] == [None] * 4
        assert all(done.result() for done in reading)


def test_tier_is_consistent_after_concurrent_puts_and_deletes(make_tier, tmp_path):
    tier = make_tier(tmp_path)
    keys = [f"{number:02x}" * 32 for number in range(16)]

    def work(worker):
        mine = keys[worker::4]
        for _ in range(5):
            for key in mine:
                tier.put(key, item(worker))
            assert tier.keys() >= set(mine)
            tier.delete(mine[0])
        return set(mine[1:])

    with ThreadPoolExecutor(4) as threads:
        expected = set().union(*threads.map(work, range(4)))
    assert tier.keys() == expected
    assert all(tier.get(key) is not None for key in expected)
