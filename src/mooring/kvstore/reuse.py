"""The default policy: least recently used, where every further use buys time. Decision 11 says why.

    worth = when it was last used + what its uses buy, measured in turnovers of the tier

Most blocks are used once and never again; those that were used twice mostly are again. So a block that
was used once makes way first. Uses are remembered after a block is gone, so that one that keeps coming
back is known for it.
"""

from mooring.kvstore.block import Block
from mooring.kvstore.sketch import Sketch

BOUGHT = (0.0, 2.0, 3.0, 3.5)
"""Turnovers of the tier that one, two, three and more uses buy."""
_YOUNG_SHARE = 8
_LEAST_YOUNG = 256
_YOUTH = 1e12
"""More than any number of uses buys."""


class Reuse:
    """See `eviction.Policy`."""

    kinds = len(BOUGHT)

    def __init__(self) -> None:
        self._now = 0
        self._sketch = Sketch()

    def used(self, block: Block) -> None:
        self._now += 1
        block.used_at = self._now
        block.uses = self._sketch.see(block.digest)
        block.kind = _kind(block.uses)

    def worth(self, block: Block, held: int) -> float:
        """What has just come stays for an eighth of a turnover: its path may still be growing."""
        young = self._now - block.used_at < max(held // _YOUNG_SHARE, _LEAST_YOUNG)
        return block.used_at + BOUGHT[block.kind] * held + (_YOUTH if young else 0.0)

    def restored(self, block: Block) -> None:
        self._now += 1
        block.used_at = self._now
        block.uses = self._sketch.see(block.digest, times=block.uses)
        block.kind = _kind(block.uses)


def _kind(uses: int) -> int:
    return min(max(uses, 1), len(BOUGHT)) - 1
