"""What the writer thread does: files and their rows, in the order that survives a crash.

    to save:    file whole -> renamed -> (synced) -> row committed
    to remove:  row deleted -> file unlinked

One thread, so work is done in the order it was asked for. Knows nothing of the tree.
"""

import errno
import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mooring.core.prefix import TOKEN_BYTES
from mooring.kvstore.block import Block
from mooring.kvstore.codec import Rejected, Rejection
from mooring.kvstore.disk import DiskTier, Place
from mooring.kvstore.index import Index, Pinned, Row, is_full

_log = logging.getLogger("mooring.kvstore")
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class Save:
    """A block to be written; without a payload its file is there already, to be verified and synced."""

    block: Block
    """For the owner's use: the writer reads `row` instead, as the block may change meanwhile."""
    row: Row
    payload: NDArray[np.uint8] | None


@dataclass(frozen=True)
class Work:
    """One visit of the writer: removals first, because they make room."""

    removed: Sequence[bytes] = ()
    unpinned: Sequence[str] = ()
    saves: Sequence[Save] = ()
    """Parents before their children."""
    pin: Pinned | None = None
    durable: bool = False
    uses: Sequence[tuple[bytes, int, int]] = ()
    """See `Index.note_uses`."""
    freed_bytes: int = 0
    """The sizes of the files removed, for the accounts of whoever asked."""


@dataclass
class Outcome:
    """What came of it."""

    work: Work
    saved: set[bytes] = field(default_factory=set)
    error: OSError | sqlite3.Error | Rejected | None = None
    """Why what is not in `saved` is not, and why the pin is not committed."""
    rejected: Block | None = None
    """Its file was to be synced, and was found damaged or gone."""

    @property
    def no_room(self) -> bool:
        if isinstance(self.error, OSError):
            return self.error.errno in _NO_ROOM
        return isinstance(self.error, sqlite3.Error) and is_full(self.error)


class Writer:
    """The only one that changes files and rows."""

    def __init__(self, disk: DiskTier, index: Index) -> None:
        self._disk = disk
        self._index = index
        self._owed_keys: list[bytes] = []
        self._owed_pins: list[str] = []
        """Rows that could not be deleted when they should have been."""

    def do(self, work: Work) -> Outcome:
        if work.removed or work.unpinned:
            self._remove(work)
        outcome = Outcome(work)
        if work.saves or work.pin is not None:
            self._save(work, outcome)
        if work.uses:
            self._note(work)
        return outcome

    def _remove(self, work: Work) -> None:
        self._owed_keys += work.removed
        self._owed_pins += work.unpinned
        try:
            self._index.remove(self._owed_keys, self._owed_pins)
        except sqlite3.Error as error:
            # The files go nevertheless, for their room: the next start drops rows without files.
            _log.error(
                "kv rows not deleted, to be tried again rows=%d error=%s", len(work.removed), error
            )
        else:
            self._owed_keys.clear()
            self._owed_pins.clear()
        for key in work.removed:
            self._unlink(key)

    def _save(self, work: Work, outcome: Outcome) -> None:
        """Files in order; the first that fails ends it, and those before it are kept."""
        done: list[Save] = []
        try:
            for save in work.saves:
                self._write(save, work.durable)
                done.append(save)
            if work.durable:
                self._disk.sync_folder()
        except OSError as error:
            outcome.error = error
        except Rejected as rejected:
            outcome.error, outcome.rejected = rejected, work.saves[len(done)].block
        pins = [work.pin] if work.pin is not None and outcome.error is None else []
        self._commit(done, pins, outcome)
        if outcome.error is not None:
            _log.warning(
                "kv blocks not written blocks=%d error=%s", len(work.saves) - len(done), outcome.error
            )

    def _write(self, save: Save, durable: bool) -> None:
        row = save.row
        if save.payload is None:
            if self._disk.get(row.key.hex()) is None:
                raise Rejected(Rejection.MISSING)
            self._disk.sync(row.key.hex())
        else:
            place = Place(parent=row.parent.hex(), tokens=len(row.label) // TOKEN_BYTES)
            self._disk.put(row.key.hex(), save.payload, place, sync=durable)

    def _commit(self, done: list[Save], pins: list[Pinned], outcome: Outcome) -> None:
        # Rows still owed for deletion are of keys that may be saved again here: they stay then.
        keys = {save.row.key for save in done}
        self._owed_keys = [key for key in self._owed_keys if key not in keys]
        self._owed_pins = [name for name in self._owed_pins if name not in {p.prefix_id for p in pins}]
        try:
            self._index.save([save.row for save in done], pins)
        except sqlite3.Error as error:
            outcome.error = error
            for save in done:
                if save.payload is not None:
                    self._unlink(save.row.key)
        else:
            outcome.saved = keys

    def _unlink(self, key: bytes) -> None:
        try:
            self._disk.delete(key.hex())
        except OSError as error:
            _log.error("kv file not deleted key=%s error=%s", key.hex(), error)

    def _note(self, work: Work) -> None:
        try:
            self._index.note_uses(work.uses)
        except sqlite3.Error as error:
            _log.warning("kv uses not noted error=%s", error)
