"""The store: RAM before disk. Every call returns at once; slow work is a future to be polled."""

import contextlib
import logging
from collections import Counter
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import numpy as np

from mooring.kvstore.disk import DiskTier
from mooring.kvstore.ram import RamTier
from mooring.kvstore.tier import KvObject

_log = logging.getLogger("mooring.kvstore")


@dataclass(frozen=True)
class Found:
    """An object, and the name of the tier it came from."""

    item: KvObject
    tier: str


class KvStore:
    """Write-through: an object goes to RAM at once and is kept when it is on disk."""

    def __init__(self, ram: RamTier, disk: DiskTier) -> None:
        self._ram = ram
        self._disk = disk
        self._readers = ThreadPoolExecutor(2, "mooring-kv-read")
        # One writer: puts and deletes of a key happen in the order they were asked for.
        self._writer = ThreadPoolExecutor(1, "mooring-kv-write")
        self._deletions: Counter[str] = Counter()
        """How often the writer is still to delete a key's file: until then the file is not there."""
        self._counting = Lock()
        self._only: frozenset[str] | None = None
        """While the writer deletes all others: the keys whose files are there."""

    def fetch(self, key: str) -> Future[Found | None]:
        """The object from the nearest tier, verified; None when no tier has it whole."""
        item = self._ram.get(key)
        if item is not None or self._is_leaving(key):
            done: Future[Found | None] = Future()
            done.set_result(None if item is None else Found(item, "ram"))
            return done
        reading = self._readers.submit(self._read, key)
        reading.add_done_callback(lambda read: self._promote(key, read))
        return reading

    def keep(self, key: str, item: KvObject) -> Future[None]:
        """Hold an object; the future completes when it is durable, or fails with StorageFull."""
        self._ram.put(key, item)
        return self._writer.submit(self._write, key, item)

    def forget(self, key: str) -> Future[None]:
        with self._counting:
            self._deletions[key] += 1
        self._ram.delete(key)
        return self._writer.submit(self._delete_asked, key)

    def forget_all_but(self, keys: Collection[str]) -> Future[None]:
        self._only = frozenset(keys)
        return self._writer.submit(self._delete_all_but, self._only)

    def room_for(self, size_bytes: int) -> bool:
        """Whether the disk looks able to take this much; the truth shows on writing."""
        return self._disk.room_for(size_bytes)

    def close(self) -> None:
        """Finish what was begun."""
        self._readers.shutdown()
        self._writer.shutdown()

    def _read(self, key: str) -> Found | None:
        item = self._disk.get(key)
        return None if item is None else Found(item, "disk")

    def _promote(self, key: str, read: Future[Found | None]) -> None:
        """The reader has its answer; copy into RAM behind its back."""
        if read.cancelled() or read.exception() is not None or not (found := read.result()):
            return
        if self._ram.could_hold(found.item):
            with contextlib.suppress(RuntimeError):  # the store is closing
                self._readers.submit(self._copy_to_ram, key, found.item)

    def _copy_to_ram(self, key: str, item: KvObject) -> None:
        self._ram.put(key, KvObject(item.tokens, np.array(item.payload)))
        if self._is_leaving(key) or not self._disk.holds(key):
            self._ram.delete(key)  # forgotten meanwhile: RAM holds only what disk does

    def _write(self, key: str, item: KvObject) -> None:
        try:
            self._disk.put(key, item)
        except BaseException:
            self._ram.delete(key)  # so what RAM holds is on disk, or on its way there
            raise

    def _delete_asked(self, key: str) -> None:
        """One of the deletions that `forget` counted."""
        try:
            self._delete(key)
        finally:
            with self._counting:
                self._deletions[key] -= 1
                if self._deletions[key] <= 0:
                    del self._deletions[key]

    def _delete(self, key: str) -> None:
        try:
            self._disk.delete(key)
            self._ram.delete(key)  # again: a copy may have been made since
        except OSError as error:
            _log.error("kv file not deleted key=%s error=%s", key, error)
            raise

    def _delete_all_but(self, kept: frozenset[str]) -> None:
        try:
            for key in (self._ram.keys() | self._disk.keys()) - kept:
                with contextlib.suppress(OSError):  # logged; the others go nevertheless
                    self._delete(key)
        finally:
            if self._only is kept:
                self._only = None

    def _is_leaving(self, key: str) -> bool:
        """Whether the file, if there is one, is about to be deleted."""
        return key in self._deletions or (self._only is not None and key not in self._only)
