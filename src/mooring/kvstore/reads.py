"""Reading blocks: what is in RAM at once, the rest through the readers; promotion of what they read."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mooring.kvstore.answers import Answers
from mooring.kvstore.block import Block
from mooring.kvstore.codec import Rejected, Rejection
from mooring.kvstore.disk import DiskTier
from mooring.kvstore.fetch import Fetch
from mooring.kvstore.holdings import Holdings
from mooring.kvstore.match import Stored
from mooring.kvstore.rate import Rate
from mooring.kvstore.tree import Tree

_BELIEVED = {"ram": 8e9, "disk": 2e9}
"""Bytes a second, before anything was measured: optimistic, so that it soon will be."""


@dataclass(frozen=True, eq=False)
class _Read:
    """What a reader found: a payload, or why there is none."""

    payload: NDArray[np.uint8] | None
    rejection: Rejection | None
    seconds: float


class Reads:
    """Those that are under way."""

    def __init__(
        self,
        tree: Tree,
        holdings: Holdings,
        disk: DiskTier,
        answers: Answers,
        readers: Executor,
        reject: Callable[[Block, Rejection], None],
    ) -> None:
        """`reject` takes a block whose file cannot be used out of the tree."""
        self._tree = tree
        self._holdings = holdings
        self._disk = disk
        self._answers = answers
        self._readers = readers
        self._reject = reject
        self._rates = {tier: Rate(speed) for tier, speed in _BELIEVED.items()}
        self._closing = False

    def fetch(self, blocks: Sequence[Stored]) -> Fetch:
        fetch = Fetch(blocks)
        for index, stored in enumerate(fetch.blocks):
            block = self._tree.find(stored)
            if block is None:
                continue
            if block.readable_at_once:
                fetch.fill(index, self._holdings.payload(block), "ram")
            else:
                block.reads += 1
                self._holdings.refresh(block)
                task = self._readers.submit(_read, self._disk, block.key)
                fetch.begin(index, task)
                self._answers.when_done(task, partial(self._read, fetch, index, block, task))
        return fetch

    def seconds_for(self, blocks: Sequence[Stored]) -> float:
        return sum(self._rates[block.tier].seconds_for(block.size_bytes) for block in blocks)

    def close(self) -> None:
        """What was not begun is not read any more."""
        self._closing = True
        self._readers.shutdown(cancel_futures=True)

    def _read(self, fetch: Fetch, index: int, block: Block, task: "Future[_Read]") -> None:
        block.reads -= 1
        if block.alive:
            self._holdings.refresh(block)
        if task.cancelled():
            fetch.fill(index, None, "disk")
            return
        found = task.result()
        if found.payload is not None:
            self._rates["disk"].measured(found.payload.nbytes, found.seconds)
        elif found.rejection is not None:
            self._reject(block, found.rejection)
        fetch.fill(index, found.payload, "disk")
        if fetch.done() and not fetch.cancelled and not self._closing:
            self._promote(fetch)

    def _promote(self, fetch: Fetch) -> None:
        """Copy into RAM what was read from disk, as much of it as RAM can take without going round."""
        size_bytes = 0
        for index, stored in enumerate(fetch.blocks):
            block, payload = self._tree.find(stored), fetch.payload(index)
            if block is None or payload is None or block.readable_at_once:
                continue
            size_bytes += block.size_bytes
            if size_bytes > self._holdings.ram_budget_bytes:
                return
            task = self._readers.submit(_copy, payload)
            self._answers.when_done(task, partial(self._copied, block, task))

    def _copied(self, block: Block, task: "Future[_Read]") -> None:
        if task.cancelled():
            return
        copied = task.result()
        assert copied.payload is not None
        self._rates["ram"].measured(block.size_bytes, copied.seconds)
        if block.alive and not block.readable_at_once:
            self._holdings.hold(block, copied.payload)


def _read(disk: DiskTier, key: str) -> _Read:
    """On a reader thread: map and verify one file."""
    begun = time.perf_counter()
    try:
        payload = disk.get(key)
        rejection = Rejection.MISSING if payload is None else None
    except Rejected as rejected:
        payload, rejection = None, rejected.reason
    return _Read(payload, rejection, time.perf_counter() - begun)


def _copy(payload: NDArray[np.uint8]) -> _Read:
    """On a reader thread: bytes that need no file behind them."""
    begun = time.perf_counter()
    copied = np.array(payload)
    return _Read(copied, None, time.perf_counter() - begun)
