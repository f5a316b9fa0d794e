"""Device blocks that are held beyond their requests: pinned for a lease, or until they are saved."""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Protocol

from mooring.engine.vllm.connector.pins import Pins

log = logging.getLogger(__name__)


class Pool(Protocol):
    """What is used of vLLM's block pool. Not for threads: its scheduler's thread only."""

    blocks: Sequence[Any]

    def touch(self, blocks: Sequence[Any]) -> None: ...

    def free_blocks(self, ordered_blocks: Iterable[Any]) -> None: ...


class HeldBlocks:
    """References on the pool's blocks: one for each pin, one for each save."""

    def __init__(self, pool: Pool, pins: Pins, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._pins = pins
        self._clock = clock
        self._saving: dict[str, tuple[int, ...]] = {}
        self._beyond: str | None = None
        """The one of them that did not fit into the budget."""

    @property
    def pins(self) -> Pins:
        return self._pins

    @property
    def saving(self) -> Collection[str]:
        """Contexts on their way to the shared tier."""
        return self._saving.keys()

    def pin(self, context: str, tokens: int, block_ids: Sequence[int], lease_s: float) -> bool:
        """Pin, or renew the pin; False when the budget has no room."""
        expires_at = self._clock() + lease_s
        if self._pins.get(context) is not None:
            self._pins.renew(context, expires_at)
        elif self._pins.fits(block_ids):
            self._pins.add(context, tokens, block_ids, expires_at)
            self._touch(block_ids)
        else:
            return False
        return True

    def renew(self, context: str, lease_s: float) -> None:
        self._pins.renew(context, self._clock() + lease_s)

    def unpin(self, contexts: Iterable[str]) -> None:
        for context in contexts:
            self._free(self._pins.remove(context))

    def expire(self) -> None:
        for context in self._pins.expired(self._clock()):
            log.info("lease ended context=%s", context)
            self.unpin([context])

    def hold_for_save(self, context: str, block_ids: Sequence[int]) -> bool:
        """Until `saved`; False when saves, which may be slow, hold too much already.

        Beside what fits into the budget, one more context is held: else a device full of pins could
        save nothing.
        """
        assert context not in self._saving
        held = {block for blocks in self._saving.values() for block in blocks}
        if not self._pins.fits(held.union(block_ids)):
            if self._beyond is not None:
                return False
            self._beyond = context
        self._saving[context] = tuple(block_ids)
        self._touch(block_ids)
        return True

    def saved(self, context: str) -> None:
        self._free(self._saving.pop(context))
        if self._beyond == context:
            self._beyond = None

    def _touch(self, block_ids: Sequence[int]) -> None:
        self._pool.touch([self._pool.blocks[block] for block in block_ids])

    def _free(self, block_ids: Sequence[int]) -> None:
        """The last block first, so that it is also evicted first."""
        self._pool.free_blocks([self._pool.blocks[block] for block in reversed(block_ids)])
