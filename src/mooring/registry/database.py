"""Opens the database, brings its tables up to date, and turns its errors into our own."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import alembic.command
import alembic.config
import alembic.util
import sqlalchemy as sa

from mooring.config import RegistryConfig
from mooring.core.errors import MooringError, StartRefused
from mooring.registry.postgresql import Postgresql
from mooring.registry.sqlite import Sqlite

_MIGRATIONS = Path(__file__).parent / "migrations"
_ERRORS = (sa.exc.DBAPIError, sa.exc.TimeoutError, sa.exc.PendingRollbackError, sqlite3.Error)


class Dialect(Protocol):
    """What differs between the databases. The first four raise the driver's errors."""

    @property
    def engine(self) -> sa.Engine: ...

    @property
    def is_shared(self) -> bool: ...

    @property
    def insert(self) -> Callable[[sa.Table], Any]:
        """An INSERT with `on_conflict_do_nothing` and `on_conflict_do_update`."""

    def begin(self, *, wait: bool) -> sa.Connection:
        """A transaction that may write. Raises RegistryBusy where it may not be waited for."""

    def end(self, connection: sa.Connection) -> None:
        """Give a connection that `begin` gave back, rolled back unless it was committed."""

    def look(self) -> sa.Connection:
        """A transaction that only reads."""

    def lock(self, connection: sa.Connection, name: str) -> None:
        """Until this transaction ends, whoever else takes the same lock waits."""

    def need_not_last(self, connection: sa.Connection) -> None:
        """This transaction's commit need not wait for the disk."""

    def prepare_migration(self, connection: sa.Connection) -> None:
        """Nobody else migrates before this transaction ends."""

    def now(self, connection: sa.Connection) -> float:
        """Unix seconds, by the database's clock."""

    def our_error(self, error: Exception) -> MooringError: ...

    def close(self) -> None: ...


class Database:
    """A connection pool on a migrated database. Safe from any thread."""

    def __init__(self, where: Path | sa.URL, connections: int = 10) -> None:
        """Open or create an SQLite file, or connect to PostgreSQL; and migrate it. Blocking.

        Raises:
            StorageFull: there is no room for it.
            RegistryUnavailable: it cannot be reached.
            RegistryFailed: it is no database, or cannot be opened.
            StartRefused: a driver is missing, or a newer version has been here.
        """
        self._dialect: Dialect = (
            Sqlite(where) if isinstance(where, Path) else Postgresql(where, connections)
        )
        self._joined = threading.local()
        try:
            with self.begin() as connection:
                self._dialect.prepare_migration(connection)
                _migrate(connection)
        except BaseException:
            self.close()
            raise

    @property
    def engine(self) -> sa.Engine:
        return self._dialect.engine

    @property
    def is_shared(self) -> bool:
        """Other processes that serve may change it: nothing read from it stays true by itself."""
        return self._dialect.is_shared

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A transaction that may write: committed at the end, rolled back on any error. Blocking.

        Where this thread is in one already, a part of that one.

        Raises:
            StorageFull: the database could not grow; nothing of the transaction remains.
            RegistryBusy: others write, or lock, for too long; the same holds.
            RegistryUnavailable: the database is away. If it went during the commit itself, nobody knows.
            RegistryFailed: anything else went wrong in the database; nothing remains.
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
        with _our_errors(self._dialect):
            return Transaction(self._dialect, self._joined, wait=wait)

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
        with _our_errors(self._dialect), self._dialect.look() as connection:
            yield connection

    def after_commit(self, tell: Callable[[], None]) -> None:
        """Do something when this thread's transaction is durable.

        Where the database is not shared, it is done before another transaction begins.
        """
        assert self._transaction is not None
        self._transaction.committed.append(tell)

    def insert(self, table: sa.Table) -> Any:
        """An INSERT with `on_conflict_do_nothing` and `on_conflict_do_update`."""
        return self._dialect.insert(table)

    def lock(self, connection: sa.Connection, name: str) -> None:
        """Until this transaction ends, whoever else takes the lock of that name waits."""
        self._dialect.lock(connection, name)

    def need_not_last(self, connection: sa.Connection) -> None:
        """What this transaction writes may be lost in a crash; its commit waits for no disk."""
        self._dialect.need_not_last(connection)

    def now(self, connection: sa.Connection) -> float:
        """Unix seconds, by the one clock that all who share the database have."""
        return self._dialect.now(connection)

    def close(self) -> None:
        self._dialect.close()

    @property
    def _transaction(self) -> "Transaction | None":
        return getattr(self._joined, "transaction", None)


class Transaction:
    """One that may write. Whoever has opened it finishes or closes it."""

    def __init__(self, dialect: Dialect, joined: threading.local, *, wait: bool) -> None:
        self.committed: list[Callable[[], None]] = []
        self._dialect = dialect
        self._joined = joined
        self.connection = dialect.begin(wait=wait)

    @contextmanager
    def joined(self) -> Iterator[sa.Connection]:
        """What this thread does with the database in here belongs to the transaction."""
        self._joined.transaction = self
        try:
            with _our_errors(self._dialect):
                yield self.connection
        finally:
            self._joined.transaction = None

    def finish(self) -> None:
        """Make it durable, and close it. Blocking. Raises as `Database.begin` does."""
        try:
            with _our_errors(self._dialect):
                self.connection.commit()
            for tell in self.committed:
                tell()
        finally:
            self.close()

    def close(self) -> None:
        """Whatever is not committed is rolled back."""
        self._dialect.end(self.connection)


@contextmanager
def _our_errors(dialect: Dialect) -> Iterator[None]:
    try:
        yield
    except _ERRORS as error:
        raise dialect.our_error(error) from error


def _migrate(connection: sa.Connection) -> None:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    try:
        alembic.command.upgrade(config, "head")
    except alembic.util.CommandError as error:
        raise StartRefused(f"the registry was made by a newer Mooring than this one: {error}") from error


def open_database(config: RegistryConfig, data_dir: Path) -> Database:
    """The configured one. Blocking. Raises as `Database` does."""
    url = _url(config)
    return Database(data_dir / "registry.sqlite3" if url is None else url, config.connections)


def describe(config: RegistryConfig) -> str | None:
    """Where a configured PostgreSQL is, without what is secret. Raises StartRefused."""
    url = _url(config)
    return (
        None if url is None else f"PostgreSQL, database {url.database} on {url.host or 'this machine'}"
    )


def _url(config: RegistryConfig) -> sa.URL | None:
    if config.url is None:
        return None
    try:
        return sa.make_url(config.url.get_secret_value())
    except (sa.exc.ArgumentError, ValueError):
        raise StartRefused("registry.url: cannot be read as a URL") from None  # it may hold a password
