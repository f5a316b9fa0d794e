"""How much was used in the last minute or day. Pure: the clock comes in as a number."""

from dataclasses import dataclass


@dataclass
class Window:
    """Slides over two spans of its length: the running one, and what is left of the one before.

    What was used in the span before is taken to have been used evenly.
    """

    length_s: float
    _span: int = 0
    """Spans since the clock's zero."""
    _current: float = 0
    _before: float = 0

    def used(self, now: float) -> float:
        self._turn(now)
        return self._before * self._left(now) + self._current

    def take(self, amount: int, most: int, now: float) -> bool:
        """Use an amount if no more than `most` is used then."""
        if self.used(now) + amount > most:
            return False
        self._current += amount
        return True

    def add(self, amount: int, most: int, now: float) -> None:
        """Use an amount, and be full at most."""
        self._current += max(0, min(amount, most - self.used(now)))

    def wait_s(self, amount: int, most: int, now: float) -> float:
        """Until an amount fits, if nothing else is used; it must not be more than `most`."""
        if self.used(now) + amount <= most:
            return 0.0
        room, left = most - amount, self._left(now)
        if self._current <= room:  # as the span before slides out
            return (left - (room - self._current) / self._before) * self.length_s
        return (left + 1 - room / self._current) * self.length_s

    def reset_s(self, now: float) -> float:
        """Until nothing is used, if nothing else is."""
        self._turn(now)
        spans = self._left(now) + 1 if self._current else self._left(now) if self._before else 0
        return spans * self.length_s

    def _left(self, now: float) -> float:
        """The share of the running span that is still to come, in (0, 1]."""
        return 1 - now % self.length_s / self.length_s

    def _turn(self, now: float) -> None:
        span = int(now // self.length_s)
        if span != self._span:
            self._before = self._current if span == self._span + 1 else 0
            self._current, self._span = 0, span
