"""The contract of a tier, and the object it holds."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class KvObject:
    """The exported KV state of one prefix. Immutable once made."""

    tokens: int
    """How many tokens the state covers."""
    payload: NDArray[np.uint8]
    """The bytes, uint8 of shape [size]; may be a read-only view of a mapped file."""

    @property
    def size_bytes(self) -> int:
        return int(self.payload.nbytes)


class Tier(Protocol):
    """A place for KV objects. Safe from any thread; keys are lower-case hex digits."""

    def get(self, key: str) -> KvObject | None:
        """The object, verified, or None when this tier does not hold it."""

    def put(self, key: str, item: KvObject) -> None:
        """Hold the object. A tier that cannot lose it returns only when it is durable.

        Raises:
            StorageFull: there is no room.
        """

    def delete(self, key: str) -> None:
        """Forget the object, if it is there."""

    def keys(self) -> set[str]: ...
