"""The RAM tier: a byte budget, least recently used first out. Losing an object here loses nothing."""

from collections import OrderedDict
from threading import Lock

from mooring.kvstore.tier import KvObject


class RamTier:
    """Objects in process memory, at most `budget_bytes` of them."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._held: OrderedDict[str, KvObject] = OrderedDict()  # oldest use first
        self._used_bytes = 0
        self._lock = Lock()

    def get(self, key: str) -> KvObject | None:
        with self._lock:
            item = self._held.get(key)
            if item is not None:
                self._held.move_to_end(key)
            return item

    def put(self, key: str, item: KvObject) -> None:
        """Hold the object, dropping others to make room; one larger than the budget is not held."""
        with self._lock:
            self._drop(key)
            if not self.could_hold(item):
                return
            while self._used_bytes + item.size_bytes > self._budget_bytes:
                self._drop(next(iter(self._held)))
            self._held[key] = item
            self._used_bytes += item.size_bytes

    def could_hold(self, item: KvObject) -> bool:
        return item.size_bytes <= self._budget_bytes

    def delete(self, key: str) -> None:
        with self._lock:
            self._drop(key)

    def keys(self) -> set[str]:
        with self._lock:
            return set(self._held)

    @property
    def used_bytes(self) -> int:
        return self._used_bytes

    def _drop(self, key: str) -> None:
        item = self._held.pop(key, None)
        if item is not None:
            self._used_bytes -= item.size_bytes
