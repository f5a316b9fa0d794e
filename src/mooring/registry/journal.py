"""Charges that could not be written into the registry, kept on this server's disk until they are.

Each has its key, so what has been written after all, before the connection broke, is not charged twice.
"""

import json
import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mooring.core.charge import Charge, ChargeKind
from mooring.core.errors import StorageFull

_log = logging.getLogger("mooring.journal")


class Journal:
    """Blocking; safe from any thread. One bill, of several charges, is kept whole or not at all."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        """With what an earlier process has left there."""
        self._folder = folder
        self._waiting = folder / "charges.waiting"
        self._posting = folder / "charges.posting"
        self._rejected = folder / "charges.rejected"
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        _cut_torn_end(self._waiting)

    def size(self) -> int:
        """Bytes that wait."""
        return _size(self._waiting) + _size(self._posting)

    def keep(self, bill: Sequence[Charge]) -> None:
        """Returns when it is durable. Raises StorageFull: there is no room; nothing of it is kept."""
        line = json.dumps([vars(charge) for charge in bill]).encode() + b"\n"
        with self._lock:
            if self.size() + len(line) > self._most_bytes:
                raise StorageFull("too many charges wait for the registry already")
            try:
                self._append(self._waiting, line)
            except OSError as error:
                raise StorageFull("no room on disk for a charge that waits for the registry") from error

    def take(self) -> list[list[Charge]]:
        """The bills that wait, until `posted` says that they are written."""
        with self._lock:
            if not self._posting.exists() and self._waiting.exists():
                self._waiting.rename(self._posting)
            lines = self._posting.read_bytes().splitlines() if self._posting.exists() else []
        return [bill for line in lines if (bill := self._read(line)) is not None]

    def posted(self) -> None:
        """What was taken is in the ledger, or rejected."""
        with self._lock:
            self._posting.unlink(missing_ok=True)
            _sync_folder(self._folder)

    def reject(self, bill: Sequence[Charge]) -> None:
        """The ledger will never take this one: put it where somebody finds it."""
        self._put_aside(json.dumps([vars(charge) for charge in bill]).encode())

    def _read(self, line: bytes) -> list[Charge] | None:
        try:
            return [_charge(values) for values in json.loads(line)]
        except (ValueError, TypeError, KeyError):
            self._put_aside(line)
            return None

    def _put_aside(self, line: bytes) -> None:
        _log.error("charge rejected file=%s", self._rejected)
        with self._lock:
            self._append(self._rejected, line + b"\n")

    def _append(self, path: Path, line: bytes) -> None:
        new = not path.exists()
        with path.open("ab") as file:
            end = file.tell()
            try:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), end)
                raise
        if new:
            _sync_folder(self._folder)


def _charge(values: dict[str, Any]) -> Charge:
    return Charge(**values | {"kind": ChargeKind(values["kind"])})


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _cut_torn_end(path: Path) -> None:
    """A crash came in between: whoever it was for has not heard that it was kept."""
    if not path.exists():
        return
    whole = path.read_bytes().rpartition(b"\n")
    os.truncate(path, len(whole[0]) + len(whole[1]))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
