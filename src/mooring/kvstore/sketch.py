"""How often something was seen, also long after it is gone: counts in 4 MiB, now and then too high."""

import numpy as np

_SLOTS = 1 << 22
_HALVE_AFTER = _SLOTS // 4
_MOST = 255


class Sketch:
    """Two counters for each key, shared with others; the lower one is nearer to the truth.

    All counts are halved now and then: what is rare is forgotten, and the slots stay mostly empty.
    """

    def __init__(self) -> None:
        self._counts = bytearray(_SLOTS)
        self._seen = 0

    def count(self, digest: bytes) -> int:
        first, second = _slots(digest)
        return min(self._counts[first], self._counts[second])

    def see(self, digest: bytes, *, times: int = 1) -> int:
        """Count one more, or at least `times`; returns how often it was seen."""
        count = min(max(self.count(digest) + 1, times), _MOST)
        for slot in _slots(digest):
            self._counts[slot] = max(self._counts[slot], count)
        self._seen += 1
        if self._seen >= _HALVE_AFTER:
            self._seen = 0
            counts = np.frombuffer(self._counts, np.uint8)
            counts >>= 1
        return count


def _slots(digest: bytes) -> tuple[int, int]:
    """Digests are hashes already: any bits will do."""
    number = int.from_bytes(digest[:6], "little")
    return number % _SLOTS, (number >> 24) % _SLOTS
