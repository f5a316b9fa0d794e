"""A cache as a row, and back."""

from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from mooring.core.context import CacheObject, Failure, Status
from mooring.registry.schema import caches

CHANGING = (
    caches.c.metadata,
    caches.c.expired_at,
    caches.c.status,
    caches.c.tokens,
    caches.c.prefix_id,
    caches.c.failure,
)
"""What of a row may be another later."""


def to_row(cache: CacheObject) -> dict[str, Any]:
    row = {field: getattr(cache, field) for field in CacheObject.__dataclass_fields__}
    failure = None if cache.failure is None else asdict(cache.failure)
    return row | {"failure": failure, "messages": list(cache.messages), "tools": list(cache.tools)}


def from_row(row: sa.Row[Any]) -> CacheObject:
    values = dict(row._mapping)
    del values["serial"]
    fixed = {"messages": tuple(values["messages"]), "tools": tuple(values["tools"])}
    return CacheObject(**values | fixed | changing(row))


def changing(row: sa.Row[*tuple[Any, ...]]) -> dict[str, Any]:
    """The fields that `CHANGING` holds, of a row with at least these columns."""
    values = {column.name: row._mapping[column] for column in CHANGING}
    failure = values["failure"]
    return values | {
        "status": Status(values["status"]),
        "failure": None if failure is None else Failure(**failure),
    }
