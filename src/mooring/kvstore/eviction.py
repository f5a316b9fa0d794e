"""Which block is worth least: the contract of a policy, and plain LRU. Pure: no bytes, no clock.

A policy hears of every use and ranks blocks by it. A tier keeps those that it may evict in a `Pool`.
"""

import heapq
from collections.abc import Iterable
from typing import Protocol

from mooring.kvstore.block import Block


class Policy(Protocol):
    """Ranks blocks. It keeps what it knows of a block in `used_at`, `uses` and `kind`."""

    kinds: int
    """Blocks of one kind (0 to kinds - 1) are worth less the longer they have not been used."""

    def used(self, block: Block) -> None:
        """The block was computed or read. On a path, the deepest block is told first."""

    def worth(self, block: Block, held: int) -> float:
        """In a tier that holds so many blocks; comparable at one moment only."""

    def restored(self, block: Block) -> None:
        """A former process left it behind, with `used_at` and `uses`. Oldest first."""


class Lru:
    """Least recently used."""

    kinds = 1

    def __init__(self) -> None:
        self._now = 0

    def used(self, block: Block) -> None:
        self._now += 1
        block.used_at = self._now
        block.uses += 1

    def worth(self, block: Block, held: int) -> float:
        return block.used_at

    def restored(self, block: Block) -> None:
        self._now += 1
        block.used_at = self._now


class Pool:
    """The blocks that one tier may evict.

    One heap for each kind, oldest use first. An entry is out of date when its block was used since or is
    offered no longer; it is dropped when it comes to the top.
    """

    def __init__(self, policy: Policy, bit: int) -> None:
        """`bit` marks in `Block.offered` what this pool holds."""
        self._policy = policy
        self._bit = bit
        self._heaps: list[list[tuple[int, Block]]] = [[] for _ in range(policy.kinds)]
        self._offered = 0
        self._entries = 0

    def __contains__(self, block: Block) -> bool:
        return bool(block.offered & self._bit)

    def __len__(self) -> int:
        return self._offered

    def offer(self, block: Block) -> None:
        """The block may be evicted from now on, or was used since it was offered."""
        if not block.offered & self._bit:
            block.offered |= self._bit
            self._offered += 1
        heapq.heappush(self._heaps[block.kind], (block.used_at, block))
        self._entries += 1
        if self._entries > 2 * self._offered + 1024:
            self._tidy()

    def withdraw(self, block: Block) -> None:
        if block.offered & self._bit:
            block.offered &= ~self._bit
            self._offered -= 1

    def worst(self, held: int) -> Block | None:
        """The one that is worth least in a tier of so many blocks; it stays in the pool."""
        oldest = [block for kind in range(len(self._heaps)) if (block := self._oldest(kind)) is not None]
        return min(oldest, key=lambda block: self._policy.worth(block, held), default=None)

    def check(self, expected: Iterable[Block]) -> None:
        """Assert that exactly these are offered, each of them findable."""
        wanted = set(expected)
        current = {
            block
            for kind, heap in enumerate(self._heaps)
            for used_at, block in heap
            if self._is_current(used_at, block, kind)
        }
        assert current == wanted
        assert all(block in self for block in wanted)
        assert self._offered == len(wanted)
        assert self._entries == sum(map(len, self._heaps))

    def _oldest(self, kind: int) -> Block | None:
        heap = self._heaps[kind]
        while heap:
            used_at, block = heap[0]
            if self._is_current(used_at, block, kind):
                return block
            heapq.heappop(heap)
            self._entries -= 1
        return None

    def _is_current(self, used_at: int, block: Block, kind: int) -> bool:
        return bool(block.offered & self._bit) and block.used_at == used_at and block.kind == kind

    def _tidy(self) -> None:
        """Drop what is out of date or there twice, so that memory follows the number of blocks."""
        for kind, heap in enumerate(self._heaps):
            current = {at: block for at, block in heap if self._is_current(at, block, kind)}
            heap[:] = sorted(current.items())
        self._entries = sum(map(len, self._heaps))
