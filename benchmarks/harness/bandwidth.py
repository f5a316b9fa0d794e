"""How fast this machine copies memory and reads files, in bytes a second, at the time it is asked."""

import mmap
import os
import statistics
import time
from pathlib import Path

import numpy as np


def memory_bandwidth(size_bytes: int, repeats: int = 7) -> float:
    """Of a single-threaded copy of so many bytes, in pages that have been touched before."""
    source = np.random.default_rng(0).integers(0, 255, size_bytes, np.uint8)
    target = np.zeros_like(source)
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        np.copyto(target, source)
        seconds.append(time.perf_counter() - begun)
    return size_bytes / statistics.median(seconds)


def disk_bandwidth(folder: Path, size_bytes: int, repeats: int = 5) -> float:
    """Of reading a file of so many bytes from start to end into memory, its page cache dropped."""
    path = folder / "bandwidth.bin"
    path.write_bytes(os.urandom(size_bytes))
    buffer = mmap.mmap(-1, size_bytes)
    buffer.write(bytes(size_bytes))  # touched: page faults are not the disk's
    seconds = []
    for _ in range(repeats):
        drop_from_page_cache(path)
        begun = time.perf_counter()
        with path.open("rb", buffering=0) as file:
            view, done = memoryview(buffer), 0
            while done < size_bytes:
                done += file.readinto(view[done:]) or 0
            view.release()
        seconds.append(time.perf_counter() - begun)
    path.unlink()
    return size_bytes / statistics.median(seconds)


def drop_from_page_cache(path: Path) -> None:
    """Let the next read of a file, or of every file below a folder, come from the disk."""
    files = [path] if path.is_file() else [found for found in path.rglob("*") if found.is_file()]
    for found in files:
        with found.open("rb") as file:
            os.fsync(file.fileno())  # pages that are not written yet cannot be dropped
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
