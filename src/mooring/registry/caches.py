"""The registry of caches. Every query that serves a client names the tenant."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import sqlalchemy as sa

from mooring.core.context import CacheObject, Failure, Page, Status
from mooring.core.errors import QuotaExceeded
from mooring.registry.cache_rows import CHANGING, changing, from_row, to_row
from mooring.registry.columns import escape
from mooring.registry.database import Database
from mooring.registry.endings import Ending, Endings
from mooring.registry.ledger import Step
from mooring.registry.memory import CacheMemory
from mooring.registry.paging import select_page
from mooring.registry.schema import caches

_WANTED = (Status.PENDING, Status.READY)
_REMEMBERED_TOKENS = 4_000_000  # some 16 MB of text
_EXTEND_LIVE = (
    caches.update()
    .where(
        caches.c.id == sa.bindparam("cache_id"),
        caches.c.status != Status.INACTIVE,
        caches.c.expired_at > sa.bindparam("now"),
    )
    .values(expired_at=sa.bindparam("end"))
)


@dataclass(frozen=True)
class Expired:
    """A cache that has just been found past its end."""

    id: str
    tenant: str
    prefix_id: str


class Caches:
    """All tenants' caches. Blocking; safe from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._endings = Endings(database)
        self._memory = CacheMemory(_REMEMBERED_TOKENS)

    @property
    def are_shared(self) -> bool:
        """Other servers may change them."""
        return self._database.is_shared

    def insert(self, cache: CacheObject, also: Step | None = None) -> None:
        with self._database.begin() as connection:
            connection.execute(caches.insert().values(to_row(cache)))
            if also is not None:
                also(connection)

    def recall(self, tenant: str, cache_id: str) -> CacheObject | None:
        """What `get` returns, if that is known without a look into the database; does not block.

        Another tenant's cache is never known: how long its id takes tells no more than what it gets.
        """
        return None if self._database.is_shared else self._known(tenant, cache_id)

    def get(self, tenant: str, cache_id: str) -> CacheObject | None:
        known = self._known(tenant, cache_id)
        if known is not None:
            return self._renewed(known) if self._database.is_shared else known

        def select() -> CacheObject | None:
            with self._database.read() as connection:
                row = connection.execute(_select(tenant, cache_id)).one_or_none()
            return None if row is None else from_row(row)

        return self._memory.read(cache_id, select)

    def _known(self, tenant: str, cache_id: str) -> CacheObject | None:
        known = self._memory.get(cache_id)
        return known if known is not None and known.tenant == tenant else None

    def _renewed(self, known: CacheObject) -> CacheObject | None:
        """As others may have changed it: all but what is large and never changes is read anew."""
        query = sa.select(*CHANGING).where(caches.c.id == known.id, caches.c.tenant == known.tenant)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else replace(known, **changing(row))

    def list(self, tenant: str, page: Page) -> Sequence[CacheObject] | None:
        """A page of the tenant's caches; None when `after` or `before` names none of them."""
        shared = self._database.is_shared
        filters = [_has(key, value, in_postgresql=shared) for key, value in page.metadata]
        owned = caches.c.tenant == tenant
        with self._database.read() as connection:
            rows = select_page(connection, caches, owned, caches.c.id, page, *filters)
        return None if rows is None else [from_row(row) for row in rows]

    def delete(self, tenant: str, cache_id: str, also: Step | None = None) -> CacheObject | None:
        """Remove a cache; returns what it was.

        Here and below, `also` is done in the same transaction, if the cache was changed.
        """
        which = sa.and_(caches.c.tenant == tenant, caches.c.id == cache_id)
        with self._database.begin() as connection:
            row = connection.execute(caches.delete().where(which).returning(caches)).one_or_none()
            self._forget(cache_id)
            if row is not None:
                self._endings.record(connection, [Ending(row.id, row.prefix_id)])
                if also is not None:
                    also(connection)
        return None if row is None else from_row(row)

    def settle(
        self,
        cache_id: str,
        status: Status,
        failure: Failure | None = None,
        also: Step | None = None,
    ) -> None:
        """End a `pending`; a cache that is not pending any more stays as it is."""
        which = sa.and_(caches.c.id == cache_id, caches.c.status == Status.PENDING)
        values = {"status": status, "failure": None if failure is None else asdict(failure)}
        with self._database.begin() as connection:
            changed = connection.execute(caches.update().where(which).values(values)).rowcount
            self._forget(cache_id)
            if changed and also is not None:
                also(connection)

    def extend(self, cache_id: str, expired_at: int, now: int, also: Step | None = None) -> bool:
        """Give a cache that has not passed its end a new one; False when it is over, or gone."""
        with self._database.begin() as connection:
            values = {"cache_id": cache_id, "now": now, "end": expired_at}
            extended = connection.execute(_EXTEND_LIVE, values).rowcount > 0
            if extended:
                change = partial(self._memory.changed, cache_id, expired_at=expired_at)
                self._database.after_commit(change)
                if also is not None:
                    also(connection)
        return extended

    def revive(
        self, cache_id: str, expired_at: int, now: int, also: Step | None = None
    ) -> CacheObject | None:
        """As `extend`, but one that had passed its old end begins a new life as `pending`.

        One statement, so that no sweep comes in between. None when the cache is gone.
        """
        over = sa.or_(caches.c.status == Status.INACTIVE, caches.c.expired_at <= now)
        statement = (
            caches.update()
            .where(caches.c.id == cache_id)
            .values(
                expired_at=expired_at,
                status=sa.case((over, Status.PENDING), else_=caches.c.status),
                failure=sa.case((over, sa.null()), else_=caches.c.failure),
            )
            .returning(caches)
        )
        return self._change(cache_id, statement, also)

    def update(
        self,
        tenant: str,
        cache_id: str,
        *,
        metadata: Mapping[str, str] | None,
        expired_at: int | None,
        also: Step | None = None,
    ) -> CacheObject | None:
        """Change what is given and make the cache `pending`; None when there is no such cache."""
        given = {"metadata": metadata, "expired_at": expired_at}
        values = {name: value for name, value in given.items() if value is not None}
        statement = (
            caches.update()
            .where(caches.c.tenant == tenant, caches.c.id == cache_id)
            .values(values | {"status": Status.PENDING, "failure": None})
            .returning(caches)
        )
        return self._change(cache_id, statement, also)

    def set_prefix(self, cache_id: str, prefix_id: str, tokens: int) -> None:
        """The same messages are other tokens now: another model or template is loaded."""
        which = caches.c.id == cache_id
        with self._database.begin() as connection:
            for old in connection.execute(sa.select(caches.c.prefix_id).where(which)).scalars():
                self._endings.record(connection, [Ending(cache_id, old)])
            change = caches.update().where(which).values(prefix_id=prefix_id, tokens=tokens)
            connection.execute(change)
            self._forget(cache_id)

    def expire(self, now: int, also: Callable[[str], Step] | None = None) -> Sequence[Expired]:
        """Mark as `inactive` what has passed its end; returns each once.

        What another server is changing just now is left for the next time.
        """
        over = sa.and_(caches.c.status != Status.INACTIVE, caches.c.expired_at <= now)
        free = sa.select(caches.c.serial).where(over).with_for_update(skip_locked=True)
        statement = (
            caches.update()
            .where(caches.c.serial.in_(free))
            .values(status=Status.INACTIVE)
            .returning(caches.c.id, caches.c.tenant, caches.c.prefix_id)
        )
        with self._database.begin() as connection:
            expired = [Expired(*row) for row in connection.execute(statement)]
            self._endings.record(connection, [Ending(cache.id, cache.prefix_id) for cache in expired])
            for cache in expired:
                self._forget(cache.id)
                if also is not None:
                    also(cache.id)(connection)
        return expired

    def pending(self) -> Sequence[CacheObject]:
        """Caches whose prefill a crash or a stop interrupted, of all tenants."""
        query = caches.select().where(caches.c.status == Status.PENDING).order_by(caches.c.serial)
        with self._database.read() as connection:
            return [from_row(row) for row in connection.execute(query)]

    def is_pending(self, cache_id: str) -> bool:
        query = sa.select(caches.c.status).where(caches.c.id == cache_id)
        with self._database.read() as connection:
            return connection.execute(query).scalar_one_or_none() == Status.PENDING

    def wanted_prefixes(self) -> set[str]:
        """The prefixes that a live cache holds, of all tenants."""
        query = sa.select(caches.c.prefix_id).where(caches.c.status.in_(_WANTED)).distinct()
        with self._database.read() as connection:
            return set(connection.execute(query).scalars())

    def wants(self, prefix_id: str) -> bool:
        """Whether a live cache holds this prefix."""
        query = sa.select(caches.c.serial).where(
            caches.c.prefix_id == prefix_id, caches.c.status.in_(_WANTED)
        )
        with self._database.read() as connection:
            return connection.execute(query.limit(1)).first() is not None

    def within(self, tenant: str, most_tokens: int) -> Step:
        """A step that refuses a change after which a tenant's live caches hold more tokens than this.

        It comes after the change has been written, and lets no other one of the tenant in between.
        """

        def step(connection: sa.Connection) -> None:
            self._database.lock(connection, f"caches of {tenant}")
            held = sa.select(sa.func.coalesce(sa.func.sum(caches.c.tokens), 0)).where(
                caches.c.tenant == tenant, caches.c.status.in_(_WANTED)
            )
            tokens = connection.execute(held).scalar_one()
            if tokens > most_tokens:
                raise QuotaExceeded(
                    f"messages: this tenant's caches would hold {tokens} tokens, of at most"
                    f" {most_tokens}: delete some, or let them expire",
                    param="messages",
                )

        return step

    def hear_endings(self) -> Sequence[Ending]:
        """Caches that have ended since the last call, whoever ended them, where others may."""
        return self._endings.hear()

    def live(self, cache_ids: Sequence[str]) -> set[str]:
        """Those of them that have not ended."""
        query = sa.select(caches.c.id).where(caches.c.id.in_(cache_ids), caches.c.status.in_(_WANTED))
        with self._database.read() as connection:
            return set(connection.execute(query).scalars())

    def _change(self, cache_id: str, statement: sa.Executable, also: Step | None) -> CacheObject | None:
        with self._database.begin() as connection:
            row = connection.execute(statement).one_or_none()
            self._forget(cache_id)
            if row is not None and also is not None:
                also(connection)
        return None if row is None else from_row(row)

    def _forget(self, cache_id: str) -> None:
        self._database.after_commit(partial(self._memory.forget, cache_id))


def _has(key: str, value: str, *, in_postgresql: bool) -> sa.ColumnElement[bool]:
    """The metadata have this entry."""
    if in_postgresql:
        document: sa.ColumnElement[Any] = sa.type_coerce(caches.c.metadata, sa.JSON)
        return sa.func.json_extract_path_text(document, escape(key)) == escape(value)
    # Not by a JSON path, as above: SQLite's can name no key with a quote in it.
    entries = sa.func.json_each(caches.c.metadata).table_valued("key", "value")
    return sa.exists().where(entries.c.key == key, entries.c.value == value)


def _select(tenant: str, cache_id: str) -> sa.Select[Any]:
    return caches.select().where(caches.c.tenant == tenant, caches.c.id == cache_id)
