"""Files: who owns which document, and how much that is. Rows to values and back."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from mooring.core.context import Page
from mooring.core.file import File, FileStatus
from mooring.registry.database import Database
from mooring.registry.paging import select_page
from mooring.registry.schema import files


class Files:
    """The registry of files. Blocking; safe from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def are_shared(self) -> bool:
        """Other servers may have uploads under way."""
        return self._database.is_shared

    def reserve(self, file: File, *, max_files: int, max_total_bytes: int) -> tuple[int, int] | None:
        """Insert a pending file if the tenant's limits allow one more.

        Returns what the tenant has already, files and bytes, when they do not. Counting and inserting
        are one transaction, which no other one of the tenant runs beside, so that two uploads cannot
        both take the last place.
        """
        used = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(files.c.bytes), 0))
        used = used.where(files.c.tenant == file.tenant, files.c.id != file.id)
        with self._database.begin() as connection:
            self._database.lock(connection, f"files of {file.tenant}")
            connection.execute(files.insert().values(asdict(file)))
            count, size = connection.execute(used).one()
            if count < max_files and size + file.bytes <= max_total_bytes:
                return None
            connection.rollback()
        return count, size

    def settle(self, file_id: str, status: FileStatus, problem: str | None) -> None:
        """The end of `pending`."""
        change = files.update().where(files.c.id == file_id).values(status=status, problem=problem)
        with self._database.begin() as connection:
            connection.execute(change)

    def get(self, tenant: str, file_id: str) -> File | None:
        query = files.select().where(_settled(tenant), files.c.id == file_id)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _from_row(row)

    def list(self, tenant: str, page: Page) -> Sequence[File] | None:
        """A page of the tenant's files; None when `after` or `before` names none of them."""
        with self._database.read() as connection:
            rows = select_page(connection, files, _settled(tenant), files.c.id, page)
        return None if rows is None else [_from_row(row) for row in rows]

    def delete(self, tenant: str, file_id: str) -> bool:
        """Remove a file; False when there is none."""
        which = sa.and_(_settled(tenant), files.c.id == file_id)
        with self._database.begin() as connection:
            return connection.execute(files.delete().where(which)).rowcount > 0

    def drop(self, file_id: str) -> None:
        """Take back a reservation."""
        with self._database.begin() as connection:
            connection.execute(files.delete().where(files.c.id == file_id))

    def drop_pending(self, before: int) -> set[str]:
        """Forget what a crash interrupted, of what was begun before; returns the ids that remain."""
        old = sa.and_(files.c.status == FileStatus.PENDING, files.c.created_at < before)
        with self._database.begin() as connection:
            connection.execute(files.delete().where(old))
            return set(connection.execute(sa.select(files.c.id)).scalars())


def _settled(tenant: str) -> sa.ColumnElement[bool]:
    return sa.and_(files.c.tenant == tenant, files.c.status != FileStatus.PENDING)


def _from_row(row: sa.Row[Any]) -> File:
    values = dict(row._mapping)
    del values["serial"]
    return File(**values | {"status": FileStatus(values["status"])})
