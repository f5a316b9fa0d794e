"""What every tier promises. One suite, run over each of them."""

import uuid

import numpy as np
import pytest
from mooncake_cluster import MooncakeCluster

from mooring.kvstore.disk import DiskTier
from mooring.kvstore.ram import RamTier
from mooring.kvstore.shared.files import FilesTier
from mooring.kvstore.shared.mooncake import MooncakeTier
from mooring.kvstore.shared.mooncake_client import MooncakeClient, MooncakeConfig

A, B, C = "aa" * 16, "ab" * 16, "cc" * 16


@pytest.fixture(scope="module")
def mooncake_client(tmp_path_factory):
    with MooncakeCluster(tmp_path_factory.mktemp("mooncake")) as cluster:
        client = MooncakeClient(MooncakeConfig(**cluster.settings()))
        yield client
        client.close()


@pytest.fixture(params=["ram", "disk", "files", "mooncake"])
def make_tier(request):
    if request.param == "mooncake":
        client = request.getfixturevalue("mooncake_client")
    return {
        "ram": lambda _: RamTier(),
        "disk": lambda root: DiskTier(root / "kv", "fingerprint"),
        "files": lambda root: FilesTier(root / "kv", "fingerprint"),
        "mooncake": lambda _: MooncakeTier(client, f"test/{uuid.uuid4().hex}", "fingerprint"),
    }[request.param]


def item(value=1, size_bytes=5000):
    return np.full(size_bytes, value, np.uint8)


def test_tier_gets_what_was_put(make_tier, tmp_path):
    tier, payload = make_tier(tmp_path), np.arange(10_000).astype(np.uint8)
    tier.put(A, payload)
    assert np.array_equal(tier.get(A), payload)


def test_tier_gets_bytes_as_a_flat_array(make_tier, tmp_path):
    tier = make_tier(tmp_path)
    tier.put(A, item(size_bytes=123))
    payload = tier.get(A)
    assert (payload.dtype, payload.shape) == (np.uint8, (123,))


def test_tier_gets_a_payload_without_bytes(make_tier, tmp_path):
    tier = make_tier(tmp_path)
    tier.put(A, item(size_bytes=0))
    assert tier.get(A).nbytes == 0


def test_tier_gets_nothing_for_an_unknown_key(make_tier, tmp_path):
    tier = make_tier(tmp_path)
    tier.put(A, item())
    assert tier.get(B) is None


def test_tier_gets_the_same_every_time(make_tier, tmp_path):
    tier = make_tier(tmp_path)
    tier.put(A, item(5))
    assert [tier.get(A).tolist() for _ in range(2)] == [[5] * 5000] * 2


def test_tier_tells_keys_apart(make_tier, tmp_path):
    tier = make_tier(tmp_path)
    tier.put(A, item(1))
    tier.put(B, item(2))
    assert (tier.get(A)[0], tier.get(B)[0]) == (1, 2)


def test_tier_overwrites(make_tier, tmp_path):
    tier = make_tier(tmp_path)
    tier.put(A, item(1))
    tier.put(A, item(2, size_bytes=10))
    assert tier.get(A).tolist() == [2] * 10


def test_tier_keeps_the_bytes_of_a_payload_that_is_overwritten(make_tier, tmp_path):
    tier = make_tier(tmp_path)
    tier.put(A, item(1))
    held = tier.get(A)
    tier.put(A, item(2))
    assert set(held.tolist()) == {1}


def test_tier_keeps_the_bytes_of_a_payload_that_is_deleted(make_tier, tmp_path):
    tier = make_tier(tmp_path)
    tier.put(A, item(1))
    held = tier.get(A)
    tier.delete(A)
    assert set(held.tolist()) == {1}


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
    assert tier.get(A)[0] == 2


def test_tier_hands_out_bytes_that_cannot_be_changed(make_tier, tmp_path):
    tier = make_tier(tmp_path)
    tier.put(A, item())
    with pytest.raises(ValueError, match="read-only"):
        tier.get(A)[0] = 9


def test_tier_is_empty_at_first(make_tier, tmp_path):
    assert make_tier(tmp_path).keys() == set()


def test_tier_lists_the_keys_it_holds(make_tier, tmp_path):
    tier = make_tier(tmp_path)
    for key in (A, B, C):
        tier.put(key, item())
    tier.put(A, item())
    tier.delete(B)
    assert tier.keys() == {A, C}
