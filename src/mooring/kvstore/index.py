"""The index of the disk tier: which blocks stand where in the tree, and what is pinned. SQLite.

A row is committed after its file is there, and deleted before its file is: a row without a file, and a
file without a row, are leftovers of a crash and dropped at the next start.
"""

import contextlib
import logging
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mooring.core.errors import StartRefused

_log = logging.getLogger("mooring.kvstore")
_VERSION = 1
_NOT_ITS_FAULT = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}
"""Errors of the file system: the index itself may be whole, so it is left where it is."""
_SCHEMA = f"""
PRAGMA user_version = {_VERSION};
CREATE TABLE about (fingerprint TEXT NOT NULL);
CREATE TABLE blocks (
    key BLOB PRIMARY KEY,
    parent BLOB NOT NULL,         -- for the first block of a path, the root key of its scope
    start INTEGER NOT NULL,
    label BLOB NOT NULL,          -- its tokens, packed
    size_bytes INTEGER NOT NULL,
    last_used INTEGER NOT NULL,   -- by the policy's count, not by the clock
    uses INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE pins (prefix_id TEXT PRIMARY KEY, key BLOB NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Row:
    """A block that is on disk."""

    key: bytes
    parent: bytes
    start: int
    label: bytes
    size_bytes: int
    last_used: int
    uses: int


@dataclass(frozen=True)
class Pinned:
    """A pin, by the key of the last block of its path."""

    prefix_id: str
    key: bytes


@dataclass(frozen=True)
class Contents:
    """What a former process left."""

    rows: list[Row]
    """Parents before their children."""
    pins: list[Pinned]


class Index:
    """Opened and read by the thread that makes it, then used by the writer thread only."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        """A damaged index, or one of another model, is begun anew: what it named is computed again.

        Raises:
            StartRefused: the file system does not let it be opened.
        """
        self._path = path
        self._fingerprint = fingerprint
        try:
            self._database, self.found = self._open()
        except sqlite3.DatabaseError as error:
            if _primary_code(error) in _NOT_ITS_FAULT:
                raise StartRefused(
                    f"cannot use the index of stored KV bytes, {path}: {error}"
                ) from error
            _log.error("kv index damaged, set aside path=%s error=%s", path, error)
            self._set_aside()
            self._database, self.found = self._open()

    def forget_found(self) -> None:
        """Give back the memory of what was found, once it is used."""
        self.found = Contents([], [])

    def save(self, rows: Iterable[Row], pins: Iterable[Pinned]) -> None:
        """In one transaction, durable on return."""
        with self._database as transaction:
            transaction.executemany(
                "INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?)",
                ((r.key, r.parent, r.start, r.label, r.size_bytes, r.last_used, r.uses) for r in rows),
            )
            transaction.executemany(
                "INSERT OR REPLACE INTO pins VALUES (?, ?)", ((pin.prefix_id, pin.key) for pin in pins)
            )

    def remove(self, keys: Iterable[bytes], prefix_ids: Iterable[str]) -> None:
        with self._database as transaction:
            transaction.executemany("DELETE FROM pins WHERE prefix_id = ?", ((i,) for i in prefix_ids))
            transaction.executemany("DELETE FROM blocks WHERE key = ?", ((key,) for key in keys))

    def note_uses(self, uses: Iterable[tuple[bytes, int, int]]) -> None:
        """Key, last use and number of uses of blocks that were used since they were saved."""
        with self._database as transaction:
            transaction.executemany(
                "UPDATE blocks SET last_used = ?, uses = ? WHERE key = ?",
                ((last_used, count, key) for key, last_used, count in uses),
            )

    def close(self) -> None:
        self._database.close()

    def _open(self) -> tuple[sqlite3.Connection, Contents]:
        database = sqlite3.connect(self._path, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version not in (0, _VERSION):
                raise sqlite3.DatabaseError(f"format {version}, this program writes {_VERSION}")
            if version == 0:
                database.executescript(_SCHEMA)
            if database.execute("SELECT fingerprint FROM about").fetchall() != [(self._fingerprint,)]:
                with database:
                    for table in ("about", "blocks", "pins"):
                        database.execute(f"DELETE FROM {table}")  # noqa: S608  our own names
                    database.execute("INSERT INTO about VALUES (?)", (self._fingerprint,))
            return database, _read(database)
        except sqlite3.DatabaseError:
            database.close()
            raise

    def _set_aside(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._path.replace(self._path.with_name(f"{self._path.name}.damaged"))
        for suffix in ("-wal", "-shm"):
            self._path.with_name(f"{self._path.name}{suffix}").unlink(missing_ok=True)


def is_full(error: sqlite3.Error) -> bool:
    """Whether the database found no room on the disk."""
    return _primary_code(error) == sqlite3.SQLITE_FULL


def _read(database: sqlite3.Connection) -> Contents:
    columns = "key, parent, start, label, size_bytes, last_used, uses"
    rows = database.execute(f"SELECT {columns} FROM blocks ORDER BY start")  # noqa: S608
    pins = database.execute("SELECT prefix_id, key FROM pins")
    return Contents([Row(*row) for row in rows], [Pinned(*pin) for pin in pins])


def _primary_code(error: sqlite3.Error) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)  # absent from errors that SQLite did not make
    return None if code is None else code & 0xFF
