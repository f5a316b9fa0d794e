"""Changes that share a commit: durable before they are told, each for itself when one fails."""

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from mooring.core.errors import RegistryBusy, RegistryFailed
from mooring.registry import sqlite as sqlite_module
from mooring.registry.database import Database
from mooring.registry.group_commit import GroupCommit

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def notes(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(sa.text("CREATE TABLE notes (text TEXT UNIQUE NOT NULL)"))


@pytest.fixture
def commits(database: Database) -> GroupCommit:
    return GroupCommit(database)


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Iterator[Database]:
    """For what only happens there."""
    database = Database(tmp_path / "only.sqlite3")
    with database.begin() as connection:
        connection.execute(sa.text("CREATE TABLE notes (text TEXT UNIQUE NOT NULL)"))
    yield database
    database.close()


def write(database: Database, *texts: str | None) -> int:
    with database.begin() as connection:
        for text in texts:
            connection.execute(sa.text("INSERT INTO notes VALUES (:text)"), {"text": text})
    return len(texts)


def written(where: Path | sa.URL) -> set[str]:
    """As another process would find it."""
    other = Database(where)
    with other.read() as connection:
        found = set(connection.execute(sa.text("SELECT text FROM notes")).scalars())
    other.close()
    return found


def counted(database: Database) -> list[object]:
    commits: list[object] = []
    sa.event.listen(database.engine, "commit", commits.append)
    return commits


async def test_a_change_is_on_disk_when_its_caller_goes_on(database, commits, where):
    assert await commits.run(partial(write, database, "a", "b")) == 2
    assert written(where) == {"a", "b"}


async def test_changes_that_wait_together_share_a_commit(database, commits, where):
    committed = counted(database)
    names = [str(number) for number in range(200)]
    await asyncio.gather(*(commits.run(partial(write, database, name)) for name in names))
    assert written(where) == set(names)
    assert len(committed) <= 3


async def test_equal_calls_of_a_group_are_made_as_one(database, commits, where):
    calls = []

    def write_all(items):
        calls.append(len(items))
        write(database, *items)

    await asyncio.gather(*(commits.run_for(write_all, [f"a{n}", f"b{n}"]) for n in range(50)))
    assert len(written(where)) == 100
    assert len(calls) <= 3


class NotOurs(Exception):
    """Nobody expects it."""


async def test_one_that_fails_fails_alone_whatever_it_raises(database, commits, where):
    def surprise() -> None:
        write(database, "never")
        raise NotOurs

    outcomes = await asyncio.gather(
        commits.run(partial(write, database, "a")),
        commits.run(surprise),
        commits.run(partial(write, database, None)),
        commits.run_for(partial(write_items, database), ["b"]),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [int, NotOurs, RegistryFailed, type(None)]
    assert written(where) == {"a", "b"}
    await commits.run(partial(write, database, "c"))
    assert "c" in written(where)


async def test_one_that_fails_before_it_has_written_anything_leaves_no_transaction_open(
    database, commits, where
):
    def surprise() -> None:
        raise NotOurs

    with pytest.raises(NotOurs):
        await commits.run(surprise)
    assert await commits.run(lambda: None) is None  # nor does one that writes nothing
    await commits.run(partial(write, database, "a"))
    assert written(where) == {"a"}


def write_items(database: Database, items: list[str]) -> None:
    write(database, *items)


async def test_a_commit_that_fails_fails_all_that_share_it(database, commits, monkeypatch, where):
    """And leaves nobody waiting, nor the database locked."""

    def broken(_transaction):
        raise NotOurs

    with monkeypatch.context() as patch:
        patch.setattr(sa.Connection, "commit", broken)
        outcomes = await asyncio.gather(
            *(commits.run(partial(write, database, name)) for name in "abc"), return_exceptions=True
        )
    assert [type(outcome) for outcome in outcomes] == [NotOurs] * 3
    assert written(where) == set()
    await commits.run(partial(write, database, "d"))
    assert written(where) == {"d"}


async def test_a_change_is_made_although_its_caller_has_gone(database, commits, where):
    task = asyncio.create_task(commits.run(partial(write, database, "a")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await commits.close()
    assert written(where) == {"a"}


async def test_another_process_that_writes_is_waited_for_without_stopping_the_loop(on_sqlite, tmp_path):
    commits = GroupCommit(on_sqlite)
    other = sqlite3.connect(tmp_path / "only.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    task = asyncio.create_task(commits.run(partial(write, on_sqlite, "a")))
    for _ in range(20):
        await asyncio.sleep(0.005)
    assert not task.done()
    other.execute("COMMIT")
    other.close()
    await task
    assert written(tmp_path / "only.sqlite3") == {"a"}


async def test_another_process_that_never_ends_is_an_error_for_all(on_sqlite, monkeypatch, tmp_path):
    commits = GroupCommit(on_sqlite)
    monkeypatch.setattr(sqlite_module, "_PATIENCE_S", 0.05)
    other = sqlite3.connect(tmp_path / "only.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    outcomes = await asyncio.gather(
        *(commits.run(partial(write, on_sqlite, name)) for name in "ab"), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [RegistryBusy] * 2
    other.execute("ROLLBACK")
    other.close()
    assert await commits.run(partial(write, on_sqlite, "c")) == 1


async def test_threads_and_groups_take_turns(database, commits, where):
    names = [f"thread-{n}" for n in range(30)]
    threads = [threading.Thread(target=write, args=(database, name)) for name in names]
    for thread in threads:
        thread.start()
    await asyncio.gather(*(commits.run(partial(write, database, f"group-{n}")) for n in range(30)))
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert len(written(where)) == 60
