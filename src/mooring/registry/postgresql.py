"""PostgreSQL: a server that several of us share, and that may be away for a while."""

import logging
import time

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from mooring.core.errors import (
    MooringError,
    RegistryBusy,
    RegistryFailed,
    RegistryUnavailable,
    StartRefused,
    StorageFull,
)

_log = logging.getLogger("mooring.registry")
_FULL = "53100"
_BUSY = {"40001", "40P01", "55P03", "57014"}  # serialisation, deadlock, lock and statement timeouts
_AWAY = {"57P01", "57P02", "57P03", "53300", "25006"}  # shut down, starting, no connection left, standby
_CONNECTION = "08"
_POOL_TIMEOUT_S = 5
_AWAY_FOR_S = 0.5
"""After a connection was refused, no other is tried for so long: nobody waits in line for refusals."""
_CONNECTING = {
    "application_name": "mooring",
    "connect_timeout": "3",
    # A server that vanished without a word is noticed by the kernel, not by a client's patience.
    "tcp_user_timeout": "5000",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "options": "-c statement_timeout=10s -c lock_timeout=5s -c idle_in_transaction_session_timeout=20s",
}
_GONE = "the registry's database cannot be reached; try again shortly"


class Postgresql:
    """Implements `database.Dialect`. Transactions run side by side, each at READ COMMITTED."""

    is_shared = True
    insert = staticmethod(postgresql.insert)

    def __init__(self, url: sa.URL, connections: int) -> None:
        """Raises StartRefused: its driver is not installed."""
        # What the URL says itself wins.
        arguments = {key: value for key, value in _CONNECTING.items() if key not in url.query}
        try:
            self.engine = sa.create_engine(
                url.set(drivername="postgresql+psycopg"),
                pool_size=connections,
                max_overflow=0,
                pool_timeout=_POOL_TIMEOUT_S,
                pool_pre_ping=True,  # a connection that a restart has cut is replaced, and nobody told
                connect_args=arguments,
            )
        except ImportError as error:
            raise StartRefused(
                "registry.url: PostgreSQL needs a driver: pip install 'mooring[postgres]'"
            ) from error
        sa.event.listen(self.engine, "checkin", self._on_return)
        self._is_closed = False
        self._away_until = 0.0
        self._is_away = False
        """As the log has it."""

    def begin(self, *, wait: bool) -> sa.Connection:
        return self._connect()

    def end(self, connection: sa.Connection) -> None:
        try:
            connection.rollback()
        except sa.exc.DBAPIError:  # it is lost, and what was not committed with it
            connection.invalidate()
        finally:
            connection.close()

    def look(self) -> sa.Connection:
        return self._connect()

    def lock(self, connection: sa.Connection, name: str) -> None:
        connection.execute(_LOCK, {"name": f"mooring {name}"})

    def need_not_last(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql("SET LOCAL synchronous_commit = off")

    def prepare_migration(self, connection: sa.Connection) -> None:
        """Those that start at the same time take turns; all but the first find it done."""
        connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        self.lock(connection, "migration")

    def now(self, connection: sa.Connection) -> float:
        return float(connection.execute(_NOW).scalar_one())

    def our_error(self, error: Exception) -> MooringError:
        if isinstance(error, sa.exc.TimeoutError):
            return RegistryBusy("all connections to the registry are in use; try again shortly")
        cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        state = getattr(cause, "sqlstate", None) or ""
        if state == _FULL:
            return StorageFull("no room on the disk of the registry's database")
        if state in _BUSY:
            return RegistryBusy("the registry's database is busy; try again shortly")
        if state in _AWAY or state.startswith(_CONNECTION) or _is_lost(error, state):
            return RegistryUnavailable(_GONE)
        return RegistryFailed(f"the registry cannot be used: {_first_line(cause)}")

    def close(self) -> None:
        self._is_closed = True
        self.engine.dispose()

    def _on_return(self, _connection: object, record: sa.pool.ConnectionPoolEntry) -> None:
        """A thread may outlive the task that waited for it: what it used is closed after it."""
        if self._is_closed:
            record.invalidate()

    def _connect(self) -> sa.Connection:
        if time.monotonic() < self._away_until:
            raise RegistryUnavailable(_GONE)
        try:
            connection = self.engine.connect()
        except sa.exc.DBAPIError as error:
            if isinstance(self.our_error(error), RegistryUnavailable):
                self._away_until = time.monotonic() + _AWAY_FOR_S
                if not self._is_away:
                    _log.error("registry away error=%s", _first_line(error.orig))
                self._is_away = True
            raise
        if self._is_away:
            _log.info("registry back")
            self._is_away = False
        return connection


def _first_line(error: object) -> str:
    return str(error).partition("\n")[0]


def _is_lost(error: Exception, state: str) -> bool:
    """Of errors without a code: the connection could not be made, or broke."""
    if isinstance(error, sa.exc.PendingRollbackError):
        return True
    return not state and isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError)


_LOCK = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
_NOW = sa.text("SELECT extract(epoch FROM clock_timestamp())")
