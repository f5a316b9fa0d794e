"""The disk tier: one file an object, durable before `put` returns, read through a memory map."""

import contextlib
import errno
import logging
import mmap
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from uuid import uuid4

import numpy as np

from mooring.core.errors import StorageFull
from mooring.kvstore import codec
from mooring.kvstore.codec import Description, Rejected, Rejection
from mooring.kvstore.tier import KvObject

_log = logging.getLogger("mooring.kvstore")
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_SUFFIX = ".kv"


class DiskTier:
    """Files under `root`, readable only by the model with this fingerprint."""

    def __init__(
        self,
        root: Path,
        fingerprint: str,
        *,
        reserve_bytes: int = 0,
        on_rejected: Callable[[Rejection], None] = lambda _: None,
    ) -> None:
        """`reserve_bytes` of the disk are never written, so that the registry still can be.

        `on_rejected` hears of every file that failed its checks; such a file is deleted.
        """
        self._root = root
        self._reserve_bytes = reserve_bytes
        self._fingerprint = fingerprint
        self._on_rejected = on_rejected
        self._renaming = Lock()
        root.mkdir(parents=True, exist_ok=True)
        _sync_directory(root.parent)
        for unfinished in root.glob("*/*.tmp"):  # a crash between write and rename
            unfinished.unlink(missing_ok=True)

    def get(self, key: str) -> KvObject | None:
        path = self._path(key)
        try:
            with path.open("rb") as file:
                inode = os.fstat(file.fileno()).st_ino
                view = _map(file.fileno())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:  # ValueError: cut short between stat and map
            _log.warning("kv file unreadable key=%s error=%s", key, error)
            return None
        try:
            description = codec.decode(memoryview(view), fingerprint=self._fingerprint, key=key)
        except Rejected as rejected:
            _log.warning("kv file rejected key=%s reason=%s", key, rejected.reason)
            self._on_rejected(rejected.reason)
            self._remove_if_still(path, inode)
            return None
        payload = np.frombuffer(view, np.uint8, offset=codec.PAYLOAD_START)  # keeps the map alive
        return KvObject(description.tokens, payload)

    def put(self, key: str, item: KvObject) -> None:
        if not self.room_for(item.size_bytes):
            raise _full(item)
        path = self._path(key)
        unfinished = path.with_name(f"{key}.{uuid4().hex}.tmp")
        description = Description(
            fingerprint=self._fingerprint,
            key=key,
            tokens=item.tokens,
            payload_bytes=item.size_bytes,
            payload_checksum=codec.checksum(item.payload.data),
        )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                file.write(codec.encode(description))
                file.write(item.payload.data)
                file.flush()
                os.fsync(file.fileno())
            with self._renaming:
                unfinished.rename(path)
            _sync_directory(path.parent)
            _sync_directory(self._root)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            if error.errno in _NO_ROOM:
                raise _full(item) from error
            raise

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def holds(self, key: str) -> bool:
        """Whether there is a file, good or bad."""
        return self._path(key).exists()

    def keys(self) -> set[str]:
        return {path.stem for path in self._root.glob(f"*/*{_SUFFIX}")}

    def room_for(self, size_bytes: int) -> bool:
        """Whether the disk looks able to take this much; the truth shows on writing."""
        try:
            return shutil.disk_usage(self._root).free - self._reserve_bytes > size_bytes
        except OSError:
            return True

    def _remove_if_still(self, path: Path, inode: int) -> None:
        """Remove a bad file, unless a good one has taken its place since it was opened."""
        with self._renaming, contextlib.suppress(OSError):
            if path.stat().st_ino == inode:
                path.unlink()

    def _path(self, key: str) -> Path:
        assert key.isalnum(), "a key is hex digits, so it never leaves the folder"
        return self._root / key[:2] / f"{key}{_SUFFIX}"


def _full(item: KvObject) -> StorageFull:
    return StorageFull(
        f"no room on disk to keep {item.size_bytes / 1e6:.1f} MB of KV state:"
        " delete caches or free space in the data directory"
    )


def _map(descriptor: int) -> mmap.mmap | bytes:
    """A read-only map of a whole file; an empty file cannot be mapped and needs no map."""
    if os.fstat(descriptor).st_size == 0:
        return b""
    view = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    view.madvise(mmap.MADV_WILLNEED)
    return view


def _sync_directory(path: Path) -> None:
    """Make a rename survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
