"""The store: RAM before disk, and kept means on disk."""

from contextlib import contextmanager
from threading import Event

import numpy as np
import pytest

from mooring.kvstore.disk import DiskTier
from mooring.kvstore.ram import RamTier
from mooring.kvstore.store import KvStore
from mooring.kvstore.tier import KvObject

A, B, C = "aa11", "bb22", "cc33"


@contextmanager
def open_store(root, *, ram_bytes=1 << 20):
    """A store and its two tiers; at the end, whatever was begun is finished."""
    ram, disk = RamTier(ram_bytes), DiskTier(root, "fingerprint")
    store = KvStore(ram, disk)
    try:
        yield store, ram, disk
    finally:
        store.close()


def item(value=1, size_bytes=1000):
    return KvObject(7, np.full(size_bytes, value, np.uint8))


def values(found):
    return set(found.item.payload.tolist())


def block_writes(root, key):
    """Put a file where the key's folder has to be, so that saving it fails."""
    root.mkdir(parents=True, exist_ok=True)
    (root / key[:2]).touch()


def test_store_holds_a_kept_object_in_both_tiers(tmp_path):
    with open_store(tmp_path) as (store, ram, disk):
        store.keep(A, item()).result()
        assert ram.keys() == disk.keys() == {A}


def test_store_has_a_kept_object_in_ram_at_once(tmp_path):
    with open_store(tmp_path) as (store, ram, _):
        saving = store.keep(A, item())
        assert ram.keys() == {A}
        saving.result()


def test_store_finds_in_ram_what_it_keeps(tmp_path):
    with open_store(tmp_path) as (store, _, _):
        store.keep(A, item(5)).result()
        found = store.fetch(A).result()
        assert (found.tier, found.item.tokens, values(found)) == ("ram", 7, {5})


def test_store_answers_for_ram_without_waiting(tmp_path):
    with open_store(tmp_path) as (store, _, _):
        store.keep(A, item())
        assert store.fetch(A).done()


def test_store_finds_on_disk_what_a_former_process_kept(tmp_path):
    with open_store(tmp_path) as (store, _, _):
        store.keep(A, item(5))
    with open_store(tmp_path) as (store, _, _):
        found = store.fetch(A).result()
        assert (found.tier, found.item.tokens, values(found)) == ("disk", 7, {5})


def test_store_finds_nothing_for_an_unknown_key(tmp_path):
    with open_store(tmp_path) as (store, _, _):
        assert store.fetch(A).result() is None


def test_store_promotes_a_disk_hit_to_ram(tmp_path):
    with open_store(tmp_path) as (store, _, _):
        store.keep(A, item(5))
    with open_store(tmp_path) as (store, ram, _):
        store.fetch(A).result()
    assert ram.get(A).payload.tolist() == [5] * 1000


def test_store_promotes_a_copy_that_needs_no_file(tmp_path):
    with open_store(tmp_path) as (store, _, _):
        store.keep(A, item())
    with open_store(tmp_path) as (store, ram, _):
        store.fetch(A).result()
    assert ram.get(A).payload.flags.owndata


def test_store_serves_from_disk_what_ram_cannot_hold(tmp_path):
    with open_store(tmp_path, ram_bytes=10) as (store, _, _):
        store.keep(A, item(size_bytes=11)).result()
        assert store.fetch(A).result().tier == "disk"


def test_store_finds_nothing_when_the_file_is_damaged(tmp_path):
    with open_store(tmp_path) as (store, _, _):
        store.keep(A, item())
    (file,) = tmp_path.rglob("*.kv")
    file.write_bytes(file.read_bytes()[:-1])
    with open_store(tmp_path) as (store, ram, disk):
        assert store.fetch(A).result() is None
        assert ram.keys() == disk.keys() == set()


def test_store_holds_nothing_in_ram_after_a_failed_save(tmp_path):
    block_writes(tmp_path, A)
    with open_store(tmp_path) as (store, ram, _):
        assert isinstance(store.keep(A, item()).exception(), OSError)
        assert ram.keys() == set()


def test_store_keeps_other_objects_after_a_failed_save(tmp_path):
    block_writes(tmp_path, A)
    with open_store(tmp_path) as (store, _, disk):
        assert store.keep(A, item()).exception() is not None
        store.keep(B, item()).result()
        assert disk.keys() == {B}


