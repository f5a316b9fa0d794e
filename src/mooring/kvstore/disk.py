"""The disk tier: one file a block, written to a temporary name and renamed, read through a memory map.

Pure file work, called from the I/O threads. It knows nothing of budgets or of the index.
"""

import contextlib
import errno
import mmap
import os
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mooring.kvstore import codec
from mooring.kvstore.codec import Description, Rejected, Rejection

_SUFFIX, _UNFINISHED = ".kv", ".tmp"


@dataclass(frozen=True)
class Place:
    """Where in the tree a block stands; its file says so too."""

    parent: str = ""
    tokens: int = 0


class DiskTier:
    """Files in `folder`, readable only by the model with this fingerprint."""

    def __init__(self, folder: Path, fingerprint: str, *, mapped: bool = True) -> None:
        """`mapped=False` reads files instead of mapping them."""
        self._folder = folder
        self._fingerprint = fingerprint
        self._open = _map if mapped else _read
        folder.mkdir(parents=True, exist_ok=True)
        _sync_path(folder.parent)

    def get(self, key: str) -> NDArray[np.uint8] | None:
        """The payload, verified: a read-only view of the file.

        Raises:
            Rejected: the file is damaged, foreign, or cannot be read.
        """
        try:
            with self._path(key).open("rb") as file:
                view = self._open(file.fileno())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:  # ValueError: cut short between stat and map
            raise Rejected(Rejection.UNREADABLE) from error
        codec.decode(memoryview(view), fingerprint=self._fingerprint, key=key)
        return np.frombuffer(view, np.uint8, offset=codec.PAYLOAD_START)  # keeps the map alive

    def put(
        self, key: str, payload: NDArray[np.uint8], place: Place = Place(), *, sync: bool = False
    ) -> None:
        """Write the file whole or not at all; `sync` makes its bytes survive a power cut.

        Its name survives one after `sync_folder`.
        """
        path = self._path(key)
        unfinished = path.with_suffix(
            f".{secrets.token_hex(4)}{_UNFINISHED}"
        )  # others may write it, too
        description = Description(
            fingerprint=self._fingerprint,
            key=key,
            parent=place.parent,
            tokens=place.tokens,
            payload_bytes=payload.nbytes,
            payload_checksum=codec.checksum(payload.data),
        )
        try:
            with unfinished.open("wb") as file:
                file.write(codec.encode(description))
                file.write(payload.data)
                file.flush()
                written = os.fstat(file.fileno()).st_size
                if written != codec.PAYLOAD_START + payload.nbytes:
                    raise OSError(errno.EIO, f"only {written} bytes were written", str(unfinished))
                if sync:
                    os.fsync(file.fileno())
            unfinished.rename(path)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise

    def sync(self, key: str) -> None:
        """Make a file that was put without `sync` survive a power cut."""
        _sync_path(self._path(key))

    def sync_folder(self) -> None:
        """Make the names of what was put survive a power cut."""
        _sync_path(self._folder)

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def has(self, key: str) -> bool:
        return self._path(key).exists()

    def keys(self) -> set[str]:
        with os.scandir(self._folder) as entries:
            return {Path(entry.name).stem for entry in entries if entry.name.endswith(_SUFFIX)}

    def remove_unfinished(self, older_than_s: float = 0.0) -> None:
        """What a crash between write and rename left behind."""
        newest = time.time() - older_than_s
        for path in self._folder.glob(f"*{_UNFINISHED}"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime <= newest:
                    path.unlink()

    def free_bytes(self) -> int:
        """What the file system says; it is asked in microseconds."""
        return shutil.disk_usage(self._folder).free

    def _path(self, key: str) -> Path:
        assert key.isalnum(), "a key is hex digits, so it never leaves the folder"
        return self._folder / f"{key}{_SUFFIX}"


def _map(descriptor: int) -> mmap.mmap | bytes:
    """A read-only map of a whole file; an empty file cannot be mapped and needs no map."""
    if os.fstat(descriptor).st_size == 0:
        return b""
    view = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    view.madvise(mmap.MADV_WILLNEED)
    return view


def _read(descriptor: int) -> bytes:
    """A whole file, however it grows or shrinks meanwhile: what it says of itself is checked."""
    with os.fdopen(os.dup(descriptor), "rb") as file:
        return file.read()


def _sync_path(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
