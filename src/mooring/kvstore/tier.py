"""The contract of a tier."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Tier(Protocol):
    """A place for payloads, uint8 of shape [size]. Keys are lower-case hex digits."""

    def get(self, key: str) -> NDArray[np.uint8] | None:
        """The payload, or None when this tier does not hold it.

        Raises:
            Rejected: it is there, and must not be used.
        """

    def put(self, key: str, payload: NDArray[np.uint8]) -> None:
        """Hold the payload.

        Raises:
            OSError: this tier has files, and could not write one; nothing of it remains.
        """

    def delete(self, key: str) -> None:
        """Forget the payload, if it is there."""

    def keys(self) -> set[str]: ...
