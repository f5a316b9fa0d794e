"""How fast this machine copies memory and reads files, in bytes a second, at the time it is asked."""

import mmap
import os
import statistics
import time
from pathlib import Path

import numpy as np

_BEYOND_CACHES_BYTES = 1 << 30
"""Copies go through so many bytes before they come back to the same: no cache of a CPU holds them."""


class Speeds:
    """Sampled between what is judged by them: a shared machine is faster at one time than at another."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self._size = size_bytes
        self._places = -(-_BEYOND_CACHES_BYTES // size_bytes)
        self._source = np.full(self._places * size_bytes, 7, np.uint8)
        self._target = np.ones_like(self._source)  # touched: page faults are not the memory's
        self._path = folder / "bandwidth.bin"
        self._path.write_bytes(os.urandom(size_bytes))
        self._buffer = mmap.mmap(-1, size_bytes)
        self._buffer.write(bytes(size_bytes))
        self._copies: list[float] = []
        self._reads: list[float] = []

    def sample(self) -> None:
        begin = len(self._copies) % self._places * self._size
        place = slice(begin, begin + self._size)
        begun = time.perf_counter()
        np.copyto(self._target[place], self._source[place])
        self._copies.append(time.perf_counter() - begun)
        drop_from_page_cache(self._path)
        begun = time.perf_counter()
        with self._path.open("rb", buffering=0) as file:
            view, done = memoryview(self._buffer), 0
            while done < self._size:
                done += file.readinto(view[done:]) or 0
            view.release()
        self._reads.append(time.perf_counter() - begun)

    @property
    def memory_bytes_per_s(self) -> float:
        """Of a single-threaded copy, the median."""
        return self._size / statistics.median(self._copies)

    @property
    def disk_bytes_per_s(self) -> float:
        """Of reading a file from start to end into memory, its page cache dropped; the median."""
        return self._size / statistics.median(self._reads)


def drop_from_page_cache(path: Path) -> None:
    """Let the next read of a file, or of every file below a folder, come from the disk."""
    files = [path] if path.is_file() else [found for found in path.rglob("*") if found.is_file()]
    for found in files:
        with found.open("rb") as file:
            os.fsync(file.fileno())  # pages that are not written yet cannot be dropped
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
