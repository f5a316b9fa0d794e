"""Faults at each I/O of the store: what comes back is right or nothing, and what is kept is kept."""

import contextlib
import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from small_store import FILE, SIZE, SmallStore, payload_of, tokens_of

from mooring.core.errors import EngineFailed, StartRefused, StorageFull
from mooring.kvstore.codec import PAYLOAD_START, Rejection
from mooring.kvstore.disk import DiskTier
from mooring.kvstore.index import Index

PATH = tokens_of(*range(14))  # three full blocks and a tail
OTHER = tokens_of(*range(8), 99, 99, 99, 99)  # shares two of them
SUPPORT = Path(__file__).parents[1] / "support"


def keep(root, *paths, **config):
    """A former process that kept these."""
    with SmallStore(root, **config) as small:
        for number, path in enumerate(paths):
            small.add(path)
            assert small.pin(path, f"p{number}") is None


def file_of(small, path):
    """The file of the block at the end of a held path."""
    return small.files / f"{small.store.match('tenant', path).blocks[-1].key}.kv"


def rewrite(path, change):
    data = bytearray(path.read_bytes())
    path.unlink()
    path.write_bytes(bytes(change(data)))


def flip(at):
    def change(data):
        data[at] ^= 1
        return data

    return lambda path: rewrite(path, change)


