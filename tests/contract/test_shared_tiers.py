"""What whole contexts in a shared tier promise, on files and on a real Mooncake."""

import uuid
from dataclasses import replace

import numpy as np
import pytest
from mooncake_cluster import MooncakeCluster

from mooring.core.prefix import Prefix
from mooring.kvstore.codec import Rejected, Rejection
from mooring.kvstore.shared import manifest as manifests
from mooring.kvstore.shared.contexts import ContextStore
from mooring.kvstore.shared.files import FilesTier
from mooring.kvstore.shared.manifest import Manifest
from mooring.kvstore.shared.mooncake import MooncakeTier
from mooring.kvstore.shared.mooncake_client import MooncakeClient, MooncakeConfig

FINGERPRINT = "f" * 32
BLOCK, BLOCK_BYTES = 4, 1000


class Tiers:
    """Two engines' views of one tier, and its two halves to look into and to damage."""

    def __init__(self, open_tier):
        self._open = open_tier
        self.manifests, self.objects = self.halves()

    def halves(self, fingerprint=FINGERPRINT):
        return [self._open(fingerprint, half) for half in ("contexts", "objects")]

    def store(self, fingerprint=FINGERPRINT):
        return ContextStore(*self.halves(fingerprint), fingerprint)


@pytest.fixture(scope="module")
def mooncake_client(tmp_path_factory):
    with MooncakeCluster(tmp_path_factory.mktemp("mooncake")) as cluster:
        client = MooncakeClient(MooncakeConfig(**cluster.settings(retry_s=1)))
        yield client
        client.close()


@pytest.fixture(params=["files", "mooncake"])
def tiers(request, tmp_path):
    if request.param == "files":
        return Tiers(lambda fingerprint, half: FilesTier(tmp_path / fingerprint / half, fingerprint))
    client, place = request.getfixturevalue("mooncake_client"), uuid.uuid4().hex
    return Tiers(
        lambda fingerprint, half: MooncakeTier(client, f"{place}/{fingerprint}/{half}", fingerprint)
    )


def manifest(seed=1, blocks=5, written_at=1000.0):
    context = Prefix("tenant", tuple(range(seed, seed + blocks * BLOCK))).id
    return Manifest(
        context,
        FINGERPRINT,
        blocks * BLOCK,
        BLOCK,
        BLOCK_BYTES,
        2,
        complete=False,
        written_at=written_at,
    )


def payload_of(part, seed=1):
    numbers = np.random.default_rng([seed, part.start])
    return numbers.integers(0, 256, (part.end - part.start) * BLOCK_BYTES, np.uint8)


def write(store, described, seed=1, *, commit=True):
    store.begin(described)
    for part in described.objects():
        store.put_object(part, payload_of(part, seed))
    if commit:
        store.commit(described)


def rejection(work, *arguments):
    with pytest.raises(Rejected) as caught:
        work(*arguments)
    return caught.value.reason


def test_context_has_an_object_for_every_two_blocks():
    parts = manifest(blocks=5).objects()
    assert [(part.start, part.end) for part in parts] == [(0, 2), (2, 4), (4, 5)]
    assert len({part.key for part in parts}) == 3


def test_contexts_share_no_object():
    one, other = manifest(1), manifest(2)
    assert not {part.key for part in one.objects()} & {part.key for part in other.objects()}


def test_another_engine_finds_and_reads_what_one_wrote(tiers):
    write(tiers.store(), manifest())
    other = tiers.store()
    found = other.find(manifest().context)
    assert found == replace(manifest(), complete=True)
    for part in found.objects():
        assert np.array_equal(other.get_object(found, part), payload_of(part))


def test_context_is_found_only_when_all_of_it_is_there(tiers):
    store = tiers.store()
    write(store, manifest(), commit=False)
    assert store.find(manifest().context) is None
    assert store.contexts() == {manifest().context}


def test_unknown_context_is_not_found(tiers):
    assert tiers.store().find("ab" * 32) is None


def test_another_model_finds_nothing(tiers):
    write(tiers.store(), manifest())
    assert tiers.store("e" * 32).find(manifest().context) is None


