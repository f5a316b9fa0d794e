"""SQLite: one file, one process that serves, one transaction that writes at a time."""

import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from mooring.core.errors import MooringError, RegistryBusy, RegistryFailed, StorageFull

_FULL = "disk is full"  # SQLite's words for SQLITE_FULL
_BUSY = "database is locked"
_THREADS = 32  # asyncio's pool has no more
_PATIENCE_S = 10  # with another process that writes
_LOOK_AGAIN_S = 0.005
_HELD = "the registry is being written by somebody else; try again later"


class Sqlite:
    """Implements `database.Dialect`. Those of this process that write wait in line for each other."""

    is_shared = False
    insert = staticmethod(sqlite.insert)

    def __init__(self, path: Path) -> None:
        url = sa.URL.create("sqlite", database=str(path))
        pool = {} if str(path) == ":memory:" else {"pool_size": _THREADS}
        self.engine = sa.create_engine(url, **pool)
        self._line = threading.Lock()
        self._writer: sa.Connection | None = None
        sa.event.listen(self.engine, "connect", _prepare_connection)

    def begin(self, *, wait: bool) -> sa.Connection:
        if not self._line.acquire(blocking=wait):
            raise RegistryBusy(_HELD)
        try:
            if self._writer is None:
                self._writer = self.engine.connect()
            _begin(self._writer, time.monotonic() + (_PATIENCE_S if wait else 0))
            self._writer.begin()  # else it would neither commit nor roll back where nothing is executed
        except BaseException:
            self._line.release()
            raise
        return self._writer

    def end(self, connection: sa.Connection) -> None:
        try:
            connection.rollback()
        finally:
            self._line.release()

    def look(self) -> sa.Connection:
        connection = self.engine.connect()
        connection.exec_driver_sql("BEGIN")
        return connection

    def lock(self, connection: sa.Connection, name: str) -> None:
        """Who writes is alone as it is."""

    def need_not_last(self, connection: sa.Connection) -> None:
        """Nothing is gained here."""

    def prepare_migration(self, connection: sa.Connection) -> None:
        """Who writes is alone as it is."""

    def now(self, _connection: sa.Connection) -> float:
        """The file is on this machine."""
        return time.time()

    def our_error(self, error: Exception) -> MooringError:
        cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        if _FULL in str(cause):
            return StorageFull("no room on disk for the registry: free space in the data directory")
        if _BUSY in str(cause):
            return RegistryBusy(_HELD)
        return RegistryFailed(f"the registry cannot be used: {cause}")

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self.engine.dispose()


def _begin(connection: sa.Connection, patient_until: float) -> None:
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.execute("PRAGMA busy_timeout = 0")  # how long to wait for other processes is said here
    while True:
        try:
            # It takes SQLite's lock at once: what it reads from here on stays true till it writes.
            driver.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if _BUSY not in str(error) or time.monotonic() >= patient_until:
                raise
        time.sleep(_LOOK_AGAIN_S)


def _prepare_connection(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where we say, not where sqlite3 guesses
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # a commit survives a power cut
    cursor.execute(f"PRAGMA busy_timeout={1000 * _PATIENCE_S}")
    cursor.close()
