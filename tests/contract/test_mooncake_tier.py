"""What Mooncake makes difficult: silently fewer replicas, full stores, dead nodes, no overwriting."""

import errno
import threading
import time

import numpy as np
import pytest
from mooncake_cluster import MooncakeCluster

from mooring.kvstore import codec
from mooring.kvstore.codec import Description, Rejected
from mooring.kvstore.shared.mooncake import MooncakeTier
from mooring.kvstore.shared.mooncake_client import MooncakeClient, MooncakeConfig

A, B = "aa" * 16, "bb" * 16
MEGABYTE = 1 << 20


@pytest.fixture
def cluster(tmp_path):
    with MooncakeCluster(tmp_path) as running:
        yield running


@pytest.fixture
def make_client(cluster):
    clients = []

    def make(**settings):
        clients.append(MooncakeClient(MooncakeConfig(**cluster.settings(**settings))))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def item(value=1, size_bytes=5000):
    return np.full(size_bytes, value, np.uint8)


def tier_of(client):
    return MooncakeTier(client, "test", "fingerprint")


def test_put_fails_when_there_are_fewer_nodes_than_replicas(make_client):
    tier = tier_of(make_client(replicas=3, retry_s=0.5))
    with pytest.raises(OSError, match="2 of 3 replicas"):
        tier.put(A, item())
    assert tier.get(A) is None
    assert tier.keys() == set()


def test_full_store_is_told_and_takes_again_when_there_is_room(make_client):
    client = make_client(retry_s=0.5)
    tier = tier_of(client)
    kept = []
    with pytest.raises(OSError) as caught:  # noqa: PT011  the number tells
        for number in range(20):
            tier.put(f"{number:032x}", item(number, 8 * MEGABYTE))
            kept.append(number)
    assert caught.value.errno == errno.ENOSPC
    assert len(kept) >= 5
    for number in kept:  # hard pins: nothing made way
        assert tier.get(f"{number:032x}")[0] == number
    tier.delete(f"{kept[0]:032x}")
    tier.put(A, item(99, 7 * MEGABYTE))
    assert tier.get(A)[0] == 99


def test_object_larger_than_a_node_is_refused_at_once(make_client):
    with pytest.raises(OSError, match="larger than a node"):
        tier_of(make_client(retry_s=30)).put(A, item(1, 80 * MEGABYTE))


def test_copies_of_a_dead_node_are_read_elsewhere_and_made_again(cluster, make_client):
    client = make_client(retry_s=20)
    tier = tier_of(client)
    tier.put(A, item(7, MEGABYTE))
    cluster.kill_node()
    assert tier.get(A)[0] == 7
    cluster.add_node()
    while client.replicas(f"test/{A}/0") == 2:  # until the master has noticed
        pass
    assert tier.repair(A)
    assert [client.replicas(f"test/{A}/{version}") for version in (0, 1)] == [0, 2]
    cluster.kill_node()
    assert tier.get(A)[0] == 7


def test_repair_says_so_when_there_are_too_few_nodes(cluster, make_client):
    client = make_client(retry_s=1)
    tier = tier_of(client)
    tier.put(A, item(7))
    cluster.kill_node()
    while client.replicas(f"test/{A}/0") == 2:
        pass
    assert not tier.repair(A)
    assert tier.get(A)[0] == 7


def test_writer_that_ended_between_its_steps_leaves_the_newer_version(make_client):
    client = make_client()
    tier = tier_of(client)
    for version, value in ((0, 1), (1, 2)):
        payload = item(value)
        described = Description(
            fingerprint="fingerprint",
            key=A,
            parent=f"{value:020d}",
            tokens=0,
            payload_bytes=payload.nbytes,
            payload_checksum=codec.checksum(payload.data),
        )
        client.put(f"test/{A}/{version}", codec.encode(described), payload.data)
    assert tier.get(A)[0] == 2
    tier.put(A, item(3))
    assert tier.get(A)[0] == 3
    assert client.exist([f"test/{A}/0", f"test/{A}/1"]) == [True, False]


def test_payload_that_is_replaced_while_it_is_read_is_read_whole(make_client):
    writer, reader = tier_of(make_client()), tier_of(make_client())
    writer.put(A, item(0, 4 * MEGABYTE))

    def write():
        for value in range(1, 25):
            writer.put(A, item(value, 4 * MEGABYTE))
            writer.put(B, item(255, 4 * MEGABYTE))  # takes the memory that became free
            time.sleep(0.05)

    thread = threading.Thread(target=write)
    thread.start()
    seen = []
    try:
        while thread.is_alive():
            payload = reader.get(A)
            assert payload.min() == payload.max()
            seen.append(int(payload[0]))
    finally:
        thread.join()  # before its client is closed
    assert seen == sorted(seen)
    assert 255 not in seen


def test_damaged_object_is_rejected_and_can_be_written_again(make_client):
    client = make_client()
    tier = tier_of(client)
    client.put(f"test/{A}/0", b"nothing that a tier wrote" * 400)
    with pytest.raises(Rejected):
        tier.get(A)
    tier.put(A, item(3))
    assert tier.get(A)[0] == 3


def test_tier_reads_nothing_of_another_model(make_client):
    client = make_client()
    tier_of(client).put(A, item())
    with pytest.raises(Rejected):
        MooncakeTier(client, "test", "another fingerprint").get(A)


def test_leased_object_is_deleted(make_client):
    tier = tier_of(make_client(retry_s=0))
    tier.put(A, item())
    assert tier.get(A) is not None  # reading takes a lease
    tier.delete(A)
    assert tier.get(A) is None


def test_lost_master_is_an_error_of_storage(cluster, make_client):
    tier = tier_of(make_client(retry_s=0))
    tier.put(A, item())
    cluster.kill_master()
    for work in (lambda: tier.get(A), lambda: tier.put(B, item()), lambda: tier.delete(A), tier.keys):
        with pytest.raises(OSError):  # noqa: PT011
            work()


def test_store_that_is_not_there_is_told_at_start(make_client, cluster):
    cluster.kill_master()
    with pytest.raises(ConnectionRefusedError):
        make_client()
