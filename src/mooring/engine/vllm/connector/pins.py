"""Which device blocks are pinned, for whom and until when, within a budget. Decides; touches no pool."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import ceil


def reserved_blocks(max_model_len: int, block_tokens: int) -> int:
    """What pins must leave: one request of the greatest length, or it would wait for ever."""
    return ceil(max_model_len / block_tokens) + 1


@dataclass
class Pin:
    """A context's blocks on the device."""

    tokens: int
    block_ids: tuple[int, ...]
    expires_at: float


class Pins:
    """Pins by context id. Contexts that begin alike share blocks, which count once."""

    def __init__(self, budget_blocks: int) -> None:
        self.budget_blocks = max(0, budget_blocks)
        self._pins: dict[str, Pin] = {}
        self._counts: Counter[int] = Counter()
        self._next_expiry = float("inf")
        """No pin expires before."""

    @property
    def used_blocks(self) -> int:
        return len(self._counts)

    def get(self, context: str) -> Pin | None:
        return self._pins.get(context)

    def tokens(self) -> dict[str, int]:
        return {context: pin.tokens for context, pin in self._pins.items()}

    def fits(self, block_ids: Collection[int]) -> bool:
        new = sum(block not in self._counts for block in set(block_ids))
        return self.used_blocks + new <= self.budget_blocks

    def add(self, context: str, tokens: int, block_ids: Sequence[int], expires_at: float) -> None:
        assert context not in self._pins
        assert self.fits(block_ids)
        self._pins[context] = Pin(tokens, tuple(block_ids), expires_at)
        self._counts.update(block_ids)
        self._next_expiry = min(self._next_expiry, expires_at)

    def renew(self, context: str, expires_at: float) -> None:
        """Leases only grow: of two users the one who asks for longer decides."""
        if pin := self._pins.get(context):
            pin.expires_at = max(pin.expires_at, expires_at)

    def remove(self, context: str) -> tuple[int, ...]:
        """The blocks that this pin held a reference on; none when there is no such pin."""
        pin = self._pins.pop(context, None)
        if pin is None:
            return ()
        self._counts -= Counter(pin.block_ids)  # drops what falls to zero
        return pin.block_ids

    def others(self, contexts: Collection[str]) -> list[str]:
        return [context for context in self._pins if context not in contexts]

    def expired(self, now: float) -> list[str]:
        if now < self._next_expiry:
            return []
        expired = [context for context, pin in self._pins.items() if pin.expires_at <= now]
        left = [pin.expires_at for pin in self._pins.values() if pin.expires_at > now]
        self._next_expiry = min(left, default=float("inf"))
        return expired

    def check(self) -> None:
        counted = Counter(block for pin in self._pins.values() for block in pin.block_ids)
        assert counted == self._counts
        assert self.used_blocks <= self.budget_blocks