DAMAGES = {
    "a flipped bit in the payload": (flip(PAYLOAD_START + 7), Rejection.CORRUPT),
    "a flipped bit in the description": (flip(60), Rejection.CORRUPT),
    "half of it": (lambda path: rewrite(path, lambda data: data[: len(data) // 2]), Rejection.TRUNCATED),
    "nothing": (lambda path: rewrite(path, lambda _: b""), Rejection.TRUNCATED),
    "something else": (lambda path: path.write_bytes(b"GIF89a" * 2000), Rejection.FOREIGN),
    "no file": (lambda path: path.unlink(), Rejection.MISSING),
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGES.values(), ids=DAMAGES)
def test_a_bad_file_is_counted_and_takes_everything_below_it_along(tmp_path, damage, reason):
    keep(tmp_path, PATH, OTHER)
    with SmallStore(tmp_path) as small:
        damage(file_of(small, PATH[:48]))  # the third block, which only PATH has
        tiers = small.read(PATH)
        assert tiers == ["disk", "disk", "none", "disk"]
        assert small.rejected == [reason]
        assert small.matched(PATH) == 8
        assert not small.store.kept("p0")
        assert small.store.kept("p1")
        assert "none" not in small.read(OTHER)
        small.settle()
        small.add(PATH)
        assert small.pin(PATH, "p0") is None
    with SmallStore(tmp_path) as small:
        assert small.store.kept("p0")
        assert small.read(PATH) == ["disk"] * 4


def test_another_blocks_file_is_not_taken_for_ones_own(tmp_path):
    keep(tmp_path, PATH)
    with SmallStore(tmp_path) as small:
        shutil.copy(file_of(small, PATH[:16]), file_of(small, PATH[:32]))
        assert small.read(PATH)[:2] == ["disk", "none"]
        assert small.rejected == [Rejection.FOREIGN]


def test_a_read_error_loses_the_block_and_no_other(tmp_path, monkeypatch):
    keep(tmp_path, PATH, OTHER)
    with SmallStore(tmp_path) as small:
        bad = file_of(small, OTHER).stem
        real_open = type(small.files).open

        def open_failing(path, *mode):
            if path.stem == bad:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real_open(path, *mode)

        monkeypatch.setattr(type(small.files), "open", open_failing)
        assert small.read(OTHER) == ["disk", "disk", "none"]
        assert small.rejected == [Rejection.UNREADABLE]
        monkeypatch.undo()
        assert "none" not in small.read(PATH)


def test_a_damaged_spill_is_noticed_before_it_is_pinned(tmp_path):
    with SmallStore(tmp_path, ram_bytes=0) as small:
        small.add(PATH)
        small.settle()
        flip(PAYLOAD_START)(file_of(small, PATH[:32]))
        assert isinstance(small.pin(PATH), EngineFailed)
        assert small.rejected == [Rejection.CORRUPT]
        assert small.matched(PATH) == 4
        small.add(PATH)
        assert small.pin(PATH) is None
        assert small.read(PATH).count("none") == 0


def test_a_spill_of_a_former_process_is_verified_before_it_is_pinned(tmp_path):
    with SmallStore(tmp_path, ram_bytes=0) as small:
        small.add(PATH)
        small.settle()
    with SmallStore(tmp_path) as small:
        flip(PAYLOAD_START)(file_of(small, PATH[:32]))
        assert isinstance(small.pin(PATH), EngineFailed)
        assert small.rejected == [Rejection.CORRUPT]


def test_a_block_that_was_lost_and_kept_again_at_once_is_not_removed(tmp_path):
    """The writer is busy: the removal of the bad file waits, and goes before the new one is written."""
    keep(tmp_path, PATH)
    with SmallStore(tmp_path) as small:
        small.settle()
        flip(PAYLOAD_START)(file_of(small, PATH[:16]))
        small.add(tokens_of(7, 7, 7, 7))
        small.store.pin("busy", "tenant", tokens_of(7, 7, 7, 7))
        small.store.fetch(small.store.match("tenant", PATH).blocks)
        small.hands.readers.run()
        small.store.poll()
        assert small.rejected == [Rejection.CORRUPT]
        small.add(PATH)
        assert small.pin(PATH, "again") is None
    with SmallStore(tmp_path) as small:
        assert small.store.kept("again")
        assert small.read(PATH) == ["disk"] * 4


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("failing", range(4))
def test_a_pin_that_cannot_be_written_is_undone(tmp_path, monkeypatch, number, failing):
    put, calls = DiskTier.put, []

    def fail(disk, key, payload, *rest, **options):
        calls.append(key)
        if len(calls) > failing:
            raise OSError(number, os.strerror(number))
        put(disk, key, payload, *rest, **options)

    with SmallStore(tmp_path) as small:
        small.add(PATH)
        monkeypatch.setattr(DiskTier, "put", fail)
        error = small.pin(PATH)
        assert isinstance(error, EngineFailed if number == errno.EIO else StorageFull)
        assert not small.store.kept("p")
        assert not small.store.keeping("p")
        assert small.store.pinned_bytes == 0
        assert small.read(PATH) == ["ram"] * 4
        monkeypatch.undo()
        assert small.pin(PATH) is None
    with SmallStore(tmp_path) as small:
        assert small.read(PATH) == ["disk"] * 4


@pytest.mark.parametrize("failing", range(4))
def test_a_spill_that_cannot_be_written_loses_blocks_and_nothing_else(tmp_path, monkeypatch, failing):
    put, calls = DiskTier.put, []

    def fail(disk, key, payload, *rest, **options):
        calls.append(key)
        if len(calls) > failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        put(disk, key, payload, *rest, **options)

    monkeypatch.setattr(DiskTier, "put", fail)
    with SmallStore(tmp_path, ram_bytes=0) as small:
        small.add(PATH)
        small.settle()
        assert small.matched(PATH) == 4 * failing
        assert small.read(PATH) == ["disk"] * failing
        assert small.store.disk_bytes == failing * FILE
        assert small.store.ram_bytes == 0
        monkeypatch.undo()
        small.add(PATH)
        small.settle()
        assert small.matched(PATH) == 14


def test_a_block_is_not_kept_on_disk_without_the_one_before_it(tmp_path, monkeypatch):
    """The first write fails, and a second one, of a child, was asked for meanwhile."""
    put, calls = DiskTier.put, []

    def fail_once(disk, key, payload, *rest, **options):
        calls.append(key)
        if len(calls) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        put(disk, key, payload, *rest, **options)

    first = tokens_of(1, 1, 1, 1)
    monkeypatch.setattr(DiskTier, "put", fail_once)
    with SmallStore(tmp_path, ram_bytes=2 * SIZE) as small:
        small.settle()
        for number in range(3):
            small.add(first + tokens_of(*[number] * 4))
            small.store.poll()
        small.settle()
        assert len(calls) == 2
        assert small.names() == set()
        assert small.read(first) == ["ram"]
        assert [small.matched(first + tokens_of(*[n] * 4)) for n in range(3)] == [4, 4, 8]


@pytest.mark.parametrize("method", ["sync_folder", "sync"])
def test_a_pin_that_cannot_be_synced_is_undone(tmp_path, monkeypatch, method):
    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with SmallStore(tmp_path, ram_bytes=0) as small:
        small.add(PATH)
        small.settle()
        monkeypatch.setattr(DiskTier, method, fail)
        assert isinstance(small.pin(PATH), EngineFailed)
        assert not small.store.kept("p")
        monkeypatch.undo()
        assert small.pin(PATH) is None
        assert small.store.kept("p")


def test_rows_that_cannot_be_committed_leave_no_files(tmp_path, monkeypatch):
    def fail(*_):
        raise sqlite3.OperationalError("disk I/O error")

    with SmallStore(tmp_path) as small:
        small.add(PATH)
        monkeypatch.setattr(Index, "save", fail)
        assert isinstance(small.pin(PATH), EngineFailed)
        small.settle()
        assert small.names() == set()
        assert small.store.disk_bytes == 0
        assert small.read(PATH) == ["ram"] * 4


def test_rows_that_cannot_be_deleted_are_deleted_later(tmp_path, monkeypatch):
    def fail(*_):
        raise sqlite3.OperationalError("disk I/O error")

    with SmallStore(tmp_path) as small:
        small.add(PATH)
        assert small.pin(PATH) is None
        monkeypatch.setattr(Index, "remove", fail)
        small.store.release("p")
        small.settle()
        assert small.names() == set()
        monkeypatch.undo()
        small.add(PATH)
        assert small.pin(PATH, "q") is None
        small.store.release("nobody's")
    with SmallStore(tmp_path) as small:
        assert small.store.kept("q")
        assert small.read(PATH) == ["disk"] * 4


def test_files_that_cannot_be_deleted_are_gone_after_a_restart(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with SmallStore(tmp_path) as small:
        small.add(PATH)
        assert small.pin(PATH) is None
        monkeypatch.setattr(DiskTier, "delete", fail)
        small.store.release("p")
        small.settle()
        assert small.store.blocks == 0
        assert len(small.names()) == 4
        monkeypatch.undo()
    with SmallStore(tmp_path) as small:
        small.settle()
        assert small.names() == set()


class Killed(BaseException):
    """The process ended here."""


STEPS = ((DiskTier, "put"), (DiskTier, "sync_folder"), (Index, "save"))
OF_A_PIN = 4  # two files, the folder, the rows


@pytest.mark.parametrize("done", range(OF_A_PIN + 1))
def test_a_kill_at_any_point_of_a_pin_keeps_all_of_it_or_none(tmp_path, monkeypatch, done):
    steps = []

    def counted(method):
        def step(*args, **options):
            if len(steps) == done:
                raise Killed
            steps.append(method)
            return method(*args, **options)

        return step

    small = SmallStore(tmp_path)
    small.add(OTHER)
    assert small.pin(OTHER, "before") is None
    small.add(PATH)
    for owner, name in STEPS:
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
    small.store.pin("p", "tenant", PATH)
    small.hands.run()
    monkeypatch.undo()
    left = tmp_path.with_name(f"{tmp_path.name}-left")
    shutil.copytree(tmp_path, left)
    small.store._index.close()
    assert len(steps) == done
    with SmallStore(left) as after:
        assert after.store.kept("before")
        assert after.store.kept("p") == (done == OF_A_PIN)
        assert "none" not in after.read(OTHER)
        assert "none" not in after.read(PATH)
        after.settle()
        assert after.names() == {f"{block.key}.kv" for block in after.store._tree}


@pytest.mark.parametrize("done", range(5))
def test_a_kill_at_any_point_of_a_release_leaves_no_row_without_file_in_use(tmp_path, monkeypatch, done):
    steps = []

    def counted(method):
        def step(*args):
            if len(steps) == done:
                raise Killed
            steps.append(method)
            return method(*args)

        return step

    small = SmallStore(tmp_path)
    small.add(PATH)
    assert small.pin(PATH) is None
    for owner, name in ((Index, "remove"), (DiskTier, "delete")):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
    small.store.release("p")
    small.hands.run()
    monkeypatch.undo()
    left = tmp_path.with_name(f"{tmp_path.name}-left")
    shutil.copytree(tmp_path, left)
    small.store._index.close()
    assert len(steps) == done
    with SmallStore(left) as after:
        assert after.store.kept("p") == (done == 0)
        after.settle()
        assert after.read(PATH) == (["disk"] * 4 if done == 0 else [])
        assert after.names() == {f"{block.key}.kv" for block in after.store._tree}


def test_a_file_without_a_row_is_dropped_at_start(tmp_path):
    keep(tmp_path, PATH)
    DiskTier(tmp_path / "blocks", "fingerprint").put("ab" * 16, payload_of("tenant", PATH))
    with SmallStore(tmp_path) as small:
        small.settle()
        assert len(small.names()) == 4
        assert small.store.kept("p0")


def test_a_row_without_a_file_is_dropped_at_start_with_what_is_below_it(tmp_path):
    keep(tmp_path, PATH, OTHER)
    with SmallStore(tmp_path) as small:
        file_of(small, PATH[:48]).unlink()
    with SmallStore(tmp_path) as small:
        assert small.matched(PATH) == 8
        assert [small.store.kept(name) for name in ("p0", "p1")] == [False, True]
        small.settle()
        assert len(small.names()) == 3
        assert small.rejected == []


def test_somebody_elses_files_are_left_alone(tmp_path):
    keep(tmp_path, PATH)
    for name in ("notes.kv", "abcd.kv", "README"):
        (tmp_path / "blocks" / name).write_text("mine")
    with SmallStore(tmp_path) as small:
        small.settle()
        assert len(small.names()) == 4 + 3


INDEX_DAMAGES = {
    "not a database": lambda path: path.write_bytes(b"no database" * 1000),
    "an empty file": lambda path: path.write_bytes(b""),
    "half of it": lambda path: os.truncate(path, path.stat().st_size // 2),
    "a page of noise": lambda path: rewrite(
        path, lambda data: data[:4096] + b"\xa5" * 4096 + data[8192:]
    ),
    "no file": lambda path: path.unlink(),
    "another program's": lambda path: (
        path.unlink(),
        sqlite3.connect(path).execute("CREATE TABLE x (y)"),
    ),
}


@pytest.mark.parametrize("damage", INDEX_DAMAGES.values(), ids=INDEX_DAMAGES)
def test_a_damaged_index_is_begun_anew(tmp_path, damage):
    keep(tmp_path, PATH)
    damage(tmp_path / "index.sqlite3")
    with SmallStore(tmp_path) as small:
        small.settle()
        assert "none" not in small.read(PATH)
        assert small.names() == {f"{block.key}.kv" for block in small.store._tree}
        small.add(PATH)
        assert small.pin(PATH, "again") is None
    with SmallStore(tmp_path) as small:
        assert small.store.kept("again")
        assert small.read(PATH) == ["disk"] * 4


def test_a_row_whose_tokens_changed_is_dropped(tmp_path):
    keep(tmp_path, PATH)
    with sqlite3.connect(tmp_path / "index.sqlite3") as database:
        database.execute("UPDATE blocks SET label = ? WHERE start = 8", (tokens_of(8, 9, 10, 12),))
    database.close()
    with SmallStore(tmp_path) as small:
        assert small.matched(tokens_of(*range(8), 8, 9, 10, 12)) == 8
        assert not small.store.kept("p0")


def test_a_row_of_nonsense_is_dropped(tmp_path):
    keep(tmp_path, PATH)
    with sqlite3.connect(tmp_path / "index.sqlite3") as database:
        database.execute("UPDATE blocks SET parent = 'text', uses = 'many' WHERE start = 4")
        database.execute("INSERT INTO pins VALUES ('ghost', x'00')")
    database.close()
    with SmallStore(tmp_path) as small:
        assert small.matched(PATH) == 4
        assert not small.store.kept("ghost")


def test_an_index_that_cannot_be_opened_stops_the_start_and_stays(tmp_path):
    keep(tmp_path, PATH)
    index = tmp_path / "index.sqlite3"
    saved = tmp_path.with_name(f"{tmp_path.name}-saved")
    index.rename(saved)
    index.mkdir()
    with pytest.raises(StartRefused, match="cannot use the index"):
        SmallStore(tmp_path)
    index.rmdir()
    saved.rename(index)
    with SmallStore(tmp_path) as small:
        assert small.store.kept("p0")


def test_a_slow_disk_holds_nothing_up(tmp_path, monkeypatch):
    """While every file operation hangs, the decode thread goes on; then all of it arrives."""
    keep(tmp_path, PATH)
    go = threading.Event()
    for name in ("get", "put", "delete"):
        method = getattr(DiskTier, name)
        monkeypatch.setattr(
            DiskTier,
            name,
            lambda *args, method=method, **options: (go.wait(), method(*args, **options))[1],
        )
    woken = threading.Event()
    with SmallStore(tmp_path, threads=ThreadPoolExecutor) as small:
        small._wake = woken.set
        small.store._answers._wake = woken.set
        fetch = small.store.fetch(small.store.match("tenant", PATH).blocks)
        small.add(OTHER)
        pinned = small.store.pin("other", "tenant", OTHER)
        small.store.release("p0")
        for _ in range(10):
            small.store.poll()
            small.store.check()
        assert not fetch.done()
        assert not pinned.done()
        assert small.matched(OTHER) == 12
        go.set()
        while not (fetch.done() and pinned.done()):
            assert woken.wait(30)
            woken.clear()
            small.store.poll()
            small.store.check()
        assert pinned.result() is None
        assert small.store.kept("other")


def test_real_threads_keep_and_return_everything(tmp_path):
    paths = [tokens_of(*[number] * 4, *range(number, number + 9)) for number in range(30)]
    woken = threading.Event()
    with SmallStore(tmp_path, threads=ThreadPoolExecutor, ram_bytes=10 * SIZE) as small:
        small.store._answers._wake = woken.set
        pins = []
        for number, path in enumerate(paths):
            small.add(path)
            pins.append(small.store.pin(f"p{number}", "tenant", path))
            small.store.poll()
        while not all(pin.done() for pin in pins):
            assert woken.wait(30)
            woken.clear()
            small.store.poll()
            small.store.check()
        assert [pin.exception() for pin in pins] == [None] * 30
        fetches = [small.store.fetch(small.store.match("tenant", path).blocks) for path in paths]
        while not all(fetch.done() for fetch in fetches):
            assert woken.wait(30)
            woken.clear()
            small.store.poll()
    assert wait(pins).not_done == set()
    with SmallStore(tmp_path) as small:
        assert all(small.read(path) == ["disk"] * 4 for path in paths)


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of one megabyte."""
    point = tmp_path / "small"
    point.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(point)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"a full disk needs a small file system, and there is no mount: {error}")
    if mounted.returncode != 0:
        pytest.skip(f"a full disk needs a small file system; mount said: {mounted.stderr.strip()}")
    yield point
    subprocess.run(["umount", "--lazy", str(point)], check=True)


def numbered(number):
    return tokens_of(number, *range(13))


@pytest.mark.parametrize("reserve", [0, 200_000])
def test_a_full_disk_refuses_pins_keeps_the_old_and_takes_new_ones_after_a_release(small_disk, reserve):
    kept = []
    with SmallStore(small_disk, disk_reserve_bytes=reserve) as small:
        while True:
            small.add(numbered(len(kept)))
            error = small.pin(numbered(len(kept)), f"p{len(kept)}")
            if error is not None:
                break
            kept.append(numbered(len(kept)))
        assert isinstance(error, StorageFull)
        assert len(kept) > 5
        small.store.release("p0")
        small.store.release("p1")
        small.settle()
        small.add(numbered(99))
        assert small.pin(numbered(99), "p99") is None
    with SmallStore(small_disk, disk_reserve_bytes=reserve) as small:
        for path in [*kept[2:], numbered(99)]:
            assert small.read(path) == ["disk"] * 4


def test_a_disk_that_others_fill_loses_automatic_blocks_only(small_disk):
    with SmallStore(small_disk, ram_bytes=0) as small:
        small.add(PATH)
        assert small.pin(PATH) is None
        filler = small_disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", 0) as file:
            while file.write(b"x" * 4096):
                pass
        for number in range(5):
            small.add(numbered(100 + number))
            small.settle()
        assert small.read(PATH) == ["disk"] * 4
        filler.unlink()
        small.add(numbered(7))
        assert small.pin(numbered(7), "q") is None


VICTIM = """
import sys
from pathlib import Path
from concurrent.futures import ThreadPoolExecutor
from small_store import SmallStore, tokens_of

small = SmallStore(Path(sys.argv[1]), threads=ThreadPoolExecutor, ram_bytes=20_000, checking=False)
number = int(sys.argv[2])
waiting = {}
while True:
    number += 1
    small.add(tokens_of(number, *range(13)))
    waiting[number] = small.store.pin(f"p{number}", "tenant", tokens_of(number, *range(13)))
    if number % 5 == 0:
        small.store.release(f"p{number - 4}")
        waiting.pop(number - 4, None)
    small.store.poll()
    for done in [n for n, future in waiting.items() if future.done()]:
        if waiting.pop(done).exception() is None:
            print(done, flush=True)
"""


def test_what_was_kept_is_there_after_any_kill(tmp_path):
    """A real process, killed in the middle of its work; every pin that it was told of stands."""
    told, released = set(), set()
    for round_number in range(4):
        first = round_number * 100_000
        victim = subprocess.Popen(
            [sys.executable, "-c", VICTIM, str(tmp_path), str(first)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(SUPPORT)},
            text=True,
        )
        for _ in range(15 + 7 * round_number):
            told.add(int(victim.stdout.readline()))
        victim.kill()
        told |= {int(line) for line in victim.stdout if line.endswith("\n")}
        victim.stdout.close()
        victim.wait()
        released |= {number for number in range(first, first + 100_000) if number % 5 == 1}
        with SmallStore(tmp_path, ram_bytes=0, checking=False) as small:
            small.store.check()
            for number in told - released:
                assert small.store.kept(f"p{number}")
                assert small.read(numbered(number)) == ["disk"] * 4
            assert small.rejected == []
            small.settle()
            assert small.names() == {f"{block.key}.kv" for block in small.store._tree}
