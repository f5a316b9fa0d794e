"""Blocks on their way to whoever asked for them."""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mooring.kvstore.match import Stored


class Fetch:
    """Seen by the decode thread only; it changes in `KvStore.poll`."""

    def __init__(self, blocks: Sequence[Stored]) -> None:
        self.blocks = tuple(blocks)
        self.cancelled = False
        self._payloads: list[NDArray[np.uint8] | None] = [None] * len(self.blocks)
        self._tiers = [block.tier for block in self.blocks]
        self._reading: dict[int, Future[Any]] = {}

    def done(self) -> bool:
        """Whether every payload is there, or known not to come."""
        return not self._reading

    def payload(self, index: int) -> NDArray[np.uint8] | None:
        """The bytes of `blocks[index]`; None when they could not be had, or are not there yet.

        uint8 of shape [size]; may be a read-only view of a mapped file.
        """
        return self._payloads[index]

    def tier(self, index: int) -> str:
        """Where they came from: "ram" or "disk"."""
        return self._tiers[index]

    def cancel(self) -> None:
        """Nobody wants them any more."""
        self.cancelled = True
        for reading in list(self._reading.values()):
            reading.cancel()
        self._reading.clear()
        self._payloads = [None] * len(self.blocks)

    def begin(self, index: int, reading: "Future[Any]") -> None:
        """For the store: a reader was asked."""
        self._tiers[index] = "disk"
        self._reading[index] = reading

    def fill(self, index: int, payload: NDArray[np.uint8] | None, tier: str) -> None:
        """For the store: the answer for one block."""
        if not self.cancelled:
            self._payloads[index] = payload
            self._tiers[index] = tier
        self._reading.pop(index, None)
