"""What the disk tier promises beyond the others: durable, verified, and honest about a full disk."""

import errno
import os
import shutil
import subprocess

import numpy as np
import pytest

from mooring.core.errors import StorageFull
from mooring.kvstore.codec import PAYLOAD_START, Rejection
from mooring.kvstore.disk import DiskTier
from mooring.kvstore.tier import KvObject

A, B = "aa" * 32, "bb" * 32
MEGABYTE = 1 << 20


def item(value=1, size_bytes=5000):
    return KvObject(7, np.full(size_bytes, value, np.uint8))


def open_tier(root, fingerprint="fingerprint"):
    """A tier, and the list of rejections it reported."""
    rejections = []
    return DiskTier(root, fingerprint, on_rejected=rejections.append), rejections


def files(root):
    return sorted(path for path in root.rglob("*") if path.is_file())


def write_one(root):
    """A folder with one object, and its file."""
    DiskTier(root, "fingerprint").put(A, item())
    (path,) = files(root)
    return path


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "a changed byte of the payload": (lambda path: flip(path, PAYLOAD_START + 99), Rejection.CORRUPT),
    "a changed last byte": (lambda path: flip(path, -1), Rejection.CORRUPT),
    "a changed byte of the description": (lambda path: flip(path, 40), Rejection.CORRUPT),
    "an older format": (lambda path: flip(path, 7), Rejection.FOREIGN),
    "a lost last byte": (lambda path: os.truncate(path, PAYLOAD_START + 4999), Rejection.TRUNCATED),
    "a lost payload": (lambda path: os.truncate(path, PAYLOAD_START), Rejection.TRUNCATED),
    "half a description": (lambda path: os.truncate(path, 100), Rejection.TRUNCATED),
    "an empty file": (lambda path: os.truncate(path, 0), Rejection.TRUNCATED),
    "bytes at the end": (lambda path: path.write_bytes(path.read_bytes() + b"x"), Rejection.TRUNCATED),
    "another kind of file": (lambda path: path.write_bytes(b"GGUF" * 2000), Rejection.FOREIGN),
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGES.values(), ids=DAMAGES)
def test_disk_rejects_a_damaged_file_counts_it_and_deletes_it(tmp_path, damage, reason):
    path = write_one(tmp_path)
    damage(path)
    tier, rejections = open_tier(tmp_path)
    assert tier.get(A) is None
    assert rejections == [reason]
    assert files(tmp_path) == []


def test_disk_rejects_an_object_of_another_model(tmp_path):
    write_one(tmp_path)
    tier, rejections = open_tier(tmp_path, "another fingerprint")
    assert tier.get(A) is None
    assert rejections == [Rejection.FOREIGN]
    assert files(tmp_path) == []


def test_disk_rejects_an_object_under_another_ones_name(tmp_path):
    path = write_one(tmp_path)
    (tmp_path / B[:2]).mkdir()
    path.rename(tmp_path / B[:2] / f"{B}.kv")
    tier, rejections = open_tier(tmp_path)
    assert tier.get(B) is None
    assert rejections == [Rejection.FOREIGN]


def test_disk_counts_a_damaged_file_once(tmp_path):
    flip(write_one(tmp_path), -1)
    tier, rejections = open_tier(tmp_path)
    assert [tier.get(A), tier.get(A)] == [None, None]
    assert len(rejections) == 1


def test_disk_reports_nothing_for_a_file_that_is_not_there(tmp_path):
    tier, rejections = open_tier(tmp_path)
    assert tier.get(A) is None
    assert rejections == []


def test_disk_holds_again_what_was_rejected(tmp_path):
    flip(write_one(tmp_path), -1)
    tier, _ = open_tier(tmp_path)
    assert tier.get(A) is None
    tier.put(A, item(2))
    assert tier.get(A).payload[0] == 2


def test_disk_finds_nothing_where_it_cannot_read(tmp_path):
    tier, rejections = open_tier(tmp_path)
    (tmp_path / A[:2] / f"{A}.kv").mkdir(parents=True)
    assert tier.get(A) is None
    assert rejections == []


def test_disk_finds_what_a_former_process_put(tmp_path):
    write_one(tmp_path)
    tier, _ = open_tier(tmp_path)
    assert tier.keys() == {A}
    assert tier.get(A).tokens == 7


