"""The RAM tier: payloads in process memory, and their sum. Who must leave is decided elsewhere."""

import numpy as np
from numpy.typing import NDArray


class RamTier:
    """Touched by one thread only."""

    def __init__(self) -> None:
        self._held: dict[str, NDArray[np.uint8]] = {}
        self._used_bytes = 0

    def get(self, key: str) -> NDArray[np.uint8] | None:
        return self._held.get(key)

    def put(self, key: str, payload: NDArray[np.uint8]) -> None:
        """Hold the payload, which must not be changed any more; what is handed out is read-only."""
        self.delete(key)
        held = payload.view()
        held.flags.writeable = False
        self._held[key] = held
        self._used_bytes += held.nbytes

    def delete(self, key: str) -> None:
        if (payload := self._held.pop(key, None)) is not None:
            self._used_bytes -= payload.nbytes

    def __len__(self) -> int:
        return len(self._held)

    def keys(self) -> set[str]:
        return set(self._held)

    @property
    def used_bytes(self) -> int:
        return self._used_bytes
