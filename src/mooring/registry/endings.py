"""Caches that have ended, told to whoever else serves from the same database and may hold their bytes.

Where the database is not shared, nothing is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from mooring.registry.database import Database
from mooring.registry.schema import endings

_KEPT_S = 86_400
_OVERLAP_S = 30
"""A transaction that began earlier may end later, but no longer than this."""


@dataclass(frozen=True)
class Ending:
    """A cache has ended, or does not hold this prefix any more."""

    cache_id: str
    prefix_id: str


class Endings:
    """Blocking; safe from any thread. Each object hears of each ending once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._heard: set[int] = set()
        self._since: float | None = None
        """By the database's clock."""

    def record(self, connection: sa.Connection, ended: Sequence[Ending]) -> None:
        """As a part of the transaction that ends them."""
        if self._database.is_shared and ended:
            now = self._database.now(connection)
            rows = [vars(ending) | {"ended_at": now} for ending in ended]
            connection.execute(endings.insert(), rows)

    def hear(self) -> Sequence[Ending]:
        """What has ended since the last call; of what ended before the first one, nothing."""
        if not self._database.is_shared:
            return []
        with self._database.begin() as connection:
            now = self._database.now(connection)
            since = now - _OVERLAP_S if self._since is None else self._since
            rows = connection.execute(endings.select().where(endings.c.ended_at >= since)).all()
            connection.execute(endings.delete().where(endings.c.ended_at < now - _KEPT_S))
        new = [] if self._since is None else [row for row in rows if row.serial not in self._heard]
        self._heard = {row.serial for row in rows}
        self._since = max(since, now - _OVERLAP_S)
        return [Ending(row.cache_id, row.prefix_id) for row in new]
