"""Tags: a tenant's stable names for caches that come and go. Rows to values and back."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from mooring.core.context import Page, Tag
from mooring.registry.database import Database
from mooring.registry.paging import select_page
from mooring.registry.schema import tags


class Tags:
    """The registry of tags. Blocking; safe from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def bind(self, tag: Tag) -> Tag:
        """Bind a name to a cache; one that exists is bound anew and keeps its `created_at`."""
        values = {field: getattr(tag, field) for field in Tag.__dataclass_fields__}
        new = self._database.insert(tags).values(values)
        bound = new.on_conflict_do_update(
            index_elements=["tenant", "name"], set_={"cache_id": new.excluded.cache_id}
        ).returning(tags)
        with self._database.begin() as connection:
            row = connection.execute(bound).one()
        return _from_row(row)

    def get(self, tenant: str, name: str) -> Tag | None:
        query = tags.select().where(tags.c.tenant == tenant, tags.c.name == name)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _from_row(row)

    def list(self, tenant: str, page: Page) -> Sequence[Tag] | None:
        """A page of the tenant's tags; None when `after` or `before` names none of them."""
        with self._database.read() as connection:
            rows = select_page(connection, tags, tags.c.tenant == tenant, tags.c.name, page)
        return None if rows is None else [_from_row(row) for row in rows]

    def delete(self, tenant: str, name: str) -> None:
        """Remove a tag, if it is there."""
        with self._database.begin() as connection:
            connection.execute(tags.delete().where(tags.c.tenant == tenant, tags.c.name == name))


def _from_row(row: sa.Row[Any]) -> Tag:
    return Tag(row.tenant, row.name, row.cache_id, row.created_at)