def test_deleting_leaves_no_byte(tiers):
    store = tiers.store()
    write(store, manifest(1))
    write(store, manifest(2), seed=2)
    store.delete(manifest(1).context)
    assert store.find(manifest(1).context) is None
    assert store.contexts() == {manifest(2).context}
    assert tiers.objects.keys() == {part.key for part in manifest(2).objects()}


def test_deleting_what_is_not_there_is_no_error(tiers):
    tiers.store().delete("ab" * 32)


def test_deleting_removes_what_was_only_begun(tiers):
    store = tiers.store()
    write(store, manifest(), commit=False)
    store.delete(manifest().context)
    assert tiers.objects.keys() == tiers.manifests.keys() == set()


def test_writing_again_replaces(tiers):
    store = tiers.store()
    write(store, manifest(), seed=1)
    write(store, manifest(), seed=2)
    (part, *_) = manifest().objects()
    assert np.array_equal(store.get_object(manifest(), part), payload_of(part, 2))


def test_lost_object_is_told(tiers):
    store = tiers.store()
    write(store, manifest())
    (part, *_) = manifest().objects()
    tiers.objects.delete(part.key)
    assert rejection(store.get_object, manifest(), part) is Rejection.MISSING


def test_object_of_another_length_is_not_used(tiers):
    store = tiers.store()
    write(store, manifest())
    (part, *_) = manifest().objects()
    tiers.objects.put(part.key, payload_of(part)[:-1])
    assert rejection(store.get_object, manifest(), part) is Rejection.TRUNCATED


HOSTILE = {
    "no JSON": b"\x80\x81",
    "no object": b"[1]",
    "nothing": b"{}",
    "another format": b'{"format": 99}',
    "a field too many": b'{"format": 1, "extra": 1}',
    "a depth without end": b"[" * 100_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_manifest_that_nobody_wrote_is_rejected(tiers, text):
    store = tiers.store()
    tiers.manifests.put(manifest().context, np.frombuffer(text, np.uint8))
    assert rejection(store.find, manifest().context) in {Rejection.CORRUPT, Rejection.FOREIGN}


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": 0},
        {"tokens": 7},
        {"block_tokens": -4},
        {"object_blocks": 0},
        {"complete": 1},
        {"tokens": 4 << 40},
    ],
    ids=str,
)
def test_manifest_that_makes_no_sense_is_rejected(tiers, change):
    store = tiers.store()
    unsound = replace(manifest(), complete=True)
    tiers.manifests.put(unsound.context, manifests.encode(replace(unsound, **change)))
    assert rejection(store.find, unsound.context) is Rejection.CORRUPT


def test_manifest_under_another_ones_name_is_rejected(tiers):
    store = tiers.store()
    tiers.manifests.put(manifest(2).context, manifests.encode(replace(manifest(1), complete=True)))
    assert rejection(store.find, manifest(2).context) is Rejection.FOREIGN


def test_damaged_manifest_can_be_deleted_and_written_again(tiers):
    store = tiers.store()
    tiers.manifests.put(manifest().context, np.frombuffer(b"{}", np.uint8))
    store.delete(manifest().context)
    write(store, manifest())
    assert store.find(manifest().context) is not None


def test_orphans_are_removed_when_nobody_can_be_writing_them(tiers):
    store = tiers.store()
    write(store, manifest(1), commit=False)
    write(store, manifest(2), seed=2)
    store.remove_orphans(older_than_s=100, now=1050)
    assert store.contexts() == {manifest(1).context, manifest(2).context}
    store.remove_orphans(older_than_s=100, now=1200)
    assert store.contexts() == {manifest(2).context}
    assert tiers.objects.keys() == {part.key for part in manifest(2).objects()}


def test_nothing_needs_repair_when_all_copies_are_there(tiers):
    store = tiers.store()
    write(store, manifest())
    assert store.repair() == []


def test_context_that_lost_an_object_is_named(tiers):
    store = tiers.store()
    write(store, manifest())
    tiers.objects.delete(manifest().objects()[1].key)
    assert store.repair() == [manifest().context]
