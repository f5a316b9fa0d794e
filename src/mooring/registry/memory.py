"""Cache rows in memory, exactly as they are in the database.

That holds because one process alone changes them (the data directory's lock sees to it), and tells this
memory of each change right after its commit, before the next transaction begins. Of a database that is
shared, only what never changes is taken from here.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mooring.core.context import CacheObject

_ROW_TOKENS = 100  # what a row takes beside its messages, as if it were so many tokens


class CacheMemory:
    """The rows used last, by id; safe from any thread."""

    def __init__(self, most_tokens: int) -> None:
        self._most_tokens = most_tokens
        self._tokens = 0
        self._rows: OrderedDict[str, CacheObject] = OrderedDict()
        self._readings: dict[str, object] = {}
        """By id, the reading that nothing has changed under."""
        self._lock = threading.Lock()

    def get(self, cache_id: str) -> CacheObject | None:
        """None says nothing: it may be in the database."""
        with self._lock:
            row = self._rows.get(cache_id)
            if row is not None:
                self._rows.move_to_end(cache_id)
        return row

    def read(self, cache_id: str, select: Callable[[], CacheObject | None]) -> CacheObject | None:
        """What the database has; remembered, unless it was changed while it was being read."""
        reading = object()
        with self._lock:
            self._readings[cache_id] = reading
        row = None
        try:
            row = select()
        finally:
            with self._lock:
                if self._readings.get(cache_id) is reading:
                    del self._readings[cache_id]
                    if row is not None:
                        self._remember(row)
        return row

    def changed(self, cache_id: str, **fields: Any) -> None:
        """Some fields of a row have new values."""
        with self._lock:
            self._readings.pop(cache_id, None)
            row = self._rows.get(cache_id)
            if row is not None:
                self._rows[cache_id] = replace(row, **fields)

    def forget(self, cache_id: str) -> None:
        """A row is gone, or has changed in many ways."""
        with self._lock:
            self._readings.pop(cache_id, None)
            self._drop(cache_id)

    def _remember(self, row: CacheObject) -> None:
        self._drop(row.id)
        self._rows[row.id] = row
        self._tokens += row.tokens + _ROW_TOKENS
        while self._tokens > self._most_tokens:
            self._drop(next(iter(self._rows)))

    def _drop(self, cache_id: str) -> None:
        row = self._rows.pop(cache_id, None)
        if row is not None:
            self._tokens -= row.tokens + _ROW_TOKENS
