"""What only PostgreSQL does: it is shared by servers that start at once, and it can be away."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import pytest
import sqlalchemy as sa
from postgresql import PostgresServer

from mooring.core.context import CacheObject, Status
from mooring.core.errors import (
    RegistryBusy,
    RegistryFailed,
    RegistryUnavailable,
    StartRefused,
)
from mooring.registry.caches import Caches
from mooring.registry.database import Database
from mooring.registry.group_commit import GroupCommit
from mooring.registry.tenants import Tenants
from mooring.service.tenants import Tenancy

pytestmark = pytest.mark.anyio


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """One that the test may stop."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def database(postgres: sa.URL) -> Iterator[Database]:
    database = Database(postgres)
    yield database
    database.close()


def notes(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.execute(sa.text("SELECT text FROM notes ORDER BY text")).scalars())


def make_notes(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(sa.text("CREATE TABLE notes (text TEXT PRIMARY KEY)"))


def write(database: Database, text: str) -> None:
    with database.begin() as connection:
        connection.execute(sa.text("INSERT INTO notes VALUES (:text)"), {"text": text})


# Starting


def test_servers_that_start_at_once_migrate_once(postgres_server: PostgresServer):
    url = postgres_server.create()
    barrier = threading.Barrier(6)

    def start(_number: int) -> Database:
        barrier.wait()
        return Database(sa.make_url(url), connections=2)

    with ThreadPoolExecutor(6) as threads:
        started = list(threads.map(start, range(6)))
    for database in started:
        with database.read() as connection:
            assert connection.execute(sa.text("SELECT count(*) FROM caches")).scalar_one() == 0
        database.close()
    postgres_server.drop(url)


def test_a_registry_of_a_newer_version_is_refused(database: Database, postgres: sa.URL):
    with database.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StartRefused, match="newer Mooring"):
        Database(postgres)


def test_a_missing_driver_is_named_with_what_to_install():
    program = """
import sys
sys.modules["psycopg"] = None
import sqlalchemy
from mooring.registry.caches import Caches
from mooring.registry.database import Database
Database(sqlalchemy.make_url("postgresql://somebody:a-secret@127.0.0.1/registry"))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "StartRefused: registry.url: PostgreSQL needs a driver" in ran.stderr
    assert "pip install 'mooring[postgres]'" in ran.stderr
    assert "a-secret" not in ran.stderr


def test_a_wrong_password_is_an_error_that_does_not_show_it(
    postgres: sa.URL, caplog: pytest.LogCaptureFixture
):
    with pytest.raises(RegistryFailed) as caught:
        Database(postgres.set(password="not-the-password"))
    assert "password authentication failed" in caplog.text
    assert "not-the-password" not in caplog.text
    told: BaseException | None = caught.value
    while told is not None:
        assert "not-the-password" not in str(told)
        told = told.__cause__


# Away


async def test_what_needs_it_fails_while_it_is_away_and_goes_on_when_it_is_back(
    own_server: PostgresServer,
):
    url = sa.make_url(own_server.create())
    database = Database(url)
    make_notes(database)
    commits, tenancy = GroupCommit(database), Tenancy(Tenants(database))
    write(database, "before")
    own_server.stop()
    for _ in range(3):
        with pytest.raises(RegistryUnavailable, match="cannot be reached"):
            write(database, "during")
        with pytest.raises(RegistryUnavailable):
            await commits.run(lambda: write(database, "during"))
        with pytest.raises(RegistryUnavailable):
            notes(database)
        with pytest.raises(RegistryUnavailable):
            await tenancy.list()
    with pytest.raises(RegistryUnavailable):
        Database(url)
    own_server.start()
    while True:  # not at once: a refusal is remembered for a moment
        try:
            await commits.run(lambda: write(database, "after"))
            break
        except RegistryUnavailable:
            continue
    assert notes(database) == ["after", "before"]
    database.close()


def test_a_transaction_whose_connection_breaks_leaves_nothing(database: Database, postgres: sa.URL):
    make_notes(database)
    cut = sa.text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    other = Database(postgres, connections=2)
    with pytest.raises(RegistryUnavailable), database.begin() as connection:
        connection.execute(sa.text("INSERT INTO notes VALUES ('lost')"))
        with other.begin() as cutter:
            cutter.execute(cut)
        connection.execute(sa.text("INSERT INTO notes VALUES ('lost, too')"))
    other.close()
    assert notes(database) == []
    write(database, "next")
    assert notes(database) == ["next"]


def test_connections_that_were_cut_while_nobody_used_them_are_replaced(
    database: Database, postgres_server: PostgresServer, postgres: sa.URL
):
    make_notes(database)
    cut = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{postgres.database}'"
    postgres_server.execute("postgres", cut)
    write(database, "a")
    assert notes(database) == ["a"]


def test_a_connection_that_is_in_use_when_the_registry_is_closed_is_closed_after_it(postgres: sa.URL):
    database = Database(postgres)
    with database.read() as connection:
        driver = connection.connection.driver_connection
        database.close()
        assert not driver.closed
    assert driver.closed


# Busy


def test_who_waits_too_long_for_another_is_told_to_try_again(database: Database, postgres: sa.URL):
    make_notes(database)
    write(database, "a")
    impatient = Database(postgres.update_query_dict({"options": "-c lock_timeout=50"}))
    update = sa.text("UPDATE notes SET text = 'b'")
    with database.begin() as connection:
        connection.execute(update)
        with pytest.raises(RegistryBusy), impatient.begin() as other:
            other.execute(update)
    impatient.close()


def test_a_sweep_leaves_what_another_is_changing_for_the_next(database: Database, postgres: sa.URL):
    caches, other = Caches(database), Database(postgres)
    for name in ("cache-1", "cache-2"):
        caches.insert(CacheObject(name, "t", "m", (), (), "", "", None, 1, 10, Status.READY, 1, "p"))
    with other.begin() as connection:
        connection.execute(sa.text("UPDATE caches SET tokens = 2 WHERE id = 'cache-1'"))
        assert [cache.id for cache in caches.expire(10)] == ["cache-2"]
    assert [cache.id for cache in caches.expire(10)] == ["cache-1"]
    other.close()


async def test_groups_that_wait_for_each_other_are_all_done_in_the_end(
    database: Database, postgres: sa.URL
):
    """The one whose transaction is broken up, to end the deadlock, is done again change by change."""
    make_notes(database)
    for name in ("a", "b"):
        write(database, name)
    other, met = Database(postgres), threading.Barrier(2)

    def touch(where: Database, name: str) -> None:
        with where.begin() as connection:
            connection.execute(
                sa.text("UPDATE notes SET text = text WHERE text = :name"), {"name": name}
            )
            with suppress(
                threading.BrokenBarrierError
            ):  # both hold one row before either wants the next
                met.wait()
                met.abort()

    groups = [(GroupCommit(database), database, "ab"), (GroupCommit(other), other, "ba")]
    changes = [
        commits.run(partial(touch, where, name)) for commits, where, names in groups for name in names
    ]
    await asyncio.gather(*changes)
    other.close()
