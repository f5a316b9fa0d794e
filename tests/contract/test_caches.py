"""What the registry of caches promises."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from mooring.core.context import CacheObject, Failure, Page, Status
from mooring.core.errors import QuotaExceeded, RegistryFailed, StorageFull
from mooring.registry.caches import Caches, Expired
from mooring.registry.database import Database
from mooring.registry.schema import metadata

NOW = 1_720_000_000
LIVE, DEAD = (Status.PENDING, Status.READY), (Status.ERROR, Status.INACTIVE)


@contextmanager
def open_database(where):
    database = Database(where)
    try:
        yield database
    finally:
        database.close()


@pytest.fixture
def caches(database):
    """An empty registry."""
    return Caches(database)


def make_cache(cache_id="cache-1", **fields):
    defaults = CacheObject(
        id=cache_id,
        tenant="default",
        model="moonshot-v1",
        messages=({"role": "system", "content": "text"},),
        tools=(),
        name="",
        description="",
        metadata=None,
        created_at=NOW,
        expired_at=NOW + 3600,
        status=Status.PENDING,
        tokens=3,
        prefix_id="ab" * 32,
    )
    return dataclasses.replace(defaults, **fields)


def insert(caches, *cache_ids, **fields):
    for cache_id in cache_ids:
        caches.insert(make_cache(cache_id, **fields))


def ids(found):
    return [cache.id for cache in found]


def listed(caches, limit=100, tenant="default", **page):
    return ids(caches.list(tenant, Page(limit, **page)))


# Round trip

FUNCTION = {"name": "größe", "parameters": {"type": "object", "enum": [None, 1.5, True]}}
FIELDS = {
    "unicode text": {"name": "手册 📚", "description": "Größe\n\x00\u2028", "model": "模型"},
    "unicode messages": {"messages": ({"role": "user", "content": "你好 😀"},)},
    "text parts": {
        "messages": ({"role": "user", "content": [{"type": "text", "text": "é"}], "extra": None},)
    },
    "tools": {"tools": ({"type": "function", "function": FUNCTION},)},
    "no metadata": {"metadata": None},
    "empty metadata": {"metadata": {}},
    "metadata": {"metadata": {"schlüssel": "wert ✓", "": ""}},
    "a failure": {"status": Status.ERROR, "failure": Failure("server_error", "es ging schief ✗")},
    "a far end": {"expired_at": 1 << 40},
    "another status": {"status": Status.INACTIVE},
}


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_caches_get_what_was_inserted(caches, fields):
    cache = make_cache(**fields)
    caches.insert(cache)
    assert caches.get("default", cache.id) == cache


def test_caches_get_nothing_for_an_unknown_id(caches):
    insert(caches, "cache-1")
    assert caches.get("default", "cache-2") is None


def test_caches_refuse_an_id_that_exists(caches):
    insert(caches, "cache-1")
    with pytest.raises(RegistryFailed):
        insert(caches, "cache-1", tenant="other")


def test_caches_delete_once_and_return_what_it_was(caches):
    insert(caches, "cache-1")
    assert caches.delete("default", "cache-1") == make_cache("cache-1")
    assert caches.delete("default", "cache-1") is None


def test_caches_forget_what_is_deleted(caches):
    insert(caches, "cache-1", "cache-2")
    caches.delete("default", "cache-1")
    assert caches.get("default", "cache-1") is None
    assert listed(caches) == ["cache-2"]


# Tenants


def test_caches_do_not_show_another_tenants_cache(caches):
    insert(caches, "cache-1")
    assert caches.get("other", "cache-1") is None


def test_caches_do_not_list_another_tenants_caches(caches):
    insert(caches, "cache-1")
    insert(caches, "cache-2", tenant="other")
    assert listed(caches, tenant="other") == ["cache-2"]


def test_caches_do_not_delete_another_tenants_cache(caches):
    insert(caches, "cache-1")
    assert caches.delete("other", "cache-1") is None
    assert caches.get("default", "cache-1") == make_cache("cache-1")


@pytest.mark.parametrize("cursor", ["after", "before"])
def test_caches_do_not_know_another_tenants_cursor(caches, cursor):
    insert(caches, "cache-1")
    assert caches.list("other", Page(10, **{cursor: "cache-1"})) is None


# Pages


def test_caches_are_listed_newest_first(caches):
    insert(caches, "cache-1", "cache-2", "cache-3")
    assert listed(caches) == ["cache-3", "cache-2", "cache-1"]


def test_caches_are_listed_oldest_first_when_asked(caches):
    insert(caches, "cache-1", "cache-2", "cache-3")
    assert listed(caches, newest_first=False) == ["cache-1", "cache-2", "cache-3"]


def test_caches_are_listed_in_the_order_of_creation_within_a_second(caches):
    insert(caches, "cache-z", "cache-a", "cache-m")
    assert listed(caches, newest_first=False) == ["cache-z", "cache-a", "cache-m"]


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ({"after": "cache-3"}, ["cache-2", "cache-1"]),
        ({"before": "cache-3"}, ["cache-5", "cache-4"]),
        ({"before": "cache-5"}, []),
        ({"after": "cache-5", "before": "cache-2"}, ["cache-4", "cache-3"]),
        ({"after": "cache-3", "newest_first": False}, ["cache-4", "cache-5"]),
        ({"before": "cache-3", "newest_first": False}, ["cache-1", "cache-2"]),
        ({"after": "cache-1", "before": "cache-4", "newest_first": False}, ["cache-2", "cache-3"]),
        ({"after": "cache-1"}, []),
        ({"after": "cache-2", "before": "cache-4"}, []),
    ],
)
def test_page_lies_strictly_between_its_cursors(caches, page, expected):
    insert(caches, *(f"cache-{number}" for number in range(1, 6)))
    assert listed(caches, **page) == expected


@pytest.mark.parametrize("newest_first", [True, False])
def test_page_holds_no_more_than_its_limit(caches, newest_first):
    insert(caches, *(f"cache-{number}" for number in range(1, 6)))
    first = listed(caches, 2, newest_first=newest_first)
    assert first == (["cache-5", "cache-4"] if newest_first else ["cache-1", "cache-2"])


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ({"before": "cache-1"}, ["cache-3", "cache-2"]),
        ({"before": "cache-5", "newest_first": False}, ["cache-3", "cache-4"]),
        ({"after": "cache-5", "before": "cache-1"}, ["cache-4", "cache-3"]),
        ({"after": "cache-1", "before": "cache-5", "newest_first": False}, ["cache-2", "cache-3"]),
    ],
)
def test_page_before_a_cache_alone_is_the_one_next_to_it(caches, page, expected):
    insert(caches, *(f"cache-{number}" for number in range(1, 6)))
    assert listed(caches, 2, **page) == expected


@pytest.mark.parametrize("newest_first", [True, False])
def test_pages_backwards_end_where_pages_forwards_began(caches, newest_first):
    insert(caches, *(f"cache-{number}" for number in range(1, 6)))
    forwards = listed(caches, 4, newest_first=newest_first)
    last = listed(caches, newest_first=newest_first)[-1]
    assert listed(caches, 2, newest_first=newest_first, before=last) == forwards[2:]
    assert listed(caches, 2, newest_first=newest_first, before=forwards[2]) == forwards[:2]


@pytest.mark.parametrize("cursor", ["after", "before"])
def test_page_beside_an_unknown_cache_is_none(caches, cursor):
    insert(caches, "cache-1")
    assert caches.list("default", Page(10, **{cursor: "cache-9"})) is None


def read_pages(caches, newest_first):
    """All ids, two a page, with a new cache after every page."""
    found, cursor = [], None
    for number in range(20):
        page = listed(caches, 2, newest_first=newest_first, after=cursor)
        if not page:
            return found
        found += page
        cursor = page[-1]
        if number < 5:
            insert(caches, f"cache-new-{number}")
    raise AssertionError("the pages do not end")


def test_pages_newest_first_are_stable_while_caches_are_created(caches):
    insert(caches, *(f"cache-{number}" for number in range(7)))
    assert read_pages(caches, newest_first=True) == [f"cache-{number}" for number in range(6, -1, -1)]


def test_pages_oldest_first_go_on_to_caches_that_were_created_meanwhile(caches):
    insert(caches, *(f"cache-{number}" for number in range(7)))
    expected = [f"cache-{number}" for number in range(7)] + [f"cache-new-{n}" for n in range(5)]
    assert read_pages(caches, newest_first=False) == expected


def test_pages_skip_what_is_deleted_meanwhile(caches):
    insert(caches, *(f"cache-{number}" for number in range(1, 6)))
    assert listed(caches, 2) == ["cache-5", "cache-4"]
    caches.delete("default", "cache-3")
    assert listed(caches, 2, after="cache-4") == ["cache-2", "cache-1"]


# The life of a cache


def test_pending_cache_settles_as_ready(caches):
    insert(caches, "cache-1")
    caches.settle("cache-1", Status.READY)
    assert caches.get("default", "cache-1") == make_cache(status=Status.READY)


def test_pending_cache_settles_as_failed_with_the_reason(caches):
    insert(caches, "cache-1")
    failure = Failure("server_error", "the engine broke")
    caches.settle("cache-1", Status.ERROR, failure)
    assert caches.get("default", "cache-1") == make_cache(status=Status.ERROR, failure=failure)


@pytest.mark.parametrize("status", [Status.READY, Status.ERROR, Status.INACTIVE])
def test_cache_that_is_not_pending_does_not_settle(caches, status):
    insert(caches, "cache-1", status=status)
    caches.settle("cache-1", Status.ERROR, Failure("server_error", "late"))
    assert caches.get("default", "cache-1") == make_cache(status=status)


def test_cache_settles_alone(caches):
    insert(caches, "cache-1", "cache-2")
    caches.settle("cache-1", Status.READY)
    assert caches.get("default", "cache-2") == make_cache("cache-2")


def test_settling_an_unknown_cache_changes_nothing(caches):
    insert(caches, "cache-1")
    caches.settle("cache-2", Status.READY)
    assert caches.get("default", "cache-1") == make_cache("cache-1")


def test_extended_cache_has_a_new_end_and_nothing_else(caches):
    insert(caches, "cache-1", "cache-2")
    assert caches.revive("cache-1", NOW + 5, NOW) == make_cache("cache-1", expired_at=NOW + 5)
    assert caches.get("default", "cache-1") == make_cache("cache-1", expired_at=NOW + 5)
    assert caches.get("default", "cache-2") == make_cache("cache-2")


@pytest.mark.parametrize("status", [Status.PENDING, Status.READY, Status.ERROR])
def test_extended_cache_that_is_not_over_keeps_its_status(caches, status):
    fields = {"status": status, "failure": Failure("server_error", "once")}
    insert(caches, "cache-1", **fields)
    caches.revive("cache-1", NOW + 9000, NOW + 3599)
    assert caches.get("default", "cache-1") == make_cache(expired_at=NOW + 9000, **fields)


def test_extended_cache_that_was_inactive_is_pending_with_a_new_end(caches):
    insert(caches, "cache-1", status=Status.INACTIVE)
    caches.revive("cache-1", NOW + 9000, NOW)
    assert caches.get("default", "cache-1") == make_cache(expired_at=NOW + 9000)


@pytest.mark.parametrize("status", [Status.PENDING, Status.READY, Status.ERROR])
def test_extended_cache_that_no_sweep_has_seen_past_its_end_is_pending(caches, status):
    insert(caches, "cache-1", status=status, failure=Failure("server_error", "once"))
    revived = caches.revive("cache-1", NOW + 9000, NOW + 3600)
    assert revived == caches.get("default", "cache-1") == make_cache(expired_at=NOW + 9000)


def test_extended_cache_that_was_over_has_no_failure_any_more(caches):
    insert(caches, "cache-1", status=Status.INACTIVE, failure=Failure("server_error", "once"))
    caches.revive("cache-1", NOW + 9000, NOW)
    assert caches.get("default", "cache-1").failure is None


def test_extended_cache_that_was_over_settles_again(caches):
    insert(caches, "cache-1", status=Status.INACTIVE)
    caches.revive("cache-1", NOW + 9000, NOW)
    caches.settle("cache-1", Status.READY)
    assert caches.get("default", "cache-1").status is Status.READY


def test_a_live_cache_is_extended_and_one_that_is_over_is_not(caches):
    insert(caches, "cache-1", status=Status.READY)
    insert(caches, "cache-2", status=Status.INACTIVE)
    steps = []
    assert caches.extend("cache-1", NOW + 9000, NOW + 3599, steps.append)
    assert not caches.extend("cache-1", NOW + 9999, NOW + 9000, steps.append)
    assert not caches.extend("cache-2", NOW + 9000, NOW, steps.append)
    assert not caches.extend("cache-3", NOW + 9000, NOW, steps.append)
    assert caches.get("default", "cache-1") == make_cache(expired_at=NOW + 9000, status=Status.READY)
    assert caches.get("default", "cache-2").status is Status.INACTIVE
    assert len(steps) == 1, "what costs nothing is not charged"


def test_a_cache_that_was_read_is_remembered_for_its_tenant_alone(caches, database):
    insert(caches, "cache-1")
    assert caches.recall("default", "cache-1") is None
    assert caches.get("default", "cache-1") == make_cache("cache-1")
    remembered = None if database.is_shared else make_cache("cache-1")  # others may have changed it
    assert caches.recall("default", "cache-1") == remembered
    assert caches.recall("other", "cache-1") is None
    assert caches.get("other", "cache-1") is None
    assert caches.recall("default", "cache-1") == remembered


def test_a_change_that_is_not_committed_is_not_remembered(caches):
    insert(caches, "cache-1")
    caches.get("default", "cache-1")

    def fail(_connection):
        raise QuotaExceeded("no")

    with pytest.raises(QuotaExceeded):
        caches.extend("cache-1", NOW + 9000, NOW, fail)
    assert caches.get("default", "cache-1") == make_cache("cache-1")


def test_extending_a_cache_that_is_gone_changes_nothing(caches):
    insert(caches, "cache-1")
    assert caches.revive("cache-2", NOW + 5, NOW) is None
    assert listed(caches) == ["cache-1"]
    assert caches.get("default", "cache-1") == make_cache("cache-1")


def test_extending_and_expiring_at_once_leaves_every_cache_with_its_new_life(caches):
    names = [f"cache-{number}" for number in range(40)]
    insert(caches, *names, status=Status.READY, expired_at=NOW)
    with ThreadPoolExecutor(4) as threads:
        sweeps = [threads.submit(caches.expire, NOW) for _ in range(8)]
        extended = list(threads.map(lambda name: caches.revive(name, NOW + 9, NOW), names))
        swept = [cache.id for sweep in sweeps for cache in sweep.result()]
    assert {cache.status for cache in extended} == {Status.PENDING}
    assert sorted(ids(caches.pending())) == sorted(names)
    assert len(swept) == len(set(swept))


def test_set_prefix_replaces_the_prefix_and_its_tokens(caches):
    insert(caches, "cache-1")
    caches.set_prefix("cache-1", "cd" * 32, 99)
    assert caches.get("default", "cache-1") == make_cache(prefix_id="cd" * 32, tokens=99)


# Expiry


def test_expire_returns_what_is_past_its_end_as_inactive(caches):
    insert(caches, "cache-1", expired_at=NOW)
    insert(caches, "cache-2", expired_at=NOW + 1)
    assert list(caches.expire(NOW)) == [Expired("cache-1", "default", "ab" * 32)]
    expected = make_cache("cache-1", expired_at=NOW, status=Status.INACTIVE)
    assert caches.get("default", "cache-1") == expected
    assert caches.get("default", "cache-2").status is Status.PENDING


def test_expire_returns_each_cache_once(caches):
    insert(caches, "cache-1", "cache-2", expired_at=NOW)
    assert sorted(ids(caches.expire(NOW))) == ["cache-1", "cache-2"]
    assert list(caches.expire(NOW + 1)) == []


def test_expire_returns_each_cache_once_to_concurrent_sweepers(caches):
    names = [f"cache-{number}" for number in range(40)]
    insert(caches, *names, expired_at=NOW)
    with ThreadPoolExecutor(4) as threads:
        swept = [cache.id for found in threads.map(caches.expire, [NOW] * 8) for cache in found]
    assert sorted(swept) == sorted(names)


@pytest.mark.parametrize("status", [Status.PENDING, Status.READY, Status.ERROR])
def test_expire_takes_caches_of_every_other_status(caches, status):
    insert(caches, "cache-1", status=status, expired_at=NOW)
    assert ids(caches.expire(NOW)) == ["cache-1"]


def test_expire_takes_the_caches_of_all_tenants(caches):
    insert(caches, "cache-1", expired_at=NOW)
    insert(caches, "cache-2", tenant="other", expired_at=NOW)
    assert sorted(ids(caches.expire(NOW))) == ["cache-1", "cache-2"]


def test_expire_takes_a_revived_cache_again(caches):
    insert(caches, "cache-1", expired_at=NOW)
    caches.expire(NOW)
    caches.revive("cache-1", NOW + 10, NOW)
    assert ids(caches.expire(NOW + 9)) == []
    assert ids(caches.expire(NOW + 10)) == ["cache-1"]


# What should be kept


@pytest.mark.parametrize("status", LIVE)
def test_prefix_of_a_live_cache_is_wanted(caches, status):
    insert(caches, "cache-1", status=status)
    assert caches.wants("ab" * 32)
    assert caches.wanted_prefixes() == {"ab" * 32}


@pytest.mark.parametrize("status", DEAD)
def test_prefix_of_a_dead_cache_is_not_wanted(caches, status):
    insert(caches, "cache-1", status=status)
    assert not caches.wants("ab" * 32)
    assert caches.wanted_prefixes() == set()


def test_prefix_is_wanted_while_one_live_cache_holds_it(caches):
    insert(caches, "cache-1", "cache-2")
    caches.delete("default", "cache-1")
    assert caches.wants("ab" * 32)
    caches.delete("default", "cache-2")
    assert not caches.wants("ab" * 32)


def test_prefix_that_was_replaced_is_not_wanted(caches):
    insert(caches, "cache-1")
    caches.set_prefix("cache-1", "cd" * 32, 99)
    assert (caches.wants("ab" * 32), caches.wants("cd" * 32)) == (False, True)


def test_wanted_prefixes_are_those_of_all_tenants_each_once(caches):
    insert(caches, "cache-1", "cache-2")
    insert(caches, "cache-3", tenant="other", prefix_id="cd" * 32)
    assert caches.wanted_prefixes() == {"ab" * 32, "cd" * 32}


def test_pending_caches_are_those_of_all_tenants_in_the_order_of_creation(caches):
    insert(caches, "cache-2")
    insert(caches, "cache-3", status=Status.READY)
    insert(caches, "cache-1", tenant="other")
    assert ids(caches.pending()) == ["cache-2", "cache-1"]


# The database


def test_reopened_database_has_all_rows(where):
    with open_database(where) as database:
        insert(Caches(database), "cache-1", "cache-2", metadata={"k": "v"})
    with open_database(where) as database:
        caches = Caches(database)
        assert listed(caches) == ["cache-2", "cache-1"]
        assert caches.get("default", "cache-1") == make_cache("cache-1", metadata={"k": "v"})


def test_reopened_database_goes_on_counting(where):
    with open_database(where) as database:
        insert(Caches(database), "cache-2")
    with open_database(where) as database:
        insert(Caches(database), "cache-1")
        assert listed(Caches(database)) == ["cache-1", "cache-2"]


def test_migrations_make_the_tables_of_the_schema(database):
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_migrations_never_give_a_serial_twice(tmp_path):
    """Not among what the comparison sees, and a page could jump without it. A sequence never does."""
    with open_database(tmp_path / "registry.sqlite3") as database, database.begin() as connection:
        query = sa.text("SELECT sql FROM sqlite_master WHERE name = 'caches'")
        assert "AUTOINCREMENT" in connection.execute(query).scalar_one()


def test_caches_serve_many_threads(caches):
    def work(worker):
        for number in range(10):
            name = f"cache-{worker}-{number}"
            insert(caches, name, tenant=f"tenant-{worker}")
            caches.settle(name, Status.READY)
            assert caches.get(f"tenant-{worker}", name).status is Status.READY
        caches.delete(f"tenant-{worker}", f"cache-{worker}-0")
        return len(caches.list(f"tenant-{worker}", Page(100)))

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(work, range(8))) == [9] * 8


def test_file_that_is_no_database_is_reported(tmp_path):
    path = tmp_path / "registry.sqlite3"
    path.write_bytes(b"no database " * 1000)
    with pytest.raises(RegistryFailed, match="the registry cannot be used"), open_database(path):
        raise AssertionError("it opened")


def test_database_that_lost_its_tables_is_reported(database):
    with database.begin() as connection:
        connection.execute(sa.text("DROP TABLE caches"))
    with pytest.raises(RegistryFailed, match=r"no such table|does not exist"):
        Caches(database).pending()


def test_full_database_is_reported_and_keeps_what_it_had(tmp_path):
    with open_database(tmp_path / "registry.sqlite3") as database:
        caches = Caches(database)
        insert(caches, "cache-1")
        with database.begin() as connection:  # the pool hands the same connection out again
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StorageFull, match="no room on disk for the registry"):
            insert(caches, "cache-2", description="x" * 100_000)
        assert listed(caches) == ["cache-1"]
