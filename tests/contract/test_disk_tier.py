"""What the disk tier promises beyond the others: verified, whole or not at all, honest when full."""

import errno
import os
import shutil
import subprocess

import numpy as np
import pytest

from mooring.kvstore.codec import PAYLOAD_START, Rejected, Rejection
from mooring.kvstore.disk import DiskTier, Place

A, B = "aa" * 16, "bb" * 16
MEGABYTE = 1 << 20


def item(value=1, size_bytes=5000):
    return np.full(size_bytes, value, np.uint8)


def files(root):
    return sorted(path for path in root.rglob("*") if path.is_file())


def write_one(root):
    """A folder with one block, and its file."""
    DiskTier(root, "fingerprint").put(A, item())
    (path,) = files(root)
    return path


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def rejection(tier, key=A):
    with pytest.raises(Rejected) as caught:
        tier.get(key)
    return caught.value.reason


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
def test_disk_rejects_a_damaged_file_with_the_reason(tmp_path, damage, reason):
    damage(write_one(tmp_path))
    assert rejection(DiskTier(tmp_path, "fingerprint")) is reason


def test_disk_rejects_a_block_of_another_model(tmp_path):
    write_one(tmp_path)
    assert rejection(DiskTier(tmp_path, "another fingerprint")) is Rejection.FOREIGN


def test_disk_rejects_a_block_under_another_ones_name(tmp_path):
    path = write_one(tmp_path)
    path.rename(tmp_path / f"{B}.kv")
    assert rejection(DiskTier(tmp_path, "fingerprint"), B) is Rejection.FOREIGN


def test_disk_rejects_what_it_cannot_read(tmp_path):
    tier = DiskTier(tmp_path, "fingerprint")
    (tmp_path / f"{A}.kv").mkdir()
    assert rejection(tier) is Rejection.UNREADABLE


def test_disk_writes_anew_what_was_rejected(tmp_path):
    flip(write_one(tmp_path), -1)
    tier = DiskTier(tmp_path, "fingerprint")
    tier.put(A, item(2))
    assert tier.get(A)[0] == 2


def test_disk_finds_what_a_former_process_put(tmp_path):
    write_one(tmp_path)
    tier = DiskTier(tmp_path, "fingerprint")
    assert tier.keys() == {A}
    assert tier.get(A).tolist() == [1] * 5000


@pytest.mark.parametrize("sync", [False, True])
def test_disk_reads_the_same_synced_or_not(tmp_path, sync):
    tier = DiskTier(tmp_path, "fingerprint")
    tier.put(A, item(3), Place(parent=B, tokens=256), sync=sync)
    tier.sync(A)
    tier.sync_folder()
    assert tier.get(A).tolist() == [3] * 5000


def test_disk_removes_what_a_crash_left_unfinished(tmp_path):
    path = write_one(tmp_path)
    path.with_suffix(".tmp").write_bytes(b"half")
    DiskTier(tmp_path, "fingerprint").remove_unfinished()
    assert files(tmp_path) == [path]


def test_disk_does_not_list_what_is_unfinished(tmp_path):
    (tmp_path / f"{A}.tmp").write_bytes(b"half")
    assert DiskTier(tmp_path, "fingerprint").keys() == set()


def test_disk_hands_out_bytes_that_begin_on_a_page(tmp_path):
    write_one(tmp_path)
    assert DiskTier(tmp_path, "fingerprint").get(A).ctypes.data % 4096 == 0


@pytest.mark.parametrize("key", ["", "../../etc/passwd", "a/b", "a.b"])
def test_disk_takes_no_key_that_could_leave_its_folder(tmp_path, key):
    with pytest.raises(AssertionError):
        DiskTier(tmp_path, "fingerprint").put(key, item())


def test_disk_notices_a_short_write(tmp_path, monkeypatch):
    tier = DiskTier(tmp_path, "fingerprint")
    whole = os.fstat

    def short(descriptor):
        os.ftruncate(descriptor, PAYLOAD_START + 4000)
        return whole(descriptor)

    monkeypatch.setattr(os, "fstat", short)
    with pytest.raises(OSError, match="only 8096 bytes were written"):
        tier.put(A, item())
    monkeypatch.undo()
    assert files(tmp_path) == []


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


@pytest.mark.parametrize("too_much", [0, 1, MEGABYTE])
def test_full_disk_is_told_and_left_without_a_file(small_disk, too_much):
    tier = DiskTier(small_disk, "fingerprint")
    with pytest.raises(OSError) as caught:  # noqa: PT011  the number tells
        tier.put(A, item(size_bytes=free_bytes(small_disk) - 1 + too_much))
    assert caught.value.errno == errno.ENOSPC
    assert files(small_disk) == []
    assert tier.keys() == set()


def test_full_disk_keeps_the_payload_that_could_not_be_overwritten(small_disk):
    tier = DiskTier(small_disk, "fingerprint")
    tier.put(A, item(1, MEGABYTE))
    with pytest.raises(OSError):  # noqa: PT011
        tier.put(A, item(2, free_bytes(small_disk)))
    assert set(tier.get(A).tolist()) == {1}


def test_full_disk_takes_what_fits(small_disk):
    tier = DiskTier(small_disk, "fingerprint")
    with pytest.raises(OSError):  # noqa: PT011
        tier.put(A, item(1, 3 * MEGABYTE))
    tier.put(B, item(2, MEGABYTE))
    assert tier.keys() == {B}


def test_disk_tells_what_is_free(small_disk):
    tier = DiskTier(small_disk, "fingerprint")
    before = tier.free_bytes()
    tier.put(A, item(1, MEGABYTE))
    assert before - tier.free_bytes() >= MEGABYTE
    tier.delete(A)
    assert tier.free_bytes() == before
