"""Opens the database, brings its tables up to date, and turns a full disk into our own error."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
import sqlalchemy as sa

from mooring.core.errors import RegistryBusy, RegistryFailed, StorageFull

_MIGRATIONS = Path(__file__).parent / "migrations"
_FULL = "disk is full"  # SQLite's words for SQLITE_FULL
_BUSY = "database is locked"
_THREADS = 32  # asyncio's pool has no more
_PATIENCE_MS = 10_000  # with another process that writes


class Database:
    """A connection pool on a migrated SQLite file. Safe from any thread.

    SQLite lets one transaction write at a time. Those of this process wait in line for each other.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file, and migrate it. Blocking.

        Raises:
            StorageFull: there is no room for it.
            RegistryFailed: it is no database, or cannot be opened.
        """
        url = sa.URL.create("sqlite", database=str(path))
        pool = {} if str(path) == ":memory:" else {"pool_size": _THREADS}
        self.engine = sa.create_engine(url, **pool)
        self._line = threading.Lock()
        self._joined = threading.local()
        sa.event.listen(self.engine, "connect", _prepare_connection)
        with self.begin() as connection:
            _migrate(connection)

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A transaction that may write: committed at the end, rolled back on any error. Blocking.

        Where this thread is in one already, a part of that one.

        Raises:
            StorageFull: the database could not grow; nothing of the transaction remains.
            RegistryBusy: another process writes for too long; the same holds.
            RegistryFailed: anything else went wrong in the database; the same holds.
        """
        outer = self._transaction
        if outer is not None:
            yield outer.connection
            return
        transaction = self.open()
        try:
            with transaction.joined() as connection:
                yield connection
        except BaseException:
            transaction.close()
            raise
        transaction.finish()

    def open(self, *, wait: bool = True) -> "Transaction":
        """A transaction in pieces, to be committed by another thread, say.

        Raises:
            RegistryBusy: somebody else writes, for too long or, if we shall not `wait`, now.
            StorageFull, RegistryFailed: as `begin` does.
        """
        if not self._line.acquire(blocking=wait):
            raise RegistryBusy(_HELD)
        try:
            return Transaction(self.engine, self._line, self._joined, wait=wait)
        except BaseException:
            self._line.release()
            raise

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A look at what is committed; in a transaction of this thread, also at what that wrote.

        Raises:
            RegistryFailed: something went wrong in the database.
        """
        outer = self._transaction
        if outer is not None:
            yield outer.connection
            return
        with _our_errors(), self.engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            yield connection

    def after_commit(self, tell: Callable[[], None]) -> None:
        """Do something when this thread's transaction is durable, and before another one begins."""
        assert self._transaction is not None
        self._transaction.committed.append(tell)

    def close(self) -> None:
        self.engine.dispose()

    @property
    def _transaction(self) -> "Transaction | None":
        return getattr(self._joined, "transaction", None)


class Transaction:
    """The one that writes now. Whoever has opened it finishes or closes it."""

    def __init__(
        self, engine: sa.Engine, line: threading.Lock, joined: threading.local, *, wait: bool
    ) -> None:
        self._line = line
        self._joined = joined
        self.committed: list[Callable[[], None]] = []
        with _our_errors():
            self.connection = engine.connect()
            try:
                self._begin(wait=wait)
            except BaseException:
                self.connection.close()
                raise

    def _begin(self, *, wait: bool) -> None:
        # It takes SQLite's lock at once: what it reads from here on stays true until it writes.
        if wait:
            self.connection.exec_driver_sql("BEGIN IMMEDIATE")
            return
        self.connection.exec_driver_sql("PRAGMA busy_timeout = 0")
        try:
            self.connection.exec_driver_sql("BEGIN IMMEDIATE")
        finally:
            self.connection.exec_driver_sql(f"PRAGMA busy_timeout = {_PATIENCE_MS}")

    @contextmanager
    def joined(self) -> Iterator[sa.Connection]:
        """What this thread does with the database in here belongs to the transaction."""
        self._joined.transaction = self
        try:
            with _our_errors():
                yield self.connection
        finally:
            self._joined.transaction = None

    def finish(self) -> None:
        """Make it durable, and close it. Blocking. Raises as `Database.begin` does."""
        try:
            with _our_errors():
                self.connection.commit()
            for tell in self.committed:
                tell()
        finally:
            self.close()

    def close(self) -> None:
        """Whatever is not committed is rolled back."""
        try:
            self.connection.close()
        finally:
            self._line.release()


_HELD = "the registry is being written by somebody else; try again later"


@contextmanager
def _our_errors() -> Iterator[None]:
    try:
        yield
    except sa.exc.DBAPIError as error:
        if _FULL in str(error.orig):
            raise StorageFull(
                "no room on disk for the registry: free space in the data directory"
            ) from error
        if _BUSY in str(error.orig):
            raise RegistryBusy(_HELD) from error
        raise RegistryFailed(f"the registry cannot be used: {error.orig}") from error


def _prepare_connection(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where we say, not where sqlite3 guesses
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # a commit survives a power cut
    cursor.execute(f"PRAGMA busy_timeout={_PATIENCE_MS}")
    cursor.close()


def _migrate(connection: sa.Connection) -> None:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    alembic.command.upgrade(config, "head")
