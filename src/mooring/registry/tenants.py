"""Tenants and keys. Rows to values and back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import sqlalchemy as sa

from mooring.core.tenant import Key, Tenant
from mooring.registry.database import Database
from mooring.registry.schema import keys, tenants


class Tenants:
    """The registry of tenants and their keys. Blocking; safe from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def insert(self, tenant: Tenant) -> bool:
        """False when there is one with this id."""
        new = self._database.insert(tenants).values(asdict(tenant)).on_conflict_do_nothing()
        with self._database.begin() as connection:
            return connection.execute(new.returning(tenants.c.id)).first() is not None

    def get(self, tenant_id: str) -> Tenant | None:
        with self._database.read() as connection:
            row = connection.execute(tenants.select().where(tenants.c.id == tenant_id)).one_or_none()
        return None if row is None else Tenant(**row._mapping)

    def list(self) -> Sequence[Tenant]:
        with self._database.read() as connection:
            rows = connection.execute(
                tenants.select().order_by(tenants.c.created_at, tenants.c.id)
            ).all()
        return [Tenant(**row._mapping) for row in rows]

    def update(
        self,
        tenant_id: str,
        *,
        name: str | None,
        disabled: bool | None,
        limits: Mapping[str, int] | None,
    ) -> Tenant | None:
        """Change what is given; None when there is no such tenant."""
        given = {"name": name, "disabled": disabled, "limits": limits}
        values = {key: value for key, value in given.items() if value is not None}
        if values:
            with self._database.begin() as connection:
                connection.execute(tenants.update().where(tenants.c.id == tenant_id).values(values))
        return self.get(tenant_id)

    def insert_key(self, key: Key) -> None:
        with self._database.begin() as connection:
            connection.execute(keys.insert().values(asdict(key)))

    def keys_of(self, tenant_id: str) -> Sequence[Key]:
        query = keys.select().where(keys.c.tenant == tenant_id).order_by(keys.c.created_at, keys.c.id)
        with self._database.read() as connection:
            return [Key(**row._mapping) for row in connection.execute(query)]

    def revoke(self, tenant_id: str | None, key_id: str, now: int) -> Key | None:
        """Mark a key, of this tenant if one is given; the first time counts. None: no such key."""
        which = keys.c.id == key_id
        if tenant_id is not None:
            which = sa.and_(which, keys.c.tenant == tenant_id)
        moment = sa.func.coalesce(keys.c.revoked_at, now)
        statement = keys.update().where(which).values(revoked_at=moment).returning(keys)
        with self._database.begin() as connection:
            row = connection.execute(statement).one_or_none()
        return None if row is None else Key(**row._mapping)

    def find_key(self, hash_: str) -> Key | None:
        """The key of a tenant that is not disabled."""
        query = keys.select().join(tenants).where(keys.c.hash == hash_, tenants.c.disabled.is_(False))
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else Key(**row._mapping)

    def any_key(self) -> bool:
        """Whether a key was ever made."""
        with self._database.read() as connection:
            return connection.execute(sa.select(keys.c.id).limit(1)).first() is not None
