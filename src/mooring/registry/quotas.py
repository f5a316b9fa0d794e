"""What tenants use of their limits, as counted by all servers that share a database.

Of a crash these figures need not survive: nobody waits for a disk.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from mooring.registry.database import Database
from mooring.registry.schema import places, spans


@dataclass(frozen=True)
class Amounts:
    """What was used, or reserved, in the span of time that runs and in the one before."""

    now: float
    """By the database's clock, of which a span is a multiple of the length."""
    used: int
    before: int


class Quotas:
    """One server's view. Blocking; safe from any thread."""

    def __init__(self, database: Database, holder: str, length_s: float) -> None:
        """`holder` is this server; what it does not renew in `length_s` is not its any more."""
        self._database = database
        self._holder = holder
        self._length_s = length_s

    def reserve(
        self, tenant: str, what: str, length_s: int, decide: Callable[[Amounts], int]
    ) -> tuple[int, Amounts]:
        """Add what `decide` says; returns that, and the amounts with it. Servers take turns at it."""
        key = sa.and_(spans.c.tenant == tenant, spans.c.what == what, spans.c.length_s == length_s)
        with self._database.begin() as connection:
            self._database.need_not_last(connection)
            self._database.lock(connection, f"limit of {tenant}: {what} in {length_s}")
            now = self._database.now(connection)
            row = connection.execute(spans.select().where(key)).one_or_none()
            span = int(now // length_s)
            used = before = 0
            if row is not None and row.span == span:
                used, before = row.used, row.before
            elif row is not None and row.span == span - 1:
                before = row.used
            more = decide(Amounts(now, used, before))
            values = {"span": span, "used": used + more, "before": before}
            if row is not None:
                connection.execute(spans.update().where(key).values(values))
            else:
                named = {"tenant": tenant, "what": what, "length_s": length_s}
                connection.execute(spans.insert().values(named | values))
        return more, Amounts(now, used + more, before)

    def take_places(self, tenant: str, count: int, most: int) -> bool:
        """Have so many of a tenant's places, all in all, if the living leave them."""
        with self._database.begin() as connection:
            self._database.need_not_last(connection)
            self._database.lock(connection, f"places of {tenant}")
            now = self._database.now(connection)
            others = sa.select(sa.func.coalesce(sa.func.sum(places.c.places), 0)).where(
                places.c.tenant == tenant, places.c.holder != self._holder, places.c.until > now
            )
            if connection.execute(others).scalar_one() + count > most:
                return False
            self._put(connection, now, {tenant: count})
        return True

    def renew_places(self, counts: Mapping[str, int]) -> None:
        """A sign of life, with the places that we have now, by tenant; 0 gives all of one's back."""
        with self._database.begin() as connection:
            self._database.need_not_last(connection)
            now = self._database.now(connection)
            self._put(connection, now, counts)
            ours = sa.and_(places.c.holder == self._holder, places.c.places == 0)
            lapsed = places.c.until <= now - self._length_s
            old = sa.select(places.c.tenant, places.c.holder).where(sa.or_(ours, lapsed))
            old = old.with_for_update(skip_locked=True)
            for row in connection.execute(old).all():
                which = sa.and_(places.c.tenant == row.tenant, places.c.holder == row.holder)
                connection.execute(places.delete().where(which))

    def _put(self, connection: sa.Connection, now: float, counts: Mapping[str, int]) -> None:
        until = now + self._length_s
        for tenant, count in sorted(counts.items()):
            values = {"tenant": tenant, "holder": self._holder, "places": count, "until": until}
            new = self._database.insert(places).values(values)
            put = new.on_conflict_do_update(
                index_elements=["tenant", "holder"],
                set_={"places": new.excluded.places, "until": new.excluded.until},
            )
            connection.execute(put)
