"""Opens the database, brings its tables up to date, and turns a full disk into our own error."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
import sqlalchemy as sa

from mooring.core.errors import RegistryFailed, StorageFull

_MIGRATIONS = Path(__file__).parent / "migrations"
_FULL = "disk is full"  # SQLite's words for SQLITE_FULL


class Database:
    """A connection pool on a migrated SQLite file. Blocking; safe from any thread."""

    def __init__(self, path: Path) -> None:
        """Open or create the file, and migrate it.

        Raises:
            StorageFull: there is no room for it.
            RegistryFailed: it is no database, or cannot be opened.
        """
        self.engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)))
        sa.event.listen(self.engine, "connect", _prepare_connection)
        with self.begin() as connection:
            _migrate(connection)

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A transaction: committed at the end, rolled back on any error.

        Raises:
            StorageFull: the database could not grow; nothing of the transaction remains.
            RegistryFailed: anything else went wrong in the database; the same holds.
        """
        try:
            with self.engine.begin() as connection:
                yield connection
        except sa.exc.DBAPIError as error:
            if _FULL in str(error.orig):
                raise StorageFull(
                    "no room on disk for the registry: free space in the data directory"
                ) from error
            raise RegistryFailed(f"the registry cannot be used: {error.orig}") from error

    def close(self) -> None:
        self.engine.dispose()


def _prepare_connection(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # a commit survives a power cut
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.close()


def _migrate(connection: sa.Connection) -> None:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    alembic.command.upgrade(config, "head")
