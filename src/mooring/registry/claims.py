"""Claims: what one of the servers that share a database is doing, so that the others leave it.

A claim saves work; it is no proof. Who lost its claim unnoticed may end what it was doing all the same,
so whatever is done under one must come out right when it is done twice.
"""

from collections.abc import Collection

import sqlalchemy as sa

from mooring.registry.database import Database
from mooring.registry.schema import claims


class Claims:
    """One server's. Blocking; safe from any thread."""

    def __init__(self, database: Database, holder: str, length_s: float) -> None:
        """`holder` is this server's and nobody else's."""
        self._database = database
        self._holder = holder
        self._length_s = length_s

    def take(self, name: str) -> bool:
        """Whether it is ours now: it was free, or ours, or its holder has not renewed it in time."""
        with self._database.begin() as connection:
            now = self._database.now(connection)
            lapsed = sa.select(claims.c.name).where(claims.c.until <= now - self._length_s)
            lapsed = lapsed.with_for_update(skip_locked=True)  # what its holder can take no more
            connection.execute(claims.delete().where(claims.c.name.in_(lapsed)))
            values = {"name": name, "holder": self._holder, "until": now + self._length_s}
            new = self._database.insert(claims).values(values)
            taken = new.on_conflict_do_update(
                index_elements=["name"],
                set_={"holder": new.excluded.holder, "until": new.excluded.until},
                where=sa.or_(claims.c.holder == self._holder, claims.c.until <= now),
            ).returning(claims.c.name)
            return connection.execute(taken).first() is not None

    def free(self, name: str) -> None:
        """Others may take it."""
        ours = sa.and_(claims.c.name == name, claims.c.holder == self._holder)
        with self._database.begin() as connection:
            connection.execute(claims.delete().where(ours))

    def renew(self, names: Collection[str]) -> None:
        """A sign of life: these stay ours."""
        ours = sa.and_(claims.c.holder == self._holder, claims.c.name.in_(names))
        with self._database.begin() as connection:
            now = self._database.now(connection)
            connection.execute(claims.update().where(ours).values(until=now + self._length_s))

    def of_others(self) -> set[str]:
        """What is claimed by living others."""
        with self._database.read() as connection:
            now = self._database.now(connection)
            query = sa.select(claims.c.name)
            query = query.where(claims.c.holder != self._holder, claims.c.until > now)
            return set(connection.execute(query).scalars())