def test_store_forgets_in_both_tiers(tmp_path):
    with open_store(tmp_path) as (store, ram, disk):
        store.keep(A, item())
        store.forget(A).result()
        assert ram.keys() == disk.keys() == set()


def test_store_forgets_an_unknown_key_without_complaint(tmp_path):
    with open_store(tmp_path) as (store, _, _):
        assert store.forget(A).result() is None


def test_store_obeys_in_the_order_it_was_asked(tmp_path):
    with open_store(tmp_path) as (store, _, disk):
        store.keep(A, item(1))
        store.forget(A)
        store.keep(A, item(2))
        store.keep(B, item(1))
        store.forget(B)
    assert disk.keys() == {A}
    assert set(disk.get(A).payload.tolist()) == {2}


def test_store_forgets_all_but_what_is_named(tmp_path):
    with open_store(tmp_path) as (store, ram, disk):
        for key in (A, B, C):
            store.keep(key, item())
        store.forget_all_but([B]).result()
        assert ram.keys() == disk.keys() == {B}


def test_store_forgets_files_of_a_former_process(tmp_path):
    with open_store(tmp_path) as (store, _, _):
        store.keep(A, item())
        store.keep(B, item())
    with open_store(tmp_path) as (store, _, disk):
        store.forget_all_but({A, C}).result()
        assert disk.keys() == {A}


def test_store_finishes_at_its_end_what_was_begun(tmp_path):
    with open_store(tmp_path) as (store, _, disk):
        for key in (A, B, C):
            store.keep(key, item())
    assert disk.keys() == {A, B, C}


def put_folder(root, key):
    """Where the key's file should be: it cannot be read, replaced or deleted as one."""
    folder = root / key[:2] / f"{key}.kv"
    folder.mkdir(parents=True)
    return folder


def test_store_finds_again_on_disk_what_it_once_failed_to_forget(tmp_path):
    folder = put_folder(tmp_path, A)
    with open_store(tmp_path, ram_bytes=0) as (store, _, _):
        assert isinstance(store.forget(A).exception(), OSError)
        folder.rmdir()
        store.keep(A, item(5)).result()
        assert values(store.fetch(A).result()) == {5}


def test_store_finds_what_it_kept_after_it_failed_to_forget_all_others(tmp_path):
    put_folder(tmp_path, A)
    with open_store(tmp_path, ram_bytes=0) as (store, _, _):
        store.forget_all_but([B]).exception()
        store.keep(C, item(5)).result()
        assert values(store.fetch(C).result()) == {5}


def test_store_forgets_what_it_can_when_it_cannot_forget_all(tmp_path):
    keys = [f"{number:02x}" * 8 for number in range(9)]
    put_folder(tmp_path, keys[4])
    with open_store(tmp_path) as (store, _, disk):
        for key in keys:
            store.keep(key, item())
        store.forget_all_but([keys[8]]).exception()
        assert disk.keys() == {keys[4], keys[8]}


def test_store_finds_nothing_whose_deletion_it_was_asked_for(tmp_path):
    with open_store(tmp_path, ram_bytes=0) as (store, _, disk):
        go, delete = Event(), disk.delete
        disk.delete = lambda key: (go.wait(), delete(key))
        try:
            for key in (A, B, C):
                store.keep(key, item()).result()
            store.forget(A)
            store.forget_all_but([C])
            found = [store.fetch(key).result() for key in (A, B, C)]
        finally:
            go.set()
        assert [each is not None for each in found] == [False, False, True]


def test_store_remembers_a_deletion_while_it_forgets_all_others(tmp_path):
    """What is kept again and then forgotten again is not there, whatever was swept before."""
    with open_store(tmp_path, ram_bytes=0) as (store, _, disk):
        delete, second, go = disk.delete, Event(), Event()
        deleted = []

        def slow_second_delete(key):
            deleted.append(key)
            if len(deleted) == 2:
                second.set()
                go.wait()
            delete(key)

        disk.delete = slow_second_delete
        try:
            store.keep(A, item()).result()
            store.forget_all_but([C])
            store.keep(A, item())
            store.forget(A)
            second.wait()
            assert disk.holds(A)
            assert store.fetch(A).result() is None
        finally:
            go.set()


@pytest.mark.parametrize(("size_bytes", "fits"), [(1, True), (1 << 62, False)])
def test_store_sees_whether_the_disk_has_room(tmp_path, size_bytes, fits):
    with open_store(tmp_path) as (store, _, _):
        assert store.room_for(size_bytes) is fits
