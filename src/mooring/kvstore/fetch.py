"""Reading blocks back: what is in RAM at once, the rest by the readers."""

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mooring.kvstore.codec import Rejected, Rejection
from mooring.kvstore.disk import DiskTier
from mooring.kvstore.match import Stored


@dataclass(frozen=True, eq=False)
class Read:
    """What a reader found: a payload, or why there is none."""

    payload: NDArray[np.uint8] | None
    rejection: Rejection | None
    seconds: float


class Fetch:
    """Blocks on their way. Seen by the decode thread only; it changes in `KvStore.poll`."""

    def __init__(self, blocks: Sequence[Stored]) -> None:
        self.blocks = tuple(blocks)
        self._payloads: list[NDArray[np.uint8] | None] = [None] * len(blocks)
        self._tiers = [block.tier for block in blocks]
        self._reading: dict[int, Future[Read]] = {}
        self.cancelled = False

    def done(self) -> bool:
        """Whether every payload is there, or known not to come."""
        return not self._reading

    def payload(self, index: int) -> NDArray[np.uint8] | None:
        """The bytes of `blocks[index]`; None when they could not be had, or are not there yet."""
        return self._payloads[index]

    def tier(self, index: int) -> str:
        """Where they came from: "ram" or "disk"."""
        return self._tiers[index]

    def cancel(self) -> None:
        """Nobody wants them any more."""
        self.cancelled = True
        for reading in self._reading.values():
            reading.cancel()
        self._reading.clear()
        self._payloads = [None] * len(self.blocks)

    def begin(self, index: int, reading: "Future[Read]") -> None:
        """The store: a reader was asked."""
        self._tiers[index] = "disk"
        self._reading[index] = reading

    def fill(self, index: int, payload: NDArray[np.uint8] | None, tier: str) -> None:
        """The store: the answer for one block."""
        if not self.cancelled:
            self._payloads[index] = payload
            self._tiers[index] = tier
        self._reading.pop(index, None)


def read(disk: DiskTier, key: str) -> Read:
    """On a reader thread: map and verify one file."""
    begun = time.perf_counter()
    try:
        payload, rejection = disk.get(key), None
    except Rejected as rejected:
        payload, rejection = None, rejected.reason
    if payload is None and rejection is None:
        rejection = Rejection.MISSING
    return Read(payload, rejection, time.perf_counter() - begun)


def copy(payload: NDArray[np.uint8]) -> Read:
    """On a reader thread: bytes that need no file behind them."""
    begun = time.perf_counter()
    copied = np.array(payload)
    return Read(copied, None, time.perf_counter() - begun)