def test_disk_removes_at_its_start_what_a_crash_left_unfinished(tmp_path):
    path = write_one(tmp_path)
    path.with_name(f"{A}.0123456789abcdef.tmp").write_bytes(b"half")
    open_tier(tmp_path)
    assert files(tmp_path) == [path]


def test_disk_leaves_nothing_unfinished_behind(tmp_path):
    tier, _ = open_tier(tmp_path)
    for value in range(3):
        tier.put(A, item(value))
    assert [path.suffix for path in files(tmp_path)] == [".kv"]


def test_disk_hands_out_bytes_that_cannot_be_changed(tmp_path):
    write_one(tmp_path)
    payload = open_tier(tmp_path)[0].get(A).payload
    with pytest.raises(ValueError, match="read-only"):
        payload[0] = 9


def test_disk_hands_out_bytes_that_begin_on_a_page(tmp_path):
    write_one(tmp_path)
    assert open_tier(tmp_path)[0].get(A).payload.ctypes.data % 4096 == 0


@pytest.mark.parametrize("key", ["", "../../etc/passwd", "a/b", "a.b"])
def test_disk_takes_no_key_that_could_leave_its_folder(tmp_path, key):
    with pytest.raises(AssertionError):
        open_tier(tmp_path)[0].put(key, item())


@pytest.fixture
def small_disk(tmp_path):
    """A file system of two megabytes."""
    point = tmp_path / "small"
    point.mkdir()
    try:
        command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(point)]
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"a full disk needs a small file system, and there is no mount: {error}")
    if mounted.returncode != 0:
        pytest.skip(f"a full disk needs a small file system; mount said: {mounted.stderr.strip()}")
    yield point
    subprocess.run(["umount", "--lazy", str(point)], check=True)


def free_bytes(path):
    return shutil.disk_usage(path).free


def test_full_disk_is_reported_as_such(small_disk):
    tier, _ = open_tier(small_disk)
    with pytest.raises(StorageFull, match=r"no room on disk to keep 3\.1 MB"):
        tier.put(A, item(size_bytes=3 * MEGABYTE))


def test_full_disk_is_reported_when_it_shows_only_on_writing(small_disk):
    """The payload alone would fit."""
    tier, _ = open_tier(small_disk)
    with pytest.raises(StorageFull) as caught:
        tier.put(A, item(size_bytes=free_bytes(small_disk) - 1))
    assert caught.value.__cause__.errno == errno.ENOSPC


@pytest.mark.parametrize("too_much", [0, 1, MEGABYTE])
def test_full_disk_is_left_without_a_file(small_disk, too_much):
    tier, _ = open_tier(small_disk)
    with pytest.raises(StorageFull):
        tier.put(A, item(size_bytes=free_bytes(small_disk) - 1 + too_much))
    assert files(small_disk) == []
    assert tier.keys() == set()


@pytest.mark.parametrize("too_much", [0, MEGABYTE])
def test_full_disk_keeps_the_object_that_could_not_be_overwritten(small_disk, too_much):
    tier, _ = open_tier(small_disk)
    tier.put(A, item(1, MEGABYTE))
    with pytest.raises(StorageFull):
        tier.put(A, item(2, free_bytes(small_disk) - 1 + too_much))
    assert set(tier.get(A).payload.tolist()) == {1}


def test_full_disk_takes_what_fits(small_disk):
    tier, _ = open_tier(small_disk)
    with pytest.raises(StorageFull):
        tier.put(A, item(1, 3 * MEGABYTE))
    tier.put(B, item(2, MEGABYTE))
    assert tier.keys() == {B}


def test_full_disk_has_room_again_after_a_delete(small_disk):
    tier, _ = open_tier(small_disk)
    tier.put(A, item(1, MEGABYTE))
    assert not tier.room_for(MEGABYTE)
    tier.delete(A)
    assert tier.room_for(MEGABYTE)
    tier.put(B, item(2, MEGABYTE))
    assert tier.keys() == {B}


def test_disk_leaves_its_reserve_free(small_disk):
    tier = DiskTier(small_disk, "fingerprint", reserve_bytes=MEGABYTE)
    assert not tier.room_for(MEGABYTE)
    with pytest.raises(StorageFull):
        tier.put(A, item(1, MEGABYTE))
    assert files(small_disk) == []


def test_disk_takes_what_leaves_its_reserve_free(small_disk):
    tier = DiskTier(small_disk, "fingerprint", reserve_bytes=MEGABYTE)
    tier.put(A, item(1, MEGABYTE // 2))
    assert tier.keys() == {A}
